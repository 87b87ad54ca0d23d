//! Cutting a client's stream into messages. What begins with `cmd=` or `mcmd=` is PMI-1, anything else begins
//! with six bytes of decimal length and is PMI-2; both share one stream, and it is decided message by message.

use std::fmt;

/// Bytes of one PMI-1 line, at most.
const MAX_LINE: usize = 64 << 10;
/// Bytes of one PMI-1 spawn, at most.
const MAX_SPAWN: usize = 4 << 20;
/// Bytes that decide what a message is; also the length of a PMI-2 prefix.
pub(super) const PREFIX: usize = 6;

/// One message, without what frames it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A PMI-1 line, without its newline.
    Line(Vec<u8>),
    /// All blocks of a PMI-1 spawn.
    Spawn(Vec<u8>),
    /// A PMI-2 body.
    Body(Vec<u8>),
}

/// A stream that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadFrame {
    /// Neither protocol begins like this.
    Start([u8; PREFIX]),
    /// A message above the limit.
    TooLong(usize),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(bytes) => {
                write!(f, "not a PMI message: it begins with {:?}", bytes.escape_ascii().to_string())
            }
            Self::TooLong(max) => write!(f, "a PMI message of more than {max} bytes"),
        }
    }
}

/// Bytes not yet cut.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    buffer: Vec<u8>,
    /// Bytes of `buffer` in which no newline (or end of a spawn) was found.
    looked: usize,
    /// Blocks of a spawn that were seen to end within `looked`.
    ends: usize,
}

impl Cutter {
    /// Adds bytes that were read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Message>, BadFrame> {
        let Some(first) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        if first.starts_with(b"cmd=") {
            self.line()
        } else if first.starts_with(b"mcmd=") {
            self.spawn()
        } else {
            let length = length(first).ok_or(BadFrame::Start(*first))?;
            if self.buffer.len() < PREFIX + length {
                return Ok(None);
            }
            let body = self.take(PREFIX + length)[PREFIX..].to_vec();
            Ok(Some(Message::Body(body)))
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.looked = 0;
        self.ends = 0;
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn line(&mut self) -> Result<Option<Message>, BadFrame> {
        match self.buffer[self.looked..].iter().position(|&b| b == b'\n') {
            Some(at) => {
                let mut line = self.take(self.looked + at + 1);
                line.pop();
                Ok(Some(Message::Line(line)))
            }
            None if self.buffer.len() > MAX_LINE => Err(BadFrame::TooLong(MAX_LINE)),
            None => {
                self.looked = self.buffer.len();
                Ok(None)
            }
        }
    }

    /// A spawn is over when as many blocks have ended as its first block announces.
    fn spawn(&mut self) -> Result<Option<Message>, BadFrame> {
        while let Some(at) = self.buffer[self.looked..].iter().position(|&b| b == b'\n') {
            let line = &self.buffer[self.looked..self.looked + at];
            self.ends += usize::from(line == b"endcmd");
            self.looked += at + 1;
            if line == b"endcmd" && Some(self.ends) == blocks(&self.buffer[..self.looked]) {
                let all = self.looked;
                return Ok(Some(Message::Spawn(self.take(all))));
            }
        }
        if self.buffer.len() > MAX_SPAWN {
            return Err(BadFrame::TooLong(MAX_SPAWN));
        }
        Ok(None)
    }
}

/// How many blocks a spawn announces.
fn blocks(text: &[u8]) -> Option<usize> {
    let mut lines = text.split(|&b| b == b'\n');
    let total = lines.find_map(|l| l.strip_prefix(b"totspawns="))?;
    number(total)
}

/// A decimal number of digits only.
pub(super) fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok().filter(|t| !t.starts_with('+'))?.parse().ok()
}

/// The length in a PMI-2 prefix: digits padded with blanks on either side.
fn length(prefix: &[u8; PREFIX]) -> Option<usize> {
    let digits = prefix.trim_ascii();
    if digits.iter().all(u8::is_ascii_digit) { number(digits) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Result<Vec<Message>, BadFrame> {
        let mut cutter = Cutter::default();
        let mut out = Vec::new();
        for piece in pieces {
            cutter.push(piece);
            while let Some(message) = cutter.next()? {
                out.push(message);
            }
        }
        Ok(out)
    }

    #[test]
    fn messages_of_both_kinds_share_a_stream_and_may_be_cut_anywhere() {
        let stream = b"cmd=init pmi_version=2\n    11cmd=a;b=c;;mcmd=spawn\ntotspawns=2\nendcmd\nmcmd=spawn\nendcmd\n12    cmd=finalizecmd=x\n";
        let whole = cut(&[stream]).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[0], Message::Line(b"cmd=init pmi_version=2".to_vec()));
        assert_eq!(whole[1], Message::Body(b"cmd=a;b=c;;".to_vec()));
        assert!(matches!(&whole[2], Message::Spawn(s) if s.ends_with(b"mcmd=spawn\nendcmd\n")));
        assert_eq!(whole[3], Message::Body(b"cmd=finalize".to_vec()));
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(cut(&bytes).unwrap(), whole);
    }

    #[test]
    fn what_is_not_pmi_is_refused_and_limits_hold() {
        assert_eq!(cut(&[b"GET / HTTP"]), Err(BadFrame::Start(*b"GET / ")));
        assert_eq!(cut(&[b"1 2   x"]), Err(BadFrame::Start(*b"1 2   ")));
        assert_eq!(cut(&[b"      x"]), Err(BadFrame::Start(*b"      ")));
        assert_eq!(cut(&[b"-00001x"]), Err(BadFrame::Start(*b"-00001")));
        let long = [b"cmd=".as_slice(), &vec![b'x'; MAX_LINE]].concat();
        assert_eq!(cut(&[&long]), Err(BadFrame::TooLong(MAX_LINE)));
        assert_eq!(cut(&[b"cmd="]), Ok(vec![]));
    }
}
