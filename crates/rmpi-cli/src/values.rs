//! Values of options: counts, times, truths, words, ranks, abbreviations. Errors are the second half of a
//! message; the caller puts the option before it.

use rmpi_types::{Rank, RankSet};
use std::time::Duration;

/// Ranks that a list of them may name; also the largest `-np`.
pub(crate) const MAX_RANKS: u32 = 10_000_000;
const EMPTY: &str = "the value is empty (nearly always an empty shell variable)";

/// A number of at least 1.
pub(crate) fn count(text: &str) -> Result<u32, String> {
    let text = text.trim();
    match text.parse::<u32>() {
        Ok(0) => Err("0 is not possible (nearly always an empty or unset shell variable)".into()),
        Ok(n) if n <= MAX_RANKS => Ok(n),
        _ if text.is_empty() => Err(EMPTY.into()),
        _ if text.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("{text} is out of range (1 to {MAX_RANKS})"))
        }
        _ => Err(format!("'{text}' is not a number")),
    }
}

/// A time: seconds with decimals, with `ms`, `s`, `m`, `h` after it, or `[[d:]h:]m:s`. Not negative.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let bad = || format!("'{text}' is not a time (seconds, 500ms, 5m, 1:30:00)");
    if text.is_empty() {
        return Err(EMPTY.into());
    }
    if text.contains(':') {
        let mut seconds = 0u64;
        let parts: Vec<&str> = text.split(':').collect();
        let units = [86_400u64, 3600, 60, 1];
        let units = units.get(4usize.wrapping_sub(parts.len())..).ok_or_else(bad)?;
        for (part, unit) in parts.iter().zip(units) {
            let n: u64 = part.parse::<u32>().map_err(|_| bad())?.into();
            seconds += n * unit;
        }
        return Ok(Duration::from_secs(seconds));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let n: f64 = digits.parse().map_err(|_| bad())?;
    if !(0.0..=3.2e9).contains(&(n * unit)) {
        return Err(format!("{text} is out of range"));
    }
    Duration::try_from_secs_f64(n * unit).map_err(|_| bad())
}

/// As [`time`], but not zero.
pub(crate) fn limit(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("0 is not possible: the time must be above 0".into()),
        t => Ok(t),
    }
}

/// The truth values of MCA parameters and environment variables.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "t" | "true" | "y" | "yes" | "on" | "enabled" => Ok(true),
        "0" | "f" | "false" | "n" | "no" | "off" | "disabled" => Ok(false),
        _ => Err(format!("'{text}' is not true or false")),
    }
}

/// `LO:HI`, `LO-HI` or one port.
pub(crate) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("'{text}' is not a range of ports (LO:HI)");
    let (lo, hi) = text.split_once([':', '-']).unwrap_or((text, text));
    let port = |t: &str| t.trim().parse::<u16>().map_err(|_| bad());
    match (port(lo)?, port(hi)?) {
        (0, _) => Err(bad()),
        (lo, hi) if lo <= hi => Ok((lo, hi)),
        _ => Err(format!("'{text}': the first port is above the last")),
    }
}

/// A port number.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(p) if p > 0 => Ok(p),
        _ => Err(format!("'{text}' is not a port (1 to 65535)")),
    }
}

/// `0,3-5` as ranks.
pub(crate) fn ranks(text: &str) -> Result<RankSet, String> {
    let bad = |part: &str| format!("'{part}' is not a rank or a range of ranks (0,3-5)");
    let mut set = RankSet::default();
    for part in text.split(',') {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        let parse = |t: &str| t.trim().parse::<u32>().ok().filter(|&r| r < MAX_RANKS);
        let (Some(lo), Some(hi)) = (parse(lo), parse(hi)) else { return Err(bad(part)) };
        if lo > hi {
            return Err(bad(part));
        }
        (lo..=hi).for_each(|r| set.insert(Rank(r)));
    }
    Ok(set)
}

/// The entry that `word` is (case aside) or is the only abbreviation of; its index.
pub(crate) fn abbreviated(what: &str, word: &str, known: &[&str]) -> Result<usize, String> {
    let lower = word.to_ascii_lowercase();
    if let Some(exact) = known.iter().position(|k| *k == lower) {
        return Ok(exact);
    }
    let hits: Vec<usize> =
        (0..known.len()).filter(|&i| !lower.is_empty() && known[i].starts_with(&lower)).collect();
    match hits[..] {
        [only] => Ok(only),
        [] => Err(format!("{what} '{word}' is not known (there are: {})", known.join(" "))),
        _ => {
            let names: Vec<&str> = hits.iter().map(|&i| known[i]).collect();
            Err(format!("{what} '{word}' may mean {}", names.join(" or ")))
        }
    }
}

/// Splits text into words as a shell does: blanks, `'…'`, `"…"` and `\`; nothing is expanded. Bytes stay as they
/// are. Each word comes with whether any part of it was quoted.
pub(crate) fn words(text: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, String> {
    let mut out = Vec::new();
    let mut word: Option<(Vec<u8>, bool)> = None;
    let mut quote: Option<u8> = None;
    let mut bytes = text.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match (quote, b) {
            (Some(q), b) if b == q => quote = None,
            (Some(b'"'), b'\\') if matches!(bytes.peek(), Some(b'"' | b'\\' | b'$' | b'`')) => {
                word.get_or_insert_default().0.extend(bytes.next());
            }
            (None, b'\\') => {
                let word = word.get_or_insert_default();
                word.0.extend(bytes.next());
                word.1 = true;
            }
            (None, b'\'' | b'"') => {
                quote = Some(b);
                word.get_or_insert_default().1 = true;
            }
            (None, b) if b.is_ascii_whitespace() => out.extend(word.take()),
            (_, b) => word.get_or_insert_default().0.push(b),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, ms) in [("5", 5000), ("0.5", 500), ("500ms", 500), ("2m", 120_000), ("1:30", 90_000)] {
            assert_eq!(time(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        assert_eq!(time("1:00:00:01").unwrap(), Duration::from_secs(86_401));
        for bad in ["", "x", "-1", "1:2:3:4:5", "nan", "inf", "1e300", "5 parsecs", ":"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(limit("0").is_err() && time("0").is_ok());
    }

    #[test]
    fn counts_say_what_is_wrong() {
        assert_eq!(count("8"), Ok(8));
        for (bad, part) in [("0", "shell"), ("", "shell"), ("x", "not a number"), ("-3", "out of range")] {
            assert!(count(bad).unwrap_err().contains(part), "{bad}");
        }
    }

    #[test]
    fn words_as_a_shell_splits_them() {
        let split = |t: &str| {
            let all = words(t.as_bytes())?;
            Ok::<_, String>(all.into_iter().map(|(w, _)| String::from_utf8(w).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(split(r#"a 'b c'  "d \"e" f\ g '' "#).unwrap(), ["a", "b c", "d \"e", "f g", ""]);
        assert!(split("a 'b").is_err());
    }

    #[test]
    fn ranges_and_sets() {
        assert_eq!(port_range("5000:5010"), Ok((5000, 5010)));
        assert!(port_range("9:8").is_err() && port_range("0:8").is_err() && port_range("a").is_err());
        assert_eq!(ranks("0,3-5").unwrap().to_string(), "0,3-5");
        assert!(ranks("5-3").is_err() && ranks("").is_err() && ranks("0-4294967295").is_err());
        assert_eq!(abbreviated("policy", "nu", &["node", "numa"]), Ok(1));
        assert!(abbreviated("policy", "n", &["node", "numa"]).unwrap_err().contains("node or numa"));
    }
}
