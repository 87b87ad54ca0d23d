//! The option table: every option any launcher's scripts may pass, one row each, chapter by chapter. Adding an
//! option is adding a row; the pre-pass, help, `docs/options.md` and environment variables follow.

mod compat;
mod environment;
mod horovod;
mod hosts;
mod info;
mod limits;
mod network;
mod output;
mod placement;
mod ssh;
mod torch;

use crate::personality::Personality;
use crate::row::{Row, Topic};
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
        horovod::ROWS,
        torch::ROWS,
        compat::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The row of a name without dashes, words joined by `-`. Rows of the personality go before rows for all; the
/// launchers with a grammar of long options have no letters but their own.
#[must_use]
pub fn find(name: &str, personality: Personality) -> Option<&'static Row> {
    let letter = name.chars().count() == 1 && personality.abbreviates();
    let named = rows().filter(|r| r.names().any(|n| n == name));
    let of_it = named.filter(|r| r.only.is_none_or(|p| p == personality));
    let found = of_it.max_by_key(|r| r.only.is_some())?;
    (!letter || found.only.is_some() || name == "h").then_some(found)
}

/// The only option of horovodrun's or torchrun's own parser that a name is the beginning of.
///
/// # Errors
/// Several: their names.
pub(crate) fn abbreviated(
    name: &str,
    personality: Personality,
) -> Result<Option<&'static Row>, Vec<&'static str>> {
    let (chapter, shared) = match personality {
        Personality::Horovodrun => (Topic::Horovod, horovod::SHARED),
        Personality::Torchrun => (Topic::Torch, torch::SHARED),
        Personality::Default | Personality::Hydra => return Ok(None),
    };
    let own = rows().filter(|r| r.topic == chapter && r.only.is_none_or(|p| p == personality));
    let names = own.flat_map(Row::names).chain(shared.iter().copied());
    let mut hits: Vec<&'static str> = names.filter(|n| n.len() > 1 && n.starts_with(name)).collect();
    hits.sort_unstable();
    hits.dedup();
    let mut rows: Vec<&'static Row> = hits.iter().filter_map(|n| find(n, personality)).collect();
    rows.dedup_by_key(|r| r.name);
    match rows[..] {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => Err(hits),
    }
}
