//! Lines of an OpenSSH client configuration: keyword, arguments, quotes, comments. Pure.

/// A line with something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// Keyword, lower case.
    pub(crate) key: String,
    /// Arguments without their quotes.
    pub(crate) args: Vec<String>,
    /// Everything behind the keyword as written, for commands.
    pub(crate) rest: String,
}

/// Reads a line: `Ok(None)` for empty lines and comments.
pub(crate) fn directive(line: &str) -> Result<Option<Directive>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, rest) = if let Some(quoted) = line.strip_prefix('"') {
        quoted.split_once('"').ok_or("a quote is not closed")?
    } else {
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        line.split_at(end)
    };
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
    Ok(Some(Directive { key: key.to_ascii_lowercase(), args: words(rest)?, rest: rest.to_owned() }))
}

/// Splits arguments: single and double quotes, backslash before quotes, backslashes and blanks, comments.
pub(crate) fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(out),
            Some(_) => {}
        }
        let mut word = String::new();
        let mut quote: Option<char> = None;
        while let Some(&c) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            chars.next();
            match (quote, c) {
                (_, '\\') => match chars
                    .next_if(|n| matches!(n, '"' | '\'' | '\\') || (quote.is_none() && *n == ' '))
                {
                    Some(escaped) => word.push(escaped),
                    None => word.push('\\'),
                },
                (Some(q), c) if c == q => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (_, c) => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed");
        }
        out.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Directive {
        directive(line).unwrap().unwrap()
    }

    #[test]
    fn shapes_of_lines() {
        for (line, key, args) in [
            ("Port 22", "port", vec!["22"]),
            ("\tPort\t= 22", "port", vec!["22"]),
            ("Port=22", "port", vec!["22"]),
            ("IdentityFile \"~/my key\" # mine", "identityfile", vec!["~/my key"]),
            ("IdentityFile ~/a\\ b", "identityfile", vec!["~/a b"]),
            ("Host a '!b c' \"d\"", "host", vec!["a", "!b c", "d"]),
            ("Tag a#b", "tag", vec!["a#b"]),
        ] {
            let got = one(line);
            assert_eq!(
                (got.key.as_str(), got.args),
                (key, args.iter().map(ToString::to_string).collect()),
                "{line}"
            );
        }
        assert_eq!(one("ProxyCommand nc \"%h\" %p").rest, "nc \"%h\" %p");
        assert_eq!(directive("  # x").unwrap(), None);
        assert!(directive("Host \"a").is_err());
    }
}
