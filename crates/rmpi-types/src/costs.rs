//! What messages and reductions cost on the machines of a job, from which collectives are chosen.

use std::fmt;

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
/// A part of a [tuning table](crate::Tuning), written as `inside=500,0.1 between=10000,0.33 reduce=0.1`, in nanoseconds
/// and nanoseconds a byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Between ranks of one node.
    pub inside: Link,
    /// Between nodes.
    pub between: Link,
    /// Reducing a byte, ns.
    pub gamma: f64,
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

/// Longer than the slowest link's millisecond, shorter than what makes sums of costs lose their digits.
const LONGEST_NS: f64 = 1e12;

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|n| *n > 0.0 && *n <= LONGEST_NS)
}

fn link(text: &str) -> Option<Link> {
    let (alpha, beta) = text.split_once(',')?;
    Some(Link { alpha: number(alpha)?, beta: number(beta)? })
}

impl Costs {
    /// Takes a part of a table; `None` when it is none of costs.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "inside" => self.inside = link(value)?,
            "between" => self.between = link(value)?,
            "reduce" => self.gamma = number(value)?,
            _ => return None,
        }
        Some(())
    }
}
