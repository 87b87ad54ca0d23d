//! `cargo xtask bench launch`: the time from starting a launcher to its end, for ranks that do nothing, ours and
//! others' in interleaved rounds, and beside them what no launcher can save: the same programs started and waited
//! for by this process alone.
//!
//! The wait is one that blocks in the kernel: looking every so often, as many timers do, rounds times of a few
//! milliseconds up to its steps.

use crate::stage::say;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What `--help` says of the words.
pub(super) const WORDS: &str = "\
cargo xtask bench launch: milliseconds to start and end ranks that do nothing
  --np N[,N...]    ranks (1,8,64)
  --peer NAME=CMD  another launcher's command line, with {np} filled in (may be repeated)
  --ours CMD       ours, instead of the release build on this machine
  --program PATH   what the ranks run (/bin/true)
  --rounds N       interleaved rounds (25)
";

struct Plan {
    ranks: Vec<u32>,
    peers: Vec<(String, String)>,
    ours: Option<String>,
    program: String,
    rounds: usize,
}

/// Measures and prints a table.
///
/// # Errors
/// Words that are not known, a command that cannot be started or fails.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let plan = understand(words)?;
    let ours = match &plan.ours {
        Some(ours) => ours.clone(),
        None => {
            let rmpirun = installed(&crate::build::release()?)?;
            format!("{} --oversubscribe -np {{np}} {}", rmpirun.display(), plan.program)
        }
    };
    say(&format!(
        "milliseconds, median (least) of {} interleaved rounds; ratio: median of ours / fastest",
        plan.rounds
    ));
    for &np in &plan.ranks {
        let fill = |words: &str| -> Vec<String> {
            words.replace("{np}", &np.to_string()).split_whitespace().map(str::to_owned).collect()
        };
        let peers = plan.peers.iter().map(|(name, words)| (name.as_str(), fill(words)));
        let commands: Vec<(&str, Vec<String>)> =
            std::iter::once(("ours", fill(&ours))).chain(peers).collect();
        say(&line(np, &measure(np, &commands, &plan)?));
    }
    Ok(())
}

/// Our programs as they are installed, by copying: what the linker has written lies in the page cache page by page, and
/// each start pays for mapping it so (0.6 ms of 3.6 on the machine of `docs/performance.md`).
fn installed(built: &Path) -> Result<PathBuf, String> {
    let to = crate::stage::target().join("bench-installed");
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    std::fs::create_dir_all(&to).map_err(failed)?;
    for name in ["rmpirun", "rmpid"] {
        let _ = std::fs::remove_file(to.join(name));
        std::fs::copy(built.join(name), to.join(name)).map_err(failed)?;
    }
    Ok(to.join("rmpirun"))
}

fn understand(words: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan {
        ranks: vec![1, 8, 64],
        peers: Vec::new(),
        ours: None,
        program: "/bin/true".into(),
        rounds: 25,
    };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: &str| text.parse().map_err(|_| format!("{word}: {text:?} is no number"));
        match word {
            "--np" => plan.ranks = value()?.split(',').map(number).collect::<Result<_, _>>()?,
            "--peer" => {
                let (name, command) = value()?.split_once('=').ok_or("--peer needs NAME=COMMAND")?;
                plan.peers.push((name.to_owned(), command.to_owned()));
            }
            "--ours" => plan.ours = Some(value()?.to_owned()),
            "--program" => plan.program = value()?.to_owned(),
            "--rounds" => plan.rounds = number(value()?)?.max(1) as usize,
            _ => return Err(format!("{word:?} is not known\n{WORDS}")),
        }
    }
    Ok(plan)
}

/// Times of one column.
struct Column<'a> {
    name: &'a str,
    times: Vec<f64>,
}

/// Every round once through all columns: the programs alone, ours, the others. A first round is not counted.
fn measure<'a>(np: u32, commands: &[(&'a str, Vec<String>)], plan: &Plan) -> Result<Vec<Column<'a>>, String> {
    let names = std::iter::once("alone").chain(commands.iter().map(|(name, _)| *name));
    let mut columns: Vec<Column<'a>> = names.map(|name| Column { name, times: Vec::new() }).collect();
    for round in 0..=plan.rounds {
        let mut row = vec![alone(np, &plan.program)?];
        for (name, words) in commands {
            row.push(one(name, words)?);
        }
        if round > 0 {
            columns.iter_mut().zip(row).for_each(|(column, time)| column.times.push(time));
        }
    }
    Ok(columns)
}

/// All programs started, then all waited for.
fn alone(np: u32, program: &str) -> Result<f64, String> {
    let start = Instant::now();
    let children: Vec<Child> = (0..np)
        .map(|_| quiet(program).spawn())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{program}: {e}"))?;
    for mut child in children {
        child.wait().map_err(|e| format!("{program}: {e}"))?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn one(name: &str, words: &[String]) -> Result<f64, String> {
    let (program, args) = words.split_first().ok_or_else(|| format!("{name} has no command"))?;
    let start = Instant::now();
    let status = quiet(program).args(args).status().map_err(|e| format!("{name}: {program}: {e}"))?;
    let time = start.elapsed().as_secs_f64() * 1e3;
    if status.success() { Ok(time) } else { Err(format!("{name}: {status}: {}", words.join(" "))) }
}

pub(super) fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn line(np: u32, columns: &[Column<'_>]) -> String {
    let mut text = format!("np={np}");
    for column in columns {
        let least = column.times.iter().copied().fold(f64::INFINITY, f64::min);
        text.push_str(&format!("  {} {:.2} ({least:.2})", column.name, median(&column.times)));
    }
    if let [_, ours, peers @ ..] = columns
        && !peers.is_empty()
    {
        let fastest = |round: usize| peers.iter().map(|p| p.times[round]).fold(f64::INFINITY, f64::min);
        let ratios: Vec<f64> =
            ours.times.iter().enumerate().map(|(round, time)| time / fastest(round)).collect();
        text.push_str(&format!("  ratio={:.2}", median(&ratios)));
    }
    text
}

pub(super) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_named() {
        let plan = understand(&["--np", "1,4", "--peer", "m=mpiexec -n {np} true", "--rounds", "3"]).unwrap();
        assert_eq!((plan.ranks, plan.rounds), (vec![1, 4], 3));
        assert_eq!(plan.peers, [("m".to_owned(), "mpiexec -n {np} true".to_owned())]);
        for (words, want) in [
            (&["--np"][..], "needs a value"),
            (&["--np", "x"], "no number"),
            (&["--peer", "m"], "NAME="),
            (&["-x"], "not known"),
        ] {
            assert!(understand(words).err().unwrap().contains(want), "{words:?}");
        }
    }

    #[test]
    fn ratios_are_of_one_round() {
        let column = |name, times: &[f64]| Column { name, times: times.to_vec() };
        let columns =
            [column("alone", &[1.0; 3]), column("ours", &[2.0, 9.0, 3.0]), column("a", &[4.0, 9.0, 9.0])];
        let text = line(2, &columns);
        assert!(text.contains("ours 3.00 (2.00)") && text.ends_with("ratio=0.50"), "{text}");
    }
}
