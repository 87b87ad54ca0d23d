//! What messages and reductions cost on the machines of a job: the table from which collectives are chosen.

use std::fmt;
use std::str::FromStr;

/// A kind of connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Latency of a message, ns.
    pub alpha: f64,
    /// Time of a byte, ns.
    pub beta: f64,
}

/// What things cost on this kind of machine, in the terms of Thakur, Rabenseifner and Gropp (2005).
///
/// Written as `inside=500,0.1 between=10000,0.33 reduce=0.1`, in nanoseconds and nanoseconds a byte; parts that
/// are not named are the [default](Costs::default).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Between ranks of one node.
    pub inside: Link,
    /// Between nodes.
    pub between: Link,
    /// Reducing a byte, ns.
    pub gamma: f64,
}

impl Costs {
    /// Where ranks find what the launcher was told.
    pub const VARIABLE: &str = "RMPI_COSTS";
}

impl Default for Costs {
    /// Shared memory at 0.5 µs and 10 GB/s, TCP at 10 µs and 3 GB/s (measured on loopback between virtual
    /// machines' namespaces), reductions at 10 GB/s (one core, out of cache).
    fn default() -> Self {
        Self {
            inside: Link { alpha: 500.0, beta: 0.1 },
            between: Link { alpha: 10_000.0, beta: 0.33 },
            gamma: 0.1,
        }
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inside, between, gamma } = self;
        write!(f, "inside={},{} ", inside.alpha, inside.beta)?;
        write!(f, "between={},{} reduce={gamma}", between.alpha, between.beta)
    }
}

/// Why a text is no table of costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCosts {
    part: String,
}

impl fmt::Display for BadCosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not inside=NS,NS_A_BYTE, between=NS,NS_A_BYTE or reduce=NS_A_BYTE (numbers above 0)",
            self.part
        )
    }
}

impl std::error::Error for BadCosts {}

/// Longer than the slowest link's millisecond, shorter than what makes sums of costs lose their digits.
const LONGEST_NS: f64 = 1e12;

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n| *n > 0.0 && *n <= LONGEST_NS)
}

fn link(text: &str) -> Option<Link> {
    let (alpha, beta) = text.split_once(',')?;
    Some(Link { alpha: number(alpha)?, beta: number(beta)? })
}

impl FromStr for Costs {
    type Err = BadCosts;

    fn from_str(text: &str) -> Result<Self, BadCosts> {
        let mut costs = Self::default();
        for part in text.split_ascii_whitespace() {
            let taken = part.split_once('=').and_then(|(name, value)| {
                match name {
                    "inside" => costs.inside = link(value)?,
                    "between" => costs.between = link(value)?,
                    "reduce" => costs.gamma = number(value)?,
                    _ => return None,
                }
                Some(())
            });
            taken.ok_or_else(|| BadCosts { part: part.to_owned() })?;
        }
        Ok(costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let costs = Costs { inside: Link { alpha: 312.5, beta: 0.0625 }, ..Costs::default() };
        assert_eq!(costs.to_string().parse(), Ok(costs));
        assert_eq!("".parse(), Ok(Costs::default()));
        let between = Link { alpha: 1.5, beta: 2.0 };
        assert_eq!(" between=1.5,2 ".parse(), Ok(Costs { between, ..Costs::default() }));
    }

    #[test]
    fn what_is_no_cost_is_refused() {
        for text in [
            "inside",
            "inside=1",
            "inside=1,x",
            "inside=0,1",
            "reduce=-1",
            "reduce=nan",
            "reduce=inf",
            "x=1,2",
        ] {
            let error = text.parse::<Costs>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{text}' is not ")), "{error}");
        }
    }
}
