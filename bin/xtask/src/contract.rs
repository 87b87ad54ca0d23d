//! `cargo xtask contract [WORD]`: the command-line contract, section by section, with the rows that do not hold.

use crate::build;
use crate::stage::say;
use rmpi_tests::contract;

/// Builds the programs unless `RMPI_BIN_DIR` names some, and checks the rows that `only` is part of.
///
/// # Errors
/// The build, or that rows do not hold.
pub(crate) fn run(only: &str) -> Result<(), String> {
    if std::env::var_os("RMPI_BIN_DIR").is_none() {
        build::release()?;
    }
    let verdicts = contract::check(only);
    say(&contract::report(&verdicts));
    let broken = verdicts.iter().filter(|v| !v.as_written()).count();
    if broken == 0 {
        Ok(())
    } else {
        Err(format!("xtask: {broken} rows of the contract are not as its files say"))
    }
}
