//! `cargo xtask kubernetes`: every operator's pods in namespaces, and what comes of each case.

use crate::stage::say;
use rmpi_tests::pods::cases;

/// Runs the cases whose name has all of `words` in it, and prints operator, way, case and result.
///
/// # Errors
/// What cannot be had here, or how many cases failed.
pub(crate) fn run(words: &[&str]) -> Result<(), String> {
    say(&format!("{:<52}{:<8}{:<15}result", "pods", "way", "case"));
    let rows = cases::run(words, |row| {
        let result = match &row.result {
            Ok(took) => format!("ok {:.2} s", took.as_secs_f64()),
            Err(what) => format!("FAILED {}", what.replace('\n', "\n    ")),
        };
        say(&format!(
            "{:<52}{:<8}{:<15}{result}",
            row.set,
            format!("{:?}", row.way).to_lowercase(),
            row.case
        ));
    })?;
    let failed = rows.iter().filter(|r| r.result.is_err()).count();
    match (rows.len(), failed) {
        (0, _) => Err("no case has these words in its name".into()),
        (_, 0) => Ok(()),
        (all, failed) => Err(format!("{failed} of {all} cases failed")),
    }
}
