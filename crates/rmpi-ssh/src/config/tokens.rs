//! Percent tokens, `~` and `${NAME}` in values of the client configuration. Pure.

/// What tokens stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens {
    /// `%h`: the host name dialled.
    pub(crate) host: String,
    /// `%n`: the name as given.
    pub(crate) original: String,
    /// `%p`: the port.
    pub(crate) port: u16,
    /// `%r`: the remote user.
    pub(crate) user: String,
    /// `%u`: the local user.
    pub(crate) local_user: String,
    /// `%d` and `~`: the local home directory.
    pub(crate) home: String,
    /// `%k`: the host key alias, or the name as given.
    pub(crate) alias: String,
    /// `%i`: the local user id.
    pub(crate) uid: u32,
    /// `%l`: the name of this machine.
    pub(crate) local_host: String,
}

impl Tokens {
    /// Replaces `%` tokens; the error names an unknown one.
    pub(crate) fn percent(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('h') => out.push_str(&self.host),
                Some('n') => out.push_str(&self.original),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(&self.user),
                Some('u') => out.push_str(&self.local_user),
                Some('d') => out.push_str(&self.home),
                Some('k') => out.push_str(&self.alias),
                Some('i') => out.push_str(&self.uid.to_string()),
                Some('l') => out.push_str(&self.local_host),
                Some('L') => out.push_str(self.local_host.split('.').next().unwrap_or_default()),
                Some(other) => return Err(format!("token %{other} in {text:?} is not supported")),
                None => return Err(format!("{text:?} ends in %")),
            }
        }
        Ok(out)
    }

    /// A path: `~/`, `${NAME}` by `env`, and tokens.
    pub(crate) fn path(&self, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        let text = match text.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => format!("{}{rest}", self.home),
            Some(_) => return Err(format!("{text:?}: only ~/ is supported, not ~user")),
            None => text.to_owned(),
        };
        let mut out = String::new();
        let mut left = text.as_str();
        while let Some((before, after)) = left.split_once("${") {
            let (name, rest) = after.split_once('}').ok_or_else(|| format!("{text:?}: ${{ is not closed"))?;
            out.push_str(before);
            out.push_str(&env(name).ok_or_else(|| format!("{text:?}: variable {name} is not set"))?);
            left = rest;
        }
        out.push_str(left);
        self.percent(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements() {
        let t = Tokens {
            host: "h.example".into(),
            original: "n".into(),
            port: 2222,
            user: "r".into(),
            local_user: "u".into(),
            home: "/home/u".into(),
            local_host: "here.example".into(),
            ..Tokens::default()
        };
        let env = |n: &str| (n == "X").then(|| "x".to_owned());
        assert_eq!(t.percent("%h %n %p %r %u %d %% %L").unwrap(), "h.example n 2222 r u /home/u % here");
        assert_eq!(t.path("~/k/${X}/%h", &env).unwrap(), "/home/u/k/x/h.example");
        for bad in ["%z", "a%", "~bob/x", "${Y}", "${X"] {
            assert!(t.path(bad, &env).is_err(), "{bad}");
        }
    }
}
