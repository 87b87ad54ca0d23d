//! One host word: `^user@name:count`, IPv6 with and without brackets, ranges, relative names. Names are
//! checked here once, so that no later stage can take one for an option or a shell word.

use super::list::{Count, Who};
use super::{MAX_HOSTS, MAX_NAME, MAX_SLOTS};
use crate::error::HostsProblem;
use std::net::Ipv6Addr;

/// A host word understood. A range gives several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostWord {
    pub(crate) exclude: bool,
    pub(crate) user: Option<String>,
    pub(crate) who: Vec<Who>,
    pub(crate) count: Count,
}

/// Reads a host word. The caller adds the place to problems.
pub(crate) fn parse_word(word: &str) -> Result<HostWord, HostsProblem> {
    let (exclude, rest) = word.strip_prefix('^').map_or((false, word), |r| (true, r));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(check_user(user)?), rest),
        None => (None, rest),
    };
    if let Some(relative) = rest.strip_prefix('+') {
        let (who, count) = parse_relative(rest, relative)?;
        return Ok(HostWord { exclude, user, who: vec![who], count });
    }
    let (name, count) = split_count(rest)?;
    Ok(HostWord { exclude, user, who: expand(name)?.into_iter().map(Who::Name).collect(), count })
}

/// A count attribute: digits up to [`MAX_SLOTS`].
pub(crate) fn parse_count(key: &str, value: &str) -> Result<u32, HostsProblem> {
    let (key, value) = (key.to_owned(), value.to_owned());
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostsProblem::NotANumber { key, value });
    }
    match value.parse() {
        Ok(n) if n <= MAX_SLOTS => Ok(n),
        _ => Err(HostsProblem::TooLarge { key, value, limit: MAX_SLOTS }),
    }
}

/// A name alone, without user, range or count; brackets around an IPv6 address are removed.
pub(crate) fn parse_name(name: &str) -> Result<String, HostsProblem> {
    let bad = |why: &str| HostsProblem::BadName { name: clip(name), why: why.to_owned() };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    if is_ipv6(bare) {
        return Ok(bare.to_owned());
    }
    if name.is_empty() {
        return Err(bad("it is empty"));
    }
    if name.chars().count() > MAX_NAME {
        return Err(bad("it is too long"));
    }
    if let Some(c) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
        return Err(bad(&format!("'{}' cannot be part of it", c.escape_default())));
    }
    if name.starts_with(['-', '.']) {
        return Err(bad("it must begin with a letter or digit"));
    }
    Ok(name.to_owned())
}

/// Whether the text is an IPv6 address, a zone (`%eth0`) allowed.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "lo"));
    let zone_ok = !zone.is_empty()
        && zone.len() < 32
        && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    zone_ok && address.parse::<Ipv6Addr>().is_ok()
}

/// Messages quote at most this much of a word.
fn clip(word: &str) -> String {
    let mut out: String = word.chars().take(64).flat_map(char::escape_debug).collect();
    if word.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

pub(crate) fn check_user(user: &str) -> Result<String, HostsProblem> {
    let ok = |c: char| c.is_alphanumeric() || "._-+\\@".contains(c);
    if user.is_empty() || user.len() > MAX_NAME || user.starts_with('-') || !user.chars().all(ok) {
        return Err(HostsProblem::BadUser { user: clip(user) });
    }
    Ok(user.to_owned())
}

fn parse_relative(word: &str, relative: &str) -> Result<(Who, Count), HostsProblem> {
    let bad = || HostsProblem::BadName {
        name: clip(word),
        why: "write +nK (the K-th host, from 0), +e or +e:K".to_owned(),
    };
    let small = |text: &str| parse_count("relative host", text).map_err(|_| bad());
    let (head, tail) = match relative.split_once(':') {
        Some((head, tail)) => (head, Some(tail)),
        None => (relative, None),
    };
    if head.eq_ignore_ascii_case("e") {
        return Ok((Who::Empty(tail.map(small).transpose()?), Count::All));
    }
    let index = head.strip_prefix(['n', 'N']).ok_or_else(bad)?;
    let count = tail.map_or(Ok(Count::All), parse_list_count)?;
    Ok((Who::Relative(small(index)?), count))
}

/// `2`, `*` or `auto` after the colon.
fn parse_list_count(text: &str) -> Result<Count, HostsProblem> {
    if text == "*" || text.eq_ignore_ascii_case("auto") {
        return Ok(Count::All);
    }
    parse_count("slots", text).map(Count::Given)
}

/// Splits `name:count`; bare IPv6 addresses have colons of their own.
fn split_count(word: &str) -> Result<(&str, Count), HostsProblem> {
    if is_ipv6(word) {
        return Ok((word, Count::Bare));
    }
    match word.rsplit_once(':') {
        // `[fe80::1` comes from a bracket that is not closed: let the name's check say so.
        Some((name, count)) if !name.contains('[') || name.contains(']') => {
            Ok((name, parse_list_count(count)?))
        }
        _ => Ok((word, Count::Bare)),
    }
}

/// Expands `prefix[1-3,07]suffix`, several brackets allowed, at most [`MAX_HOSTS`] names.
fn expand(name: &str) -> Result<Vec<String>, HostsProblem> {
    let Some(open) = name.find('[') else { return Ok(vec![parse_name(name)?]) };
    if open == 0 && name.contains(':') {
        return Ok(vec![parse_name(name)?]);
    }
    let bad = || HostsProblem::BadRange { text: clip(name) };
    let mut done = vec![String::new()];
    let mut rest = name;
    while let Some(open) = rest.find('[') {
        let close = rest[open..].find(']').map(|i| open + i).ok_or_else(bad)?;
        let numbers = expand_numbers(&rest[open + 1..close], done.len()).ok_or_else(bad)??;
        let prefix = &rest[..open];
        done = done.iter().flat_map(|d| numbers.iter().map(move |n| format!("{d}{prefix}{n}"))).collect();
        rest = &rest[close + 1..];
        if done.iter().any(|d| d.len() > MAX_NAME) {
            return Err(bad());
        }
    }
    // The last check also refuses a stray ']'.
    done.into_iter().map(|d| parse_name(&format!("{d}{rest}"))).collect()
}

/// `1-3,07` as texts with their leading zeros; `None` when it is something else.
fn expand_numbers(text: &str, times: usize) -> Option<Result<Vec<String>, HostsProblem>> {
    let mut out = Vec::new();
    for part in text.split(',') {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        let (lo, hi) = (lo.trim(), hi.trim());
        let number =
            |t: &str| -> Option<u32> { t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok())? };
        let (first, last) = (number(lo)?, number(hi)?);
        if first > last || lo.len() > 9 || hi.len() > 9 {
            return None;
        }
        if (out.len() + (last - first) as usize + 1).saturating_mul(times) > MAX_HOSTS {
            return Some(Err(HostsProblem::TooManyHosts { limit: MAX_HOSTS }));
        }
        let width = if lo.starts_with('0') { lo.len() } else { 0 };
        out.extend((first..=last).map(|n| format!("{n:0width$}")));
    }
    Some(Ok(out))
}
