//! The costs of a tuning table, read off latencies and sums.

use super::figures::{Place, Point, Ranks};
use rmpi_types::Costs;
use rmpi_types::costs::Link;

/// Large messages: what a byte costs is read off between these sizes.
const LARGE: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;

/// What messages and sums cost.
///
/// # Errors
/// A run that fails, and figures that make no sense.
pub(super) fn measure(ranks: &Ranks) -> Result<Costs, String> {
    let latency = |place| ranks.run(place, "", &["latency"]);
    Ok(Costs {
        inside: link(&latency(Place::Inside)?)?,
        between: link(&latency(Place::Between)?)?,
        gamma: digits(slope(&ranks.run(Place::Inside, "", &["sum"])?)?),
    })
}

/// The smallest message's time, and what a byte adds among large ones.
fn link(points: &[Point]) -> Result<Link, String> {
    let smallest = points.iter().min_by_key(|p| p.bytes).ok_or("no figures")?;
    Ok(Link { alpha: smallest.ns.round().max(1.0), beta: digits(slope(points)?) })
}

/// As many as mean something.
fn digits(ns: f64) -> f64 {
    ((ns * 1e4).round() / 1e4).max(1e-4)
}

/// Nanoseconds a byte from the smallest to the largest of the large sizes.
#[expect(clippy::cast_precision_loss, reason = "sizes of messages")]
fn slope(points: &[Point]) -> Result<f64, String> {
    let mut large: Vec<_> = points.iter().filter(|p| LARGE.contains(&p.bytes)).collect();
    large.sort_by_key(|p| p.bytes);
    let (Some(first), Some(last)) = (large.first(), large.last()) else {
        return Err("no large messages".into());
    };
    let ns = (last.ns - first.ns) / (last.bytes - first.bytes) as f64;
    if ns > 0.0 { Ok(ns) } else { Err("larger messages took no longer: is the machine busy?".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_read_off_latencies() {
        let points =
            [(1, 250.0), (65_536, 10_000.0), (4_194_304, 422_886.4)].map(|(bytes, ns)| Point { bytes, ns });
        assert_eq!(link(&points), Ok(Link { alpha: 250.0, beta: 0.1 }));
        assert!(link(&points[..1]).is_err());
        assert!(link(&[points[2], Point { bytes: 65_536, ns: 1e9 }]).is_err());
    }
}
