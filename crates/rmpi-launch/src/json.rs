//! Writing JSON (RFC 8259): objects of known shape, a field after another. Numbers and texts only.

use std::fmt::Write as _;

/// An object being written.
pub(crate) struct Object(String);

impl Object {
    /// `{`.
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        quote(&mut self.0, name);
        self.0.push(':');
    }

    /// A text.
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        quote(&mut self.0, text);
        self
    }

    /// A number, a truth value or `null`, as it is displayed; or what is JSON already.
    pub(crate) fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    /// The object's text, without a newline.
    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A list of what is JSON already.
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

/// A JSON string (section 7).
pub(crate) fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let object = Object::new().text("a", "x\"\n").raw("b", 1.5).raw("c", list(["1".into(), "2".into()]));
        assert_eq!(object.end(), "{\"a\":\"x\\\"\\u000a\",\"b\":1.5,\"c\":[1,2]}");
    }
}
