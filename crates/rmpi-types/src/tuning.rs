//! The tuning table of a job: what things cost and from which sizes on they are done another way, in one line.

use crate::costs::Costs;
use crate::thresholds::{Threshold, Thresholds};
use std::fmt;
use std::str::FromStr;

/// What a launcher is told of the machines of a job, the same for all ranks.
///
/// Written as `inside=500,0.1 between=10000,0.33 reduce=0.1 eager=65536`; parts that are not named are the
/// [default](Tuning::default).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// From which collectives' algorithms are chosen.
    pub costs: Costs,
    /// Sizes.
    pub thresholds: Thresholds,
}

impl Tuning {
    /// Where ranks find what the launcher was told.
    pub const VARIABLE: &str = "RMPI_COSTS";
}

impl fmt::Display for Tuning {
    /// All costs, and the thresholds that are not built in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.costs)?;
        let built_in = Thresholds::default();
        for t in Threshold::ALL.iter().filter(|t| t.of(self.thresholds) != t.of(built_in)) {
            write!(f, " {}={}", t.name, t.written(self.thresholds))?;
        }
        Ok(())
    }
}

/// Why a text is no tuning table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTuning {
    part: String,
}

impl fmt::Display for BadTuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.part.split('=').next().unwrap_or_default();
        if let Some(t) = Threshold::named(name) {
            let least = t.range.start();
            write!(f, "'{}' is not {name}=BYTES with {least} ", self.part)?;
            return match t.range.end() {
                &Threshold::NEVER => f.write_str("bytes and more, or never"),
                most => write!(f, "to {most} bytes"),
            };
        }
        let link = "NS,NS_A_BYTE";
        write!(
            f,
            "'{}' is not inside={link}, between={link} or reduce=NS_A_BYTE (numbers above 0)",
            self.part
        )?;
        let names: Vec<_> = Threshold::ALL.iter().map(|t| t.name).collect();
        write!(f, ", nor BYTES for one of {}", names.join(", "))
    }
}

impl std::error::Error for BadTuning {}

impl FromStr for Tuning {
    type Err = BadTuning;

    fn from_str(text: &str) -> Result<Self, BadTuning> {
        let mut tuning = Self::default();
        for part in text.split_ascii_whitespace() {
            let taken = part.split_once('=').and_then(|(name, value)| match Threshold::named(name) {
                Some(threshold) => threshold.set(&mut tuning.thresholds, value),
                None => tuning.costs.set(name, value),
            });
            taken.ok_or_else(|| BadTuning { part: part.to_owned() })?;
        }
        Ok(tuning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::Link;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_named_is_built_in() {
        assert_eq!("".parse(), Ok(Tuning::default()));
        let costs = Costs { between: Link { alpha: 1.5, beta: 2.0 }, ..Costs::default() };
        let thresholds = Thresholds { piece: 1 << 20, ..Thresholds::default() };
        assert_eq!(" between=1.5,2  piece=1M ".parse(), Ok(Tuning { costs, thresholds }));
        assert_eq!(
            Tuning { costs, thresholds }.to_string(),
            "inside=500,0.1 between=1.5,2 reduce=0.1 piece=1048576"
        );
    }

    #[test]
    fn what_is_no_cost_and_no_size_is_refused() {
        for text in [
            "inside",
            "inside=1",
            "inside=1,x",
            "inside=0,1",
            "reduce=-1",
            "reduce=nan",
            "reduce=inf",
            "x=1,2",
            "=1",
            "eager",
            "eager=",
            "eager=0",
            "eager=1G",
            "eager=12,5",
        ] {
            let error = text.parse::<Tuning>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{text}' is not ")), "{error}");
        }
        let error = "reduce=1 eager=5".parse::<Tuning>().unwrap_err().to_string();
        assert_eq!(error, "'eager=5' is not eager=BYTES with 1024 to 262144 bytes");
        let error = "stream=5".parse::<Tuning>().unwrap_err().to_string();
        assert_eq!(error, "'stream=5' is not stream=BYTES with 65536 bytes and more, or never");
        let error = "eagre=5".parse::<Tuning>().unwrap_err().to_string();
        assert!(
            error.ends_with(
                "nor BYTES for one of eager, piece, direct-from, quic-piece, local-eager, \
                                 node-piece, node-turn, stream, single-copy"
            ),
            "{error}"
        );
    }

    fn any_threshold() -> impl Strategy<Value = (usize, usize)> {
        (0..Threshold::ALL.len()).prop_flat_map(|i| (Just(i), Threshold::ALL[i].range.clone()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(any_threshold(), 0..12), gamma in 1e-9f64..1e9) {
            let mut tuning = Tuning { costs: Costs { gamma, ..Costs::default() }, ..Tuning::default() };
            for (i, value) in values {
                Threshold::ALL[i].set(&mut tuning.thresholds, &value.to_string()).unwrap();
            }
            prop_assert_eq!(tuning.to_string().parse(), Ok(tuning));
        }

        #[test]
        fn any_text_is_a_table_within_the_ranges_or_refused(text in "(([a-z-]{1,11}|eager|stream|reduce)=?[0-9KMGk,.-]{0,20} ?){0,4}") {
            if let Ok(tuning) = text.parse::<Tuning>() {
                for t in Threshold::ALL {
                    prop_assert!(t.range.contains(&t.of(tuning.thresholds)), "{}", t.name);
                }
            }
        }
    }
}
