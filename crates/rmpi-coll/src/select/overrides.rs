//! Algorithms that the user names, `RMPI_COLL_ALLREDUCE=ring`. The caller reads the environment.

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
    pub const VARIABLES: [&'static str; 8] = [
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
        match variable.strip_prefix(PREFIX) {
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

fn named<A: Named>(variable: &str, value: &str) -> Result<Option<A>, OverrideError> {
    let value = value.trim();
    if value.is_empty() || value == "auto" {
        return Ok(None);
    }
    A::parse(value).map(Some).ok_or_else(|| {
        let known: Vec<&str> = A::ALL.iter().map(|&(name, _)| name).collect();
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
    }
}
