//! The manual page, `rmpirun(1)`, from the option table.

use crate::row::{Arity, Row, Topic, dashed};
use crate::{help, table};
use std::fmt::Write as _;

/// The page in the language of man(7).
pub(crate) fn page() -> String {
    let mut out = format!(
        ".TH RMPIRUN 1 \"\" \"rmpirun {}\" \"User Commands\"\n.SH NAME\nrmpirun \\- start a parallel job on many \
         hosts\n.SH SYNOPSIS\n.B rmpirun\n[\\fIoptions\\fR] \\fIprogram\\fR [\\fIarguments\\fR] [: \
         [\\fIoptions\\fR] \\fIprogram\\fR [\\fIarguments\\fR]]...\n.SH DESCRIPTION\nStarts ranks of the programs on \
         the hosts, carries their output, and ends with the exit code of the first rank that failed.\nOptions end at \
         the first word that is none: the program.\nOne dash or two, '_' or '\\-', '\\-\\-opt value' or \
         '\\-\\-opt=value' make no difference.\nCalled as mpirun, mpiexec, mpiexec.hydra, horovodrun or torchrun it \
         keeps the habits of the launcher of that name.\n",
        env!("CARGO_PKG_VERSION")
    );
    for topic in Topic::ALL {
        let _ = writeln!(out, ".SH {}", topic.title().to_uppercase());
        table::rows().filter(|r| r.topic == topic).for_each(|r| entry(&mut out, r));
    }
    out.push_str(
        ".SH EXIT STATUS\nThat of the rank that failed first, or of rmpirun itself: 2 wrong usage, 70 an error inside, \
         110 time limit, 125 to 127 program or directory not usable, 128+N signal N, 141 output closed, 254 host lost, \
         255 host not reached.\n",
    );
    out
}

fn entry(out: &mut String, row: &Row) {
    let names: Vec<String> = row.names().map(|n| format!("\\fB{}\\fR", escaped(&dashed(n)))).collect();
    let value = match row.arity {
        Arity::Flag => String::new(),
        Arity::Optional => format!(" [\\fI{}\\fR]", escaped(row.value)),
        Arity::One | Arity::Pair | Arity::PairOrMode => format!(" \\fI{}\\fR", escaped(row.value)),
    };
    let only = row.only.map_or(String::new(), |p| format!(" ({p:?} personality)"));
    let _ = writeln!(out, ".TP\n{}{value}{only}", names.join(", "));
    let text = escaped(&help::explanation(row));
    // A line that begins with a dot or a quote would be a request.
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    let _ = writeln!(out, "{guard}{text}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
