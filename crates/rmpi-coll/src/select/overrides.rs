//! Algorithms that the user names, `RMPI_COLL_ALLREDUCE=ring`, or levels, `RMPI_COLL_ALLREDUCE=flat`. The caller reads the environment.

use super::level::{Collective, Level};
use crate::algo::{Allgather, Allreduce, Bcast, Gather, Named, Reduce, ReduceScatter, Scan, Scatter};

/// Prefix of the variables.
const PREFIX: &str = "RMPI_COLL_";

/// The algorithm to use for each collective, where one is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `RMPI_COLL_BCAST`.
    pub bcast: Option<Bcast>,
    /// `RMPI_COLL_REDUCE`.
    pub reduce: Option<Reduce>,
    /// `RMPI_COLL_ALLREDUCE`.
    pub allreduce: Option<Allreduce>,
    /// `RMPI_COLL_GATHER`.
    pub gather: Option<Gather>,
    /// `RMPI_COLL_SCATTER`.
    pub scatter: Option<Scatter>,
    /// `RMPI_COLL_ALLGATHER`.
    pub allgather: Option<Allgather>,
    /// `RMPI_COLL_REDUCE_SCATTER`.
    pub reduce_scatter: Option<ReduceScatter>,
    /// `RMPI_COLL_SCAN`, exclusive scans included.
    pub scan: Option<Scan>,
    /// Levels named, by the collectives' order; a named algorithm means flat.
    levels: [Option<Level>; Collective::ALL.len()],
}

/// A variable that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// No such collective.
    #[error("{variable}: there is no such collective; known are {known}")]
    Collective {
        /// The variable.
        variable: String,
        /// The variables there are.
        known: String,
    },
    /// No such algorithm.
    #[error("{variable}={value}: there is no such algorithm; known are {known}")]
    Algorithm {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// The values there are.
        known: String,
    },
}

impl Overrides {
    /// The variables there are.
    pub const VARIABLES: [&'static str; 10] = [
        "RMPI_COLL_BARRIER",
        "RMPI_COLL_ALLTOALL",
        "RMPI_COLL_BCAST",
        "RMPI_COLL_REDUCE",
        "RMPI_COLL_ALLREDUCE",
        "RMPI_COLL_GATHER",
        "RMPI_COLL_SCATTER",
        "RMPI_COLL_ALLGATHER",
        "RMPI_COLL_REDUCE_SCATTER",
        "RMPI_COLL_SCAN",
    ];

    /// Follows one variable. A blank value or `auto` names nothing.
    ///
    /// # Errors
    /// When there is no such variable or algorithm; the message lists those there are.
    pub fn set(&mut self, variable: &str, value: &str) -> Result<(), OverrideError> {
        let name = variable.strip_prefix(PREFIX);
        let at = Collective::ALL.iter().position(|c| Some(c.variable()) == name);
        let level = Level::ALL.iter().find(|(n, _)| *n == value.trim()).map(|&(_, l)| l);
        if let (Some(at), Some(_)) = (at, level) {
            self.levels[at] = level;
            return self.set_algorithm(variable, "auto");
        }
        self.set_algorithm(variable, value)?;
        if let Some(at) = at {
            self.levels[at] = (!is_auto(value)).then_some(Level::Flat);
        }
        Ok(())
    }

    /// Where a collective is to run, if the user said so.
    #[must_use]
    pub fn level(&self, collective: Collective) -> Option<Level> {
        // Variants are numbered in the order of `ALL`.
        self.levels[collective as usize]
    }

    fn set_algorithm(&mut self, variable: &str, value: &str) -> Result<(), OverrideError> {
        match variable.strip_prefix(PREFIX) {
            Some("BARRIER" | "ALLTOALL") => {
                named::<OnlyLevels>(variable, value)?;
            }
            Some(Bcast::COLLECTIVE) => self.bcast = named(variable, value)?,
            Some(Reduce::COLLECTIVE) => self.reduce = named(variable, value)?,
            Some(Allreduce::COLLECTIVE) => self.allreduce = named(variable, value)?,
            Some(Gather::COLLECTIVE) => self.gather = named(variable, value)?,
            Some(Scatter::COLLECTIVE) => self.scatter = named(variable, value)?,
            Some(Allgather::COLLECTIVE) => self.allgather = named(variable, value)?,
            Some(ReduceScatter::COLLECTIVE) => self.reduce_scatter = named(variable, value)?,
            Some(Scan::COLLECTIVE) => self.scan = named(variable, value)?,
            _ => {
                let known = Self::VARIABLES.join(", ");
                return Err(OverrideError::Collective { variable: variable.to_owned(), known });
            }
        }
        Ok(())
    }
}

/// Collectives with one algorithm only.
#[derive(Clone, Copy)]
struct OnlyLevels;
impl Named for OnlyLevels {
    const COLLECTIVE: &'static str = "";
    const ALL: &'static [(&'static str, Self)] = &[];
    fn name(self) -> &'static str {
        ""
    }
}

fn is_auto(value: &str) -> bool {
    matches!(value.trim(), "" | "auto")
}

fn named<A: Named>(variable: &str, value: &str) -> Result<Option<A>, OverrideError> {
    let value = value.trim();
    if is_auto(value) {
        return Ok(None);
    }
    A::parse(value).map(Some).ok_or_else(|| {
        let levels = Level::ALL.iter().map(|&(name, _)| name);
        let known: Vec<&str> = levels.chain(A::ALL.iter().map(|&(name, _)| name)).collect();
        OverrideError::Algorithm {
            variable: variable.to_owned(),
            value: value.to_owned(),
            known: format!("auto, {}", known.join(", ")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_or_refused() {
        let mut o = Overrides::default();
        for variable in Overrides::VARIABLES {
            o.set(variable, "auto").unwrap();
            let error = o.set(variable, "quantum").unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{variable}=quantum: ")) && error.contains("auto, "),
                "{error}"
            );
        }
        assert_eq!(o, Overrides::default());
        o.set("RMPI_COLL_SCAN", " linear ").unwrap();
        assert_eq!(o.scan, Some(Scan::Linear));
        o.set("RMPI_COLL_SCAN", "").unwrap();
        assert_eq!(o.scan, None);
        assert!(o.set("RMPI_COLL_ALLTOALL", "ring").is_err());
        o.set("RMPI_COLL_SCAN", "linear").unwrap();
        assert_eq!(o.level(Collective::Scan), Some(Level::Flat));
        o.set("RMPI_COLL_SCAN", "node").unwrap();
        assert_eq!((o.scan, o.level(Collective::Scan)), (None, Some(Level::Node)));
        assert!(Collective::ALL.into_iter().enumerate().all(|(i, c)| c as usize == i));
    }
}
