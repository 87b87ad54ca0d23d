//! Cutting a rank's output into whole lines, and remembering its last ones. Bytes are never changed, dropped
//! or reordered; a line above the limit is passed on in pieces.

use bytes::{Bytes, BytesMut};

/// Longest line kept together.
pub(crate) const MAX_LINE: usize = 64 << 10;
/// Bytes kept of the newest stderr.
const TAIL: usize = 2 << 10;
/// Lines and bytes a line of the summary.
const TAIL_LINES: usize = 4;
const TAIL_LINE: usize = 256;

/// Holds back an unfinished line.
#[derive(Debug)]
pub(crate) struct Lines {
    held: BytesMut,
    limit: usize,
}

impl Lines {
    /// `credit` is the window of the stream: half of it bounds what is held back, so that a held line can
    /// never be all that the window has room for.
    pub(crate) fn new(credit: usize) -> Self {
        Self { held: BytesMut::new(), limit: MAX_LINE.min(credit / 2).max(1) }
    }

    /// Adds bytes; gives what may be passed on: whole lines, or all when the unfinished line is at the limit.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Bytes {
        let newline = bytes.iter().rposition(|&b| b == b'\n').map(|i| self.held.len() + i + 1);
        self.held.extend_from_slice(bytes);
        let ready = newline.unwrap_or(0);
        let ready = if self.held.len() - ready >= self.limit { self.held.len() } else { ready };
        self.held.split_to(ready).freeze()
    }

    /// The unfinished last line.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }
}

/// The newest bytes of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    /// Adds output.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let keep = TAIL - new.len();
        let drop = self.0.len().saturating_sub(keep);
        self.0.drain(..drop);
        self.0.extend_from_slice(new);
    }

    /// The last lines, oldest first, lossy, blank ones left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.0.split(|&b| b == b'\n').rev().filter(|l| !l.trim_ascii().is_empty());
        let text = |l: &[u8]| String::from_utf8_lossy(&l[..l.len().min(TAIL_LINE)]).trim_end().to_owned();
        let mut last: Vec<String> = lines.take(TAIL_LINES).map(text).collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_and_lines_stay_whole(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..80), 0..40),
            credit in 2usize..400,
        ) {
            let mut lines = Lines::new(credit);
            let mut out = Vec::new();
            for piece in &pieces {
                let ready = lines.push(piece);
                // What is passed on ends a line, or the line is too long.
                let unfinished = ready.rsplit(|&b| b == b'\n').next().map_or(0, <[u8]>::len);
                prop_assert!(unfinished == 0 || unfinished >= lines.limit);
                prop_assert!(lines.held.len() < lines.limit);
                out.extend_from_slice(&ready);
            }
            out.extend_from_slice(&lines.finish());
            prop_assert_eq!(out, pieces.concat());
        }
    }

    #[test]
    fn the_tail_has_the_last_lines() {
        let mut tail = Tail::default();
        for i in 0..2000 {
            tail.push(format!("line {i}\n\n").as_bytes());
        }
        tail.push(b"end");
        assert_eq!(tail.lines(), ["line 1997", "line 1998", "line 1999", "end"]);
        tail.push(&[b'x'; 5000]);
        assert_eq!(tail.lines(), ["x".repeat(256)]);
    }
}
