//! `cargo xtask bench output`: how fast output of ranks comes through a launcher, plain and with a tag on every line,
//! ours and others' in interleaved rounds, beside what a pipeline of the same length carries:
//! `dd bs=64k | cat | cat >/dev/null`. Every rank copies one file of short lines to its standard output.

use super::launch::{median, quiet};
use crate::stage::say;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What `--help` says of the words.
pub(super) const WORDS: &str = "\
cargo xtask bench output: how fast ranks' output comes through
  --np N[,N...]    ranks (1,4)
  --mib N          MiB of output in all, plain (512); a quarter of it tagged
  --peer NAME=CMD  another launcher's command line with {np} and {program} filled in, and {tag:OPTION} where lines are to be
                   tagged (may be repeated)
  --ours CMD       ours, instead of the release build on this machine
  --rounds N       interleaved rounds (5)
";

/// One line of the file, 36 bytes with its newline.
const LINE: &str = "step 00000042 loss 0.123456 lr 1e-3\n";

/// Size of the file.
const FILE_MIB: u32 = 32;
/// Lines of the file.
const LINES: usize = (FILE_MIB as usize * (1 << 20)) / LINE.len();

struct Plan {
    ranks: Vec<u32>,
    mib: u32,
    launchers: Vec<(String, String)>,
    rounds: u32,
}

/// Measures and prints a table.
///
/// # Errors
/// Words that are not known, a command that cannot be started or fails.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let plan = understand(words)?;
    let file = Input::make()?;
    say(&format!("median (best) of {} interleaved rounds; ratio: median of ours / best other", plan.rounds));
    for &np in &plan.ranks {
        for tagged in [false, true] {
            let mib = if tagged { plan.mib / 4 } else { plan.mib };
            say(&line(np, tagged, &measure(np, tagged, mib, &plan, &file.0)?));
        }
    }
    Ok(())
}

fn understand(words: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan { ranks: vec![1, 4], mib: 512, launchers: Vec::new(), rounds: 5 };
    let (mut ours, mut words) = (None, words.iter());
    while let Some(&word) = words.next() {
        let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: &str| text.parse().map_err(|_| format!("{word}: {text:?} is no number"));
        match word {
            "--np" => plan.ranks = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--mib" => plan.mib = number(value()?)?.max(4),
            "--peer" => {
                let (name, command) = value()?.split_once('=').ok_or("--peer needs NAME=COMMAND")?;
                plan.launchers.push((name.to_owned(), command.to_owned()));
            }
            "--ours" => ours = Some(value()?.to_owned()),
            "--rounds" => plan.rounds = number(value()?)?.max(1),
            _ => return Err(format!("{word:?} is not known\n{WORDS}")),
        }
    }
    let ours = match ours {
        Some(ours) => ours,
        None => {
            let rmpirun = crate::build::release()?.join("rmpirun");
            format!("{} --oversubscribe -np {{np}} {{tag:--tag-output}} {{program}}", rmpirun.display())
        }
    };
    plan.launchers.insert(0, ("ours".to_owned(), ours));
    Ok(plan)
}

/// The file of lines, in memory where the system keeps such files; removed with the value.
struct Input(PathBuf);

impl Input {
    /// [`FILE_MIB`] of whole lines, which `dd` reads again and again.
    fn make() -> Result<Self, String> {
        let dir = Path::new("/dev/shm");
        let dir = if dir.is_dir() { dir.to_owned() } else { std::env::temp_dir() };
        let path = dir.join(format!("rmpi-bench-output.{}", std::process::id()));
        let text = LINE.repeat(LINES);
        let made = std::fs::File::create(&path).and_then(|mut f| f.write_all(text.as_bytes()));
        made.map(|()| Self(path.clone())).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Rates of one column: MB or lines a second.
struct Column<'a> {
    name: &'a str,
    rates: Vec<f64>,
}

fn measure<'a>(
    np: u32,
    tagged: bool,
    mib: u32,
    plan: &'a Plan,
    file: &Path,
) -> Result<Vec<Column<'a>>, String> {
    let each = (mib / np / FILE_MIB).max(1);
    // A shell's loop, since no tool reads one file many times in blocks of 64 KiB.
    let source = format!("for i in $(seq {each}); do dd if={} bs=64k status=none; done", file.display());
    let script = file.with_extension("sh");
    std::fs::write(&script, format!("{source}\n")).map_err(|e| format!("{}: {e}", script.display()))?;
    let program = format!("sh {}", script.display());
    let pipeline = vec!["sh".to_owned(), "-c".to_owned(), format!("{program} | cat | cat >/dev/null")];
    let mut commands = Vec::new();
    if !tagged && np == 1 {
        commands.push(("pipeline", pipeline));
    }
    for (name, words) in &plan.launchers {
        commands.push((name.as_str(), fill(words, np, tagged, &program)));
    }
    let bytes = f64::from(each * np) * (LINES * LINE.len()) as f64;
    let units = if tagged { bytes / LINE.len() as f64 } else { bytes / 1e6 };
    let mut columns: Vec<Column<'a>> =
        commands.iter().map(|(name, _)| Column { name, rates: Vec::new() }).collect();
    for _ in 0..plan.rounds {
        for ((name, words), column) in commands.iter().zip(&mut columns) {
            let start = Instant::now();
            let status = quiet(&words[0]).args(&words[1..]).status().map_err(|e| format!("{name}: {e}"))?;
            if !status.success() {
                return Err(format!("{name}: {status}: {}", words.join(" ")));
            }
            column.rates.push(units / start.elapsed().as_secs_f64());
        }
    }
    let _ = std::fs::remove_file(script);
    Ok(columns)
}

/// A command line with its places filled in.
fn fill(words: &str, np: u32, tagged: bool, program: &str) -> Vec<String> {
    let mut text = words.replace("{np}", &np.to_string()).replace("{program}", program);
    while let Some((before, rest)) = text.split_once("{tag:") {
        let (option, after) = rest.split_once('}').unwrap_or((rest, ""));
        text = format!("{before}{}{after}", if tagged { option } else { "" });
    }
    text.split_whitespace().map(str::to_owned).collect()
}

fn line(np: u32, tagged: bool, columns: &[Column<'_>]) -> String {
    let mut text = format!("np={np} {}", if tagged { "tagged lines/s" } else { "MB/s" });
    for column in columns {
        let best = column.rates.iter().copied().fold(0.0, f64::max);
        text.push_str(&format!("  {} {:.0} ({best:.0})", column.name, median(&column.rates)));
    }
    let Some(ours) = columns.iter().find(|c| c.name == "ours") else { return text };
    let ratio = |others: &[&Column<'_>]| {
        let best = |round: usize| others.iter().map(|c| c.rates[round]).fold(0.0, f64::max);
        let ratios: Vec<f64> = ours.rates.iter().enumerate().map(|(i, rate)| rate / best(i)).collect();
        median(&ratios)
    };
    if let Some(pipeline) = columns.iter().find(|c| c.name == "pipeline") {
        text.push_str(&format!("  of the pipeline {:.2}", ratio(&[pipeline])));
    }
    let peers: Vec<&Column<'_>> =
        columns.iter().filter(|c| c.name != "ours" && c.name != "pipeline").collect();
    if !peers.is_empty() {
        text.push_str(&format!("  ratio={:.2}", ratio(&peers)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in() {
        let words = "m -np {np} {tag:-l -x} {program}";
        assert_eq!(fill(words, 3, true, "sh f"), ["m", "-np", "3", "-l", "-x", "sh", "f"]);
        assert_eq!(fill(words, 3, false, "sh f"), ["m", "-np", "3", "sh", "f"]);
    }

    #[test]
    fn ratios_are_of_one_round() {
        let column = |name, rates: &[f64]| Column { name, rates: rates.to_vec() };
        let columns =
            [column("pipeline", &[10.0; 3]), column("ours", &[9.0, 8.0, 1.0]), column("a", &[3.0, 4.0, 4.0])];
        let text = line(1, false, &columns);
        assert!(text.ends_with("of the pipeline 0.80  ratio=2.00"), "{text}");
    }
}
