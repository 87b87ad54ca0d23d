//! Folding host names for messages: `n2, n3, n4, n12` is printed `n[2-4,12]`. Only for people; what is
//! dialled is never folded.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A name cut at its number: prefix, digits, suffix.
fn cut(name: &str) -> Option<(&str, &str, &str)> {
    if name.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    // A cluster name's number is in its first label, an IPv4 address counts in the last.
    let end =
        if name.parse::<Ipv4Addr>().is_ok() { name.len() } else { name.find('.').unwrap_or(name.len()) };
    let last = name[..end].rfind(|c: char| c.is_ascii_digit())? + 1;
    let first = name[..last].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |i| i + 1);
    let first = (first..=last).find(|&i| name.is_char_boundary(i))?;
    let digits = &name[first..last];
    (digits.len() <= 9 && !digits.is_empty()).then(|| (&name[..first], digits, &name[last..]))
}

/// Names with ranges folded, groups in order of first appearance, numbers ascending, repeats once:
/// `n1,n2,n3,login` becomes `n[1-3],login`. Leading zeros are kept.
#[must_use]
pub fn fold_hosts(names: &[&str]) -> String {
    enum Group<'a> {
        Plain(&'a str),
        Numbered { prefix: &'a str, suffix: &'a str, width: usize, numbers: Vec<u32> },
    }
    let padded: std::collections::HashSet<(&str, &str, usize)> = names
        .iter()
        .filter_map(|n| cut(n))
        .filter(|(_, d, _)| d.len() > 1 && d.starts_with('0'))
        .map(|(p, d, s)| (p, s, d.len()))
        .collect();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut numbered: HashMap<(&str, &str, usize), usize> = HashMap::new();
    let mut plain: std::collections::HashSet<&str> = std::collections::HashSet::new();
    for &name in names {
        let Some((prefix, digits, suffix)) = cut(name) else {
            if plain.insert(name) {
                groups.push(Group::Plain(name));
            }
            continue;
        };
        let width = if padded.contains(&(prefix, suffix, digits.len())) { digits.len() } else { 0 };
        let number = digits.parse().unwrap_or(0);
        let at = *numbered.entry((prefix, suffix, width)).or_insert_with(|| {
            groups.push(Group::Numbered { prefix, suffix, width, numbers: Vec::new() });
            groups.len() - 1
        });
        if let Group::Numbered { numbers, .. } = &mut groups[at] {
            numbers.push(number);
        }
    }
    let print = |group: Group<'_>| match group {
        Group::Plain(name) => name.to_owned(),
        Group::Numbered { prefix, suffix, width, mut numbers } => {
            numbers.sort_unstable();
            numbers.dedup();
            let ranges = ranges(&numbers, width);
            if numbers.len() == 1 {
                format!("{prefix}{ranges}{suffix}")
            } else {
                format!("{prefix}[{ranges}]{suffix}")
            }
        }
    };
    groups.into_iter().map(print).collect::<Vec<_>>().join(",")
}

/// Ascending numbers as `1-3,7`.
fn ranges(numbers: &[u32], width: usize) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut i = 0;
    while i < numbers.len() {
        let mut j = i;
        while j + 1 < numbers.len() && numbers[j + 1] == numbers[j] + 1 {
            j += 1;
        }
        let (lo, hi) = (numbers[i], numbers[j]);
        parts.push(if lo == hi { format!("{lo:0width$}") } else { format!("{lo:0width$}-{hi:0width$}") });
        i = j + 1;
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds() {
        for (names, expected) in [
            (&["n2", "n3", "n4", "n12"][..], "n[2-4,12]"),
            (&["n1"], "n1"),
            (&["localhost"], "localhost"),
            (&["n3", "login", "n1", "n2", "n1"], "n[1-3],login"),
            (&["n08", "n09", "n10", "n1"], "n[08-10],n1"),
            (&["w-0.job.ns2.svc", "w-1.job.ns2.svc"], "w-[0-1].job.ns2.svc"),
            (&["10.0.0.77", "10.0.0.78", "10.0.1.1"], "10.0.0.[77-78],10.0.1.1"),
            (&["fe80::1", "fe80::2"], "fe80::1,fe80::2"),
            (&["é1", "é2"], "é[1-2]"),
            (&[], ""),
        ] {
            assert_eq!(fold_hosts(names), expected);
        }
    }
}
