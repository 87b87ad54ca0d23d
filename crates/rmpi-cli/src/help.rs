//! Help, version and `docs/options.md`, all from the table.

use crate::command::Sources;
use crate::personality::Personality;
use crate::prepass::Segment;
use crate::row::{Arity, Behaviour, Row, Topic, dashed};
use crate::{completions, man, table, vars};
use std::ffi::OsStr;
use std::fmt::Write as _;

const WIDTH: usize = 80;
/// Shown by plain `--help`; the rest is in the topics.
const COMMON: &[&str] = &[
    "np",
    "host",
    "hostfile",
    "N",
    "map-by",
    "bind-to",
    "oversubscribe",
    "x",
    "wdir",
    "stdin",
    "tag-output",
    "output-filename",
    "launch-exec",
    "ssh-port",
    "host-keys",
    "timeout",
    "on-failure",
    "dry-run",
    "verbose",
    "version",
];

/// The text for `--help` or `--version`, whichever is first, if one is given.
pub(crate) fn asked(segments: &[Segment], personality: Personality, sources: &Sources<'_>) -> Option<String> {
    let mut options = segments.iter().flat_map(|s| &s.options);
    let shell = |v: &OsStr| completions::SHELLS.iter().any(|s| v == *s);
    let asked = options.find(|o| match o.row.name {
        "help" | "version" | "check-build" | "man" => true,
        "completions" => o.values.iter().all(|v| shell(v)),
        _ => false,
    })?;
    let word = asked.values.first().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
    Some(match asked.row.name {
        "version" => version(sources),
        "check-build" => built(),
        "man" => man::page(),
        "completions" => completions::script(&word),
        // Those two have one page, not topics.
        _ if personality.abbreviates() && word.is_empty() => help("all", personality),
        _ => help(&word, personality),
    })
}

/// What horovodrun's `--check-build` asks: the parts that do its work here.
fn built() -> String {
    format!(
        "rmpirun {}:\n\nControllers:\n    [X] rmpirun\n\nWays onto hosts:\n    [X] ssh (built in)\n    [X] agent commands\n    \
         [X] srun, blaunch, qrsh\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Build systems look for a name in the first line; `RMPIRUN_VERSION_AS` gives them exactly the one they know.
fn version(sources: &Sources<'_>) -> String {
    let own = env!("CARGO_PKG_VERSION");
    let wanted = sources.env.get(OsStr::new("RMPIRUN_VERSION_AS")).and_then(|v| v.to_str());
    let foreign = match wanted {
        Some("openmpi") => "mpirun (Open MPI) 4.1.4\n",
        Some("mpich") => "HYDRA build details:\n    Version:                                 4.0.2\n",
        _ => "",
    };
    format!("{foreign}rmpirun {own} (compatible with Open MPI mpirun 4.1 and MPICH mpiexec)\n")
}

/// Help about a topic, an option, everything, or (any other word) in general.
fn help(topic: &str, personality: Personality) -> String {
    let visible = |r: &&Row| r.behaviour == Behaviour::Active && r.only.is_none_or(|p| p == personality);
    let mut out = String::new();
    if let Some(t) = Topic::ALL.into_iter().find(|t| t.word() == topic) {
        chapter(&mut out, t, personality);
    } else if topic == "all" {
        Topic::ALL.into_iter().for_each(|t| chapter(&mut out, t, personality));
    } else if let Some(row) = table::find(&topic.trim_start_matches('-').replace('_', "-"), personality) {
        entry(&mut out, row);
    } else {
        out.push_str("Usage: rmpirun [options] program [arguments] [: [options] program [arguments]]...\n\n");
        let common = COMMON.iter().filter_map(|n| table::find(n, personality)).filter(visible);
        common.for_each(|r| entry(&mut out, r));
        out.push_str("\nMore: rmpirun --help all, --help OPTION, or --help with one of\n");
        for t in Topic::ALL {
            let _ = writeln!(out, "  {:12} {}", t.word(), t.title());
        }
        out.push_str("One dash or two, '_' or '-', '--opt value' or '--opt=value' make no difference.\n");
    }
    out
}

fn chapter(out: &mut String, topic: Topic, personality: Personality) {
    let _ = writeln!(out, "{}:", topic.title());
    let rows = table::rows().filter(|r| r.topic == topic && r.only.is_none_or(|p| p == personality));
    let shadowed = |r: &&Row| table::find(r.name, personality).is_some_and(|found| found.only == r.only);
    rows.filter(shadowed).for_each(|r| entry(out, r));
    out.push('\n');
}

fn entry(out: &mut String, row: &Row) {
    let names: Vec<String> = row.names().map(dashed).collect();
    let value = match row.arity {
        Arity::Flag => String::new(),
        Arity::Optional => format!(" [{}]", row.value),
        Arity::One | Arity::Pair | Arity::PairOrMode => format!(" {}", row.value),
    };
    let _ = writeln!(out, "  {}{value}", names.join(", "));
    for line in wrapped(&explanation(row), WIDTH - 8) {
        let _ = writeln!(out, "        {line}");
    }
}

/// What a row does, in words.
pub(crate) fn explanation(row: &Row) -> String {
    match row.behaviour {
        Behaviour::Active => row.help.to_owned(),
        Behaviour::Ignored => "Accepted and ignored.".to_owned(),
        Behaviour::Noted(note) => format!("Accepted with a note: {note}."),
        Behaviour::Refused(text) => format!("Refused: {text}."),
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The page of all options, `docs/options.md`.
#[must_use]
pub fn options_markdown() -> String {
    let mut out = String::from(
        "# Options of rmpirun\n\n\
         <!-- Made from the option table by a test of rmpi-cli; RMPI_BLESS=1 writes it anew. -->\n\n\
         `rmpirun [options] program [arguments] [: [options] program [arguments]]...`\n\n\
         Options end at the first word that is none: the program. One dash or two, `_` or `-`, `--opt value` or\n\
         `--opt=value` make no difference; of a repeated option the last one wins, lists add up. *program* in the\n\
         third column: the option belongs to the program it precedes, else to the whole job. The last column is the\n\
         variable that stands for the option; the command line wins over it, and it over the variables of other\n\
         launchers (`OMPI_MCA_*`, `PRTE_MCA_*`, `HYDRA_*`, `MPIEXEC_TIMEOUT`, ...).\n",
    );
    let cell = |text: &str| text.replace('|', "\\|");
    for topic in Topic::ALL {
        let _ = write!(out, "\n## {}\n\n", topic.title());
        out.push_str("| option | value | for | meaning | variable |\n|---|---|---|---|---|\n");
        for row in table::rows().filter(|r| r.topic == topic) {
            let names: Vec<String> = row.names().map(|n| format!("`{}`", dashed(n))).collect();
            let scope = if row.scope == crate::row::Scope::App { "program" } else { "job" };
            let only = row.only.map_or(String::new(), |p| format!("({p:?} personality) "));
            let variable =
                if vars::own(row) { format!("`{}`", vars::variable_of(row)) } else { String::new() };
            let value = if row.value.is_empty() { String::new() } else { format!("`{}`", cell(row.value)) };
            let help = cell(&explanation(row)).replace('*', "\\*");
            let _ = writeln!(out, "| {} | {value} | {scope} | {only}{help} | {variable} |", names.join(" "));
        }
    }
    out
}
