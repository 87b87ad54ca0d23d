//! Walking configuration files: `Host`, `Match`, `Include`; the first value of an option wins, key files add
//! up. Files are read through a closure, so this is as pure as its reader. `Match exec` never runs anything.

use super::lex::{Directive, directive};
use super::{ConfigError, Query};
use crate::glob;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `Include` inside `Include`, as OpenSSH limits it.
const MAX_DEPTH: usize = 16;
/// Files of one reading, and values of one option: bounds on what a configuration can cost.
const MAX_FILES: usize = 1024;
const MAX_VALUES: usize = 256;

/// How files are found: expands a pattern to paths, in order.
pub(crate) type Expand<'a> = dyn Fn(&str) -> Vec<PathBuf> + 'a;
/// How a file is read: `None` when it does not exist.
pub(crate) type Read<'a> = dyn Fn(&Path) -> Option<std::io::Result<String>> + 'a;

/// Options that may be given several times, every value counting.
const ACCUMULATE: [&str; 2] = ["identityfile", "certificatefile"];
/// Options whose value is the rest of the line.
const WHOLE_LINE: [&str; 3] = ["proxycommand", "localcommand", "remotecommand"];

/// Values as written, by lower-case keyword.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) values: BTreeMap<String, Vec<Vec<String>>>,
    /// Things a user may want to know of: conditions that cannot be evaluated.
    pub(crate) notes: BTreeSet<String>,
    wants_final: bool,
    files: usize,
}

impl Raw {
    /// First word of the first value.
    pub(crate) fn first(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.first()?.first().map(String::as_str)
    }

    /// Takes a setting if it is the first of its name, or one that adds up.
    pub(crate) fn set(&mut self, d: &Directive) {
        let words = if WHOLE_LINE.contains(&d.key.as_str()) { vec![d.rest.clone()] } else { d.args.clone() };
        // One way to a host: whichever of the two comes first, `none` included.
        let other = match d.key.as_str() {
            "proxyjump" => "proxycommand",
            "proxycommand" => "proxyjump",
            _ => "",
        };
        if self.values.contains_key(other) {
            return;
        }
        let values = self.values.entry(d.key.clone()).or_default();
        let add = ACCUMULATE.contains(&d.key.as_str()) && !values.contains(&words);
        if values.is_empty() || (add && values.len() < MAX_VALUES) {
            values.push(words);
        }
    }
}

/// One walk over the files for one host.
pub(crate) struct Walk<'a> {
    pub(crate) query: &'a Query,
    pub(crate) read: &'a Read<'a>,
    pub(crate) expand: &'a Expand<'a>,
    pub(crate) raw: Raw,
    pub(crate) last_pass: bool,
}

impl Walk<'_> {
    /// Reads a file that must exist when `required`.
    pub(crate) fn top(&mut self, path: &Path, include_dir: &str, required: bool) -> Result<(), ConfigError> {
        self.file(path, include_dir, required, 0)
    }

    /// Whether another pass is asked for by `Match final`.
    pub(crate) fn wants_final(&self) -> bool {
        self.raw.wants_final
    }

    /// The name to dial as far as it is known.
    pub(crate) fn dialled(&self) -> String {
        let name = self.raw.first("hostname").unwrap_or("%h");
        name.replace("%h", &self.query.host).replace("%%", "%")
    }

    fn file(
        &mut self,
        path: &Path,
        include_dir: &str,
        required: bool,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let error = |line, what: String| ConfigError::Bad { path: path.to_owned(), line, what };
        self.raw.files += 1;
        if depth > MAX_DEPTH || self.raw.files > MAX_FILES {
            return Err(error(0, "too many or too deep Include lines".into()));
        }
        let text = match (self.read)(path) {
            Some(Ok(text)) => text,
            Some(Err(source)) => return Err(ConfigError::Io { path: path.to_owned(), source }),
            None if required => {
                let source = std::io::ErrorKind::NotFound.into();
                return Err(ConfigError::Io { path: path.to_owned(), source });
            }
            None => return Ok(()),
        };
        let mut active = true;
        for (n, line) in text.lines().enumerate() {
            let Some(d) = directive(line).map_err(|e| error(n + 1, e.into()))? else { continue };
            if d.args.is_empty() {
                return Err(error(n + 1, format!("{} has no value", d.key)));
            }
            match d.key.as_str() {
                "host" => active = glob::list_matches(d.args.iter().map(String::as_str), &self.query.host),
                "match" => active = self.matches(&d.args).map_err(|e| error(n + 1, e))?,
                "include" if active => {
                    for pattern in &d.args {
                        self.include(pattern, include_dir, depth)?;
                    }
                }
                "include" => {}
                _ if active => self.raw.set(&d),
                _ => {}
            }
        }
        Ok(())
    }

    fn include(&mut self, pattern: &str, dir: &str, depth: usize) -> Result<(), ConfigError> {
        let pattern = match pattern.strip_prefix("~/") {
            Some(rest) => format!("{}/{rest}", self.query.home),
            None if pattern.starts_with('/') => pattern.to_owned(),
            None => format!("{dir}/{pattern}"),
        };
        for path in (self.expand)(&pattern) {
            self.file(&path, dir, false, depth + 1)?;
        }
        Ok(())
    }

    /// Evaluates a `Match` line: all conditions must hold.
    fn matches(&mut self, args: &[String]) -> Result<bool, String> {
        let mut all = true;
        let mut args = args.iter();
        while let Some(word) = args.next() {
            // `Match host=pattern` is as good as `Match host pattern`.
            let (word, attached) = word.split_once('=').map_or((word.as_str(), None), |(k, v)| (k, Some(v)));
            let (negated, name) = word.strip_prefix('!').map_or((false, word), |w| (true, w));
            let name = name.to_ascii_lowercase();
            let holds = match name.as_str() {
                "all" => Some(true),
                "canonical" => Some(false),
                "final" => {
                    self.raw.wants_final = true;
                    Some(self.last_pass)
                }
                _ => {
                    let value = attached
                        .or_else(|| args.next().map(String::as_str))
                        .ok_or_else(|| format!("Match {name} has no value"))?;
                    self.condition(&name, value)?
                }
            };
            // What cannot be evaluated is not matched, negated or not.
            all &= holds.is_some_and(|h| h != negated);
        }
        Ok(all)
    }

    fn condition(&mut self, name: &str, value: &str) -> Result<Option<bool>, String> {
        let query = self.query;
        let subject = match name {
            "host" => self.dialled(),
            "originalhost" => query.host.clone(),
            "user" => {
                let known = query.user.as_deref().or_else(|| self.raw.first("user"));
                known.unwrap_or(&query.local_user).to_owned()
            }
            "localuser" => query.local_user.clone(),
            "exec" | "localnetwork" | "tagged" | "command" | "version" | "sessiontype" => {
                self.raw.notes.insert(format!("Match {name} is taken as not matching"));
                return Ok(None);
            }
            other => return Err(format!("Match {other} is not known")),
        };
        Ok(Some(glob::list_matches(value.split(','), &subject)))
    }
}

/// Files a pattern stands for, sorted, as `Include` reads them: `*` and `?` in any component.
pub(crate) fn expand_on_disk(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        if !part.contains(['*', '?']) {
            found.iter_mut().for_each(|p| p.push(part));
            continue;
        }
        let mut next = Vec::new();
        for dir in &found {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
            let hidden = part.starts_with('.');
            let mut names: Vec<String> =
                names.filter(|n| (hidden || !n.starts_with('.')) && glob::matches(part, n)).collect();
            names.sort();
            next.extend(names.into_iter().map(|n| dir.join(n)));
        }
        next.truncate(MAX_FILES);
        found = next;
    }
    found
}
