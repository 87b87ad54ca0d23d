//! Signals by name or number, as options list them (`--forward-signals`).

/// Linux, x86-64 and AArch64.
const NAMES: [(&str, i32); 27] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
];

/// `SIGUSR1,usr2,10`; `none` is none.
///
/// # Errors
/// What is no signal, or cannot be caught.
pub(crate) fn list(text: &str) -> Result<Vec<i32>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    text.split(',').map(|word| one(word.trim())).collect()
}

fn one(word: &str) -> Result<i32, String> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if ["KILL", "STOP", "9", "19"].contains(&name) {
        return Err(format!("{word} cannot be caught and so not passed on"));
    }
    let number = NAMES.iter().find(|(n, _)| *n == name).map(|&(_, number)| number);
    let number = number.or_else(|| word.parse().ok().filter(|n| (1..=64).contains(n)));
    number.ok_or_else(|| format!("'{word}' is not a signal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(list("SIGUSR1,usr2, 34"), Ok(vec![10, 12, 34]));
        assert_eq!(list("none"), Ok(vec![]));
        assert!(list("KILL").is_err() && list("").is_err() && list("SIGFOO").is_err() && list("99").is_err());
    }
}
