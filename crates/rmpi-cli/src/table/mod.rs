//! The option table: every option any launcher's scripts may pass, one row each, chapter by chapter. Adding an
//! option is adding a row; the pre-pass, help, `docs/options.md` and environment variables follow.

mod compat;
mod environment;
mod hosts;
mod info;
mod limits;
mod network;
mod output;
mod placement;
mod ssh;

use crate::personality::Personality;
use crate::row::Row;
pub(crate) use network::names as network_names;

/// All rows, in the order of the help.
pub fn rows() -> impl Iterator<Item = &'static Row> + Clone {
    [
        hosts::ROWS,
        placement::ROWS,
        environment::ROWS,
        output::ROWS,
        ssh::ROWS,
        network::ROWS,
        limits::ROWS,
        info::ROWS,
        compat::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The row of a name without dashes, words joined by `-`. Rows of the personality go before rows for all.
#[must_use]
pub fn find(name: &str, personality: Personality) -> Option<&'static Row> {
    let named = rows().filter(|r| r.names().any(|n| n == name));
    named.filter(|r| r.only.is_none_or(|p| p == personality)).max_by_key(|r| r.only.is_some())
}
