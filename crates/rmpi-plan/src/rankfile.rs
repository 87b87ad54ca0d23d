//! Rank files: `rank N=HOST slot=LIST`, one rank a line. Names are matched against the pool of the job; whether
//! the CPUs exist is found out when nodes have reported.

use crate::error::{HostsError, HostsProblem};
use crate::hosts::lexer::{At, Piece, Token, lines, tokens};
use crate::hosts::{MAX_HOSTS, ParsedHosts, parse_name};
use crate::suggest::nearest;
use rmpi_types::spec::{Host, RankfileCpus, RankfileEntry, Slots};
use rmpi_types::{Rank, RankSet};
use std::collections::HashMap;

/// Most ranks a rank file may have, and the highest CPU number plus one.
const MAX_ENTRIES: usize = 4 * 1024 * 1024;
const MAX_CPU: u32 = 65_536;

/// One line, its host still a word.
struct Raw<'a> {
    rank: u32,
    host: &'a str,
    host_column: u32,
    cpus: Option<RankfileCpus>,
    line: u32,
}

/// Reads a rank file against the hosts of the job (none: only this machine). The result is sorted by rank, and
/// every rank from 0 to the highest has its line.
///
/// # Errors
/// A line of another form, a rank twice (naming both lines) or missing, a host that is not in the pool.
pub fn parse(bytes: &[u8], name: &str, hosts: &[Host]) -> Result<Vec<RankfileEntry>, HostsError> {
    let local = [Host { name: "localhost".to_owned(), ..Host::default() }];
    let hosts = if hosts.is_empty() { &local[..] } else { hosts };
    let mut index: HashMap<String, usize> = HashMap::new();
    for (i, host) in hosts.iter().enumerate() {
        index.entry(host.name.to_ascii_lowercase()).or_insert(i);
    }
    let lines = lines(bytes, name)?;
    let mut out = Vec::with_capacity(lines.len());
    for line in &lines {
        let at = At { source_name: name, line: line.number, text: &line.text };
        let raw = parse_line(at)?;
        let host = find(raw.host, hosts, &index).map_err(|p| at.error(raw.host_column, p))?;
        let origin = format!("{name}:{}", raw.line);
        out.push((raw.line, RankfileEntry { rank: Rank(raw.rank), host, cpus: raw.cpus, origin }));
    }
    check_coverage(name, out)
}

/// The pool a rank file makes when no host list was given: its names in order of appearance, each with as many
/// slots as it has ranks.
///
/// # Errors
/// A line of another form, a relative host.
pub fn hosts(bytes: &[u8], name: &str) -> Result<ParsedHosts, HostsError> {
    let mut out = ParsedHosts { source_name: name.to_owned(), ..ParsedHosts::default() };
    let mut index: HashMap<String, usize> = HashMap::new();
    for line in lines(bytes, name)? {
        let at = At { source_name: name, line: line.number, text: &line.text };
        let raw = parse_line(at)?;
        let fail = |p| at.error(raw.host_column, p);
        if raw.host.starts_with('+') {
            return Err(fail(HostsProblem::NoPool { token: raw.host.to_owned() }));
        }
        let host = parse_name(raw.host).map_err(fail)?;
        let i = *index.entry(host.to_ascii_lowercase()).or_insert_with(|| {
            let origin = format!("{name}:{}", raw.line);
            out.hosts.push(Host { name: host, slots: Slots::Count(0), origin, ..Host::default() });
            out.hosts.len() - 1
        });
        if out.hosts.len() > MAX_HOSTS {
            return Err(fail(HostsProblem::TooManyHosts { limit: MAX_HOSTS }));
        }
        if let Slots::Count(n) = &mut out.hosts[i].slots {
            *n += 1;
        }
        out.listed.push(i);
        out.listed_slots.push(1);
    }
    if out.hosts.is_empty() {
        return Err(HostsError::whole(name, HostsProblem::Empty("file")));
    }
    Ok(out)
}

/// Sorts by rank; every rank once, none missing.
fn check_coverage(
    name: &str,
    mut lines: Vec<(u32, RankfileEntry)>,
) -> Result<Vec<RankfileEntry>, HostsError> {
    lines.sort_by_key(|(line, e)| (e.rank, *line));
    let at = |line| At { source_name: name, line, text: "" };
    if let Some(pair) = lines.windows(2).find(|p| p[0].1.rank == p[1].1.rank) {
        let (first, second) = (pair[0].0, pair[1].0);
        let rank = pair[0].1.rank.0;
        return Err(at(second).error(0, HostsProblem::RankTwice { rank, first, second }));
    }
    let Some((_, last)) = lines.last() else {
        return Err(HostsError::whole(name, HostsProblem::Empty("file")));
    };
    let highest = last.rank.0;
    if let Some(((_, _), rank)) = lines.iter().zip(0u32..).find(|((_, e), i)| e.rank.0 != *i) {
        return Err(HostsError::whole(name, HostsProblem::RankMissing { rank, highest }));
    }
    Ok(lines.into_iter().map(|(_, e)| e).collect())
}

fn find(word: &str, hosts: &[Host], index: &HashMap<String, usize>) -> Result<usize, HostsProblem> {
    let pool = || "the host list".to_owned();
    if let Some(relative) = word.strip_prefix('+') {
        let digits = relative.strip_prefix(['n', 'N']).unwrap_or_default();
        return match digits.parse::<usize>() {
            Ok(k) if k < hosts.len() => Ok(k),
            _ => Err(HostsProblem::RelativeRange { token: word.to_owned(), pool: pool(), have: hosts.len() }),
        };
    }
    let host = parse_name(word)?;
    index.get(&host.to_ascii_lowercase()).copied().ok_or_else(|| {
        let hint = nearest(&host, hosts.iter().map(|h| h.name.as_str())).map(str::to_owned);
        HostsProblem::Unknown { host, pool: pool(), hint }
    })
}

/// Takes words off a line.
struct Words<'a, 'l> {
    at: At<'a>,
    tokens: std::slice::Iter<'l, Token<'a>>,
}

impl<'a> Words<'a, '_> {
    fn next(&mut self) -> Result<(&'a str, u32), HostsError> {
        match self.tokens.next() {
            Some(Token { piece: Piece::Word(word), column, .. }) => Ok((word, *column)),
            Some(Token { piece: Piece::Eq, column, .. }) => Err(self.unexpected("=", *column)),
            Some(Token { piece: Piece::Comma, column, .. }) => Err(self.unexpected(",", *column)),
            None => Err(self.unexpected("", 0)),
        }
    }

    fn eq(&mut self) -> Result<(), HostsError> {
        match self.tokens.next() {
            Some(Token { piece: Piece::Eq, .. }) => Ok(()),
            Some(Token { piece: Piece::Word(word), column, .. }) => Err(self.unexpected(word, *column)),
            Some(Token { column, .. }) => Err(self.unexpected(",", *column)),
            None => Err(self.unexpected("", 0)),
        }
    }

    fn keyword(&mut self, allowed: &[&str]) -> Result<(), HostsError> {
        let (word, column) = self.next()?;
        let ok = allowed.iter().any(|k| word.eq_ignore_ascii_case(k));
        if ok { Ok(()) } else { Err(self.unexpected(word, column)) }
    }

    fn unexpected(&self, word: &str, column: u32) -> HostsError {
        self.at.error(column, HostsProblem::RankLine { found: word.chars().take(64).collect() })
    }
}

fn parse_line(at: At<'_>) -> Result<Raw<'_>, HostsError> {
    let tokens = tokens(at.text);
    let mut words = Words { at, tokens: tokens.iter() };
    words.keyword(&["rank"])?;
    let (number, column) = words.next()?;
    let bad = |problem| at.error(column, problem);
    let not_a_number =
        || HostsProblem::NotANumber { key: "rank".to_owned(), value: number.chars().take(64).collect() };
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let rank: u32 = number.parse().ok().filter(|_| digits).ok_or_else(|| bad(not_a_number()))?;
    if rank as usize >= MAX_ENTRIES {
        let limit = u32::try_from(MAX_ENTRIES - 1).unwrap_or(u32::MAX);
        return Err(bad(HostsProblem::TooLarge { key: "rank".to_owned(), value: number.to_owned(), limit }));
    }
    words.eq()?;
    let (host, host_column) = words.next()?;
    if words.tokens.len() == 0 {
        return Ok(Raw { rank, host, host_column, cpus: None, line: at.line });
    }
    words.keyword(&["slot", "slots"])?;
    words.eq()?;
    let rest: Vec<&Token<'_>> = words.tokens.by_ref().collect();
    let column = rest.first().map_or(0, |t| t.column);
    let text: String = rest
        .iter()
        .map(|t| match t.piece {
            Piece::Word(w) => w,
            Piece::Comma => ",",
            Piece::Eq => "=",
        })
        .collect();
    // Two words side by side would read as one.
    let glued =
        rest.windows(2).any(|p| matches!((&p[0].piece, &p[1].piece), (Piece::Word(_), Piece::Word(_))));
    let cpus = parse_cpus(&text).filter(|_| !glued);
    let value = text.chars().take(64).collect();
    let cpus = cpus.ok_or_else(|| at.error(column, HostsProblem::BadCpuList { value }))?;
    Ok(Raw { rank, host, host_column, cpus: Some(cpus), line: at.line })
}

/// `0`, `0-2`, `0,4`, `1:0-2`, `0:*`.
fn parse_cpus(text: &str) -> Option<RankfileCpus> {
    match text.split_once(':') {
        None => parse_numbers(text).map(RankfileCpus::Cores),
        Some((package, cores)) => {
            let package = number(package)?;
            let cores = if cores == "*" { RankSet::default() } else { parse_numbers(cores)? };
            Some(RankfileCpus::Package(package, cores))
        }
    }
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&n| digits && n < MAX_CPU)
}

fn parse_numbers(text: &str) -> Option<RankSet> {
    let mut set = RankSet::default();
    for part in text.split(',') {
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        let (lo, hi) = (number(lo)?, number(hi)?);
        if lo > hi {
            return None;
        }
        (lo..=hi).for_each(|n| set.insert(Rank(n)));
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool() -> Vec<Host> {
        ["n1", "n2", "n3"].map(|n| Host { name: n.to_owned(), ..Host::default() }).to_vec()
    }

    fn set(text: &str) -> RankSet {
        parse_numbers(text).unwrap()
    }

    #[test]
    fn lines_are_read() {
        let text = "# x\nrank 1=n1 slot=1\nrank 0 = +n2 slots=0-2,4\nrank 2=N2 slot=1:0-2\nrank 3=n2 slot=0:*\nrank 4=n3\n";
        let entries = parse(text.as_bytes(), "rf", &pool()).unwrap();
        let got: Vec<_> =
            entries.iter().map(|e| (e.rank.0, e.host, e.cpus.clone(), e.origin.as_str())).collect();
        let cores = |t| Some(RankfileCpus::Cores(set(t)));
        assert_eq!(
            got,
            [
                (0, 2, cores("0-2,4"), "rf:3"),
                (1, 0, cores("1"), "rf:2"),
                (2, 1, Some(RankfileCpus::Package(1, set("0-2"))), "rf:4"),
                (3, 1, Some(RankfileCpus::Package(0, RankSet::default())), "rf:5"),
                (4, 2, None, "rf:6"),
            ]
        );
    }

    #[test]
    fn errors_name_lines() {
        for (text, expected) in [
            (
                "rank 0=n1\nrank 1=n2\nrank 0=n3",
                "rf:3: rank 0 is given twice, on lines 1 and 3; remove one of them",
            ),
            (
                "rank 0=n1\nrank 2=n2",
                "rf: no line for rank 1, but one for rank 2; every rank from 0 on needs a line",
            ),
            ("rank 0=m1 slot=0", "rf:1: m1 is not in the host list (did you mean n1?)"),
            ("rank 0=+n3 slot=0", "rf:1: +n3 does not exist: the host list has 3 hosts, +n0 is the first"),
            ("rank x=n1", "rf:1: rank: 'x' is not a number"),
            ("rank 0 n1", "rf:1: expected 'rank N=HOST slot=LIST', found 'n1'"),
            ("rank 0=", "rf:1: expected 'rank N=HOST slot=LIST', found the end of the line"),
            ("0=n1", "rf:1: expected 'rank N=HOST slot=LIST', found '0'"),
            (
                "rank 0=n1 slot=0:1:2",
                "rf:1: slot: '0:1:2' is not a CPU list; write 0, 0-2, 0,4, SOCKET:0-2 or SOCKET:*",
            ),
            (
                "rank 0=n1 slot=1 2",
                "rf:1: slot: '12' is not a CPU list; write 0, 0-2, 0,4, SOCKET:0-2 or SOCKET:*",
            ),
            ("", "rf: no host in the file"),
        ] {
            assert_eq!(parse(text.as_bytes(), "rf", &pool()).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_rank_file_can_be_the_host_list() {
        let made = hosts(b"rank 0=b slot=0\nrank 1=a\nrank 2=b\n", "rf").unwrap();
        let got: Vec<_> = made.hosts.iter().map(|h| (h.name.as_str(), h.slots)).collect();
        assert_eq!(got, [("b", Slots::Count(2)), ("a", Slots::Count(1))]);
        assert!(hosts(b"rank 0=+n0", "rf").unwrap_err().to_string().contains("relative"));
        assert_eq!(parse(b"rank 0=localhost slot=0", "rf", &[]).unwrap()[0].host, 0);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(rank |[0-9]{1,9}|=|n1|\\+n|slot=|:|\\*|-|,|\n| ){0,20}") {
            let _ = parse(text.as_bytes(), "rf", &pool());
            let _ = hosts(text.as_bytes(), "rf");
        }
    }
}
