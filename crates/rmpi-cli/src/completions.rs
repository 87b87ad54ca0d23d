//! Shell completions for bash, zsh and fish, from the option table.

use crate::row::{Arity, Behaviour, Row, dashed};
use crate::table;
use std::fmt::Write as _;

/// Shells there are completions for.
pub(crate) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];
/// Commands that are completed.
const COMMANDS: &str = "rmpirun mpirun mpiexec";
/// Arguments that are files or directories.
const PATHS: [&str; 8] = ["FILE", "FILES", "DIR", "DIRS", "PROGRAM", "DIR[:nocopy]", "PATH", "WHERE"];

fn rows() -> impl Iterator<Item = &'static Row> {
    table::rows().filter(|r| r.only.is_none() && r.behaviour == Behaviour::Active)
}

/// The script for a shell.
pub(crate) fn script(shell: &str) -> String {
    match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        _ => fish(),
    }
}

fn names(rows: impl Iterator<Item = &'static Row>) -> String {
    rows.flat_map(Row::names).map(dashed).collect::<Vec<_>>().join(" ")
}

fn takes(row: &Row, arity: &[Arity]) -> bool {
    arity.contains(&row.arity)
}

fn bash() -> String {
    let all = names(rows());
    let one = || rows().filter(|r| takes(r, &[Arity::One]));
    let files = names(one().filter(|r| PATHS.contains(&r.value)));
    let values = names(one().filter(|r| !PATHS.contains(&r.value)));
    let pairs = names(rows().filter(|r| takes(r, &[Arity::Pair, Arity::PairOrMode])));
    format!(
        "# bash completion for rmpirun: source it, or put it into bash_completion.d\n\
         _rmpirun() {{\n\
         \x20   local cur=${{COMP_WORDS[COMP_CWORD]}} i=1 word\n\
         \x20   local files=\" {files} \" values=\" {values} \" pairs=\" {pairs} \"\n\
         \x20   COMPREPLY=()\n\
         \x20   while [ $i -lt $COMP_CWORD ]; do\n\
         \x20       word=${{COMP_WORDS[i]}}\n\
         \x20       case $word in\n\
         \x20           -*) ;;\n\
         \x20           *) _rmpirun_program $i; return;;\n\
         \x20       esac\n\
         \x20       if [[ $files == *\" $word \"* ]]; then\n\
         \x20           i=$((i + 1)); [ $i -eq $COMP_CWORD ] && {{ COMPREPLY=($(compgen -f -- \"$cur\")); return; }}\n\
         \x20       elif [[ $values == *\" $word \"* ]]; then\n\
         \x20           i=$((i + 1)); [ $i -eq $COMP_CWORD ] && return\n\
         \x20       elif [[ $pairs == *\" $word \"* ]]; then\n\
         \x20           i=$((i + 2)); [ $i -ge $COMP_CWORD ] && [ $((i - 2)) -lt $COMP_CWORD ] && return\n\
         \x20       fi\n\
         \x20       i=$((i + 1))\n\
         \x20   done\n\
         \x20   case $cur in\n\
         \x20       -*) COMPREPLY=($(compgen -W \"{all}\" -- \"$cur\"));;\n\
         \x20       *) COMPREPLY=($(compgen -c -f -- \"$cur\"));;\n\
         \x20   esac\n\
         }}\n\
         _rmpirun_program() {{\n\
         \x20   if declare -F _command_offset >/dev/null; then _command_offset $1\n\
         \x20   else COMPREPLY=($(compgen -f -- \"$cur\")); fi\n\
         }}\n\
         complete -o filenames -F _rmpirun {COMMANDS}\n"
    )
}

/// The first sentence of a row's help.
fn short(row: &Row) -> &'static str {
    row.help.split_once(". ").map_or(row.help, |(first, _)| first).trim_end_matches('.')
}

fn zsh() -> String {
    let mut out = format!(
        "#compdef {COMMANDS}\n# zsh completion for rmpirun: put it into a folder of $fpath as _rmpirun\n_arguments -S \\\n"
    );
    let quote =
        |text: &str| text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    for row in rows() {
        for name in row.names() {
            let value = match row.arity {
                Arity::Flag => String::new(),
                Arity::Optional => format!("::{}:", quote(row.value)),
                Arity::One if PATHS.contains(&row.value) => format!(":{}:_files", quote(row.value)),
                Arity::One => format!(":{}:", quote(row.value)),
                Arity::Pair | Arity::PairOrMode => ":name: :value:".to_owned(),
            };
            let _ = writeln!(out, "  '*{}[{}]{value}' \\", dashed(name), quote(short(row)));
        }
    }
    out.push_str("  '(-)1:program:_command_names -e' '*::arguments:_normal'\n");
    out
}

fn fish() -> String {
    let mut out = String::from("# fish completion for rmpirun: put it into ~/.config/fish/completions\n");
    for command in COMMANDS.split(' ') {
        for row in rows() {
            let quoted = short(row).replace('\\', "\\\\").replace('\'', "\\'");
            for name in row.names() {
                let kind = if name.chars().count() == 1 { "-s" } else { "-l" };
                let value = match row.arity {
                    Arity::Flag | Arity::Optional => "",
                    Arity::One if PATHS.contains(&row.value) => " -rF",
                    Arity::One | Arity::Pair | Arity::PairOrMode => " -x",
                };
                let _ = writeln!(out, "complete -c {command} {kind} {name}{value} -d '{quoted}'");
            }
        }
    }
    out
}
