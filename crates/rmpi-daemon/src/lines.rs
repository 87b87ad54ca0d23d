//! Cutting a rank's output into whole lines, and remembering its last ones. Bytes are never changed, dropped
//! or reordered; a line above the limit is passed on in pieces.

use bytes::{BufMut as _, Bytes, BytesMut, buf::Limit};
use std::collections::VecDeque;
use std::io;

/// Bytes of a buffer that is read into directly: a quarter of the window, within these limits.
const BUFFER_MIN: usize = 64 << 10;
const BUFFER_MAX: usize = 256 << 10;
/// Buffers kept for reuse: what was passed on comes back soon, and memory that is used again is warm.
const SPARE: usize = 6;
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
    /// Whether that is a buffer to be read into directly.
    whole: bool,
    /// Such buffers whose bytes were passed on, the oldest first.
    spare: VecDeque<BytesMut>,
    limit: usize,
    size: usize,
}

impl Lines {
    /// `credit` is the window of the stream: half of it bounds what is held back, so that a held line can
    /// never be all that the window has room for.
    pub(crate) fn new(credit: usize) -> Self {
        Self {
            held: BytesMut::new(),
            whole: false,
            spare: VecDeque::new(),
            limit: MAX_LINE.min(credit / 2).max(1),
            size: (credit / 4).clamp(BUFFER_MIN, BUFFER_MAX),
        }
    }

    /// Adds bytes, to be cut afterwards.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.whole &= self.held.capacity() - self.held.len() >= bytes.len();
        self.held.extend_from_slice(bytes);
    }

    /// Lets `read` put up to `most` bytes behind what is held, without a copy; gives what it says. To be cut afterwards.
    pub(crate) fn fill(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut Limit<&mut BytesMut>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.whole || self.held.capacity() - self.held.len() < self.size / 4 {
            self.renew();
        }
        let room = most.min(self.held.capacity() - self.held.len());
        read(&mut (&mut self.held).limit(room))
    }

    /// Goes on in a buffer with room, one that was used before if it is back.
    fn renew(&mut self) {
        let size = self.size + self.held.len();
        let reclaimed = self.spare.front_mut().is_some_and(|oldest| oldest.try_reclaim(size));
        // One that is not back although all places are taken is kept by somebody.
        let kept = !reclaimed && self.spare.len() >= SPARE;
        let oldest = if reclaimed || kept { self.spare.pop_front() } else { None };
        let back = oldest.filter(|_| reclaimed);
        let mut next = back.unwrap_or_else(|| BytesMut::with_capacity(self.size + MAX_LINE));
        next.extend_from_slice(&self.held);
        let mut old = std::mem::replace(&mut self.held, next);
        old.clear();
        if std::mem::replace(&mut self.whole, true) {
            self.spare.push_back(old);
        }
    }

    /// Gives up buffers that are not in use.
    pub(crate) fn rest(&mut self) {
        self.spare = VecDeque::new();
    }

    /// The newest `count` bytes.
    pub(crate) fn newest(&self, count: usize) -> &[u8] {
        &self.held[self.held.len() - count..]
    }

    /// What may be passed on now that `count` bytes are new: whole lines, or all when the unfinished line is at the
    /// limit.
    pub(crate) fn cut(&mut self, count: usize) -> Bytes {
        let old = self.held.len() - count;
        let ready = self.newest(count).iter().rposition(|&b| b == b'\n').map_or(0, |i| old + i + 1);
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
            for (i, piece) in pieces.iter().enumerate() {
                if i % 2 == 0 {
                    lines.push(piece);
                } else {
                    let put = |to: &mut Limit<&mut BytesMut>| {
                        to.put_slice(piece);
                        Ok(piece.len())
                    };
                    prop_assert_eq!(lines.fill(piece.len(), put).unwrap(), piece.len());
                }
                prop_assert_eq!(lines.newest(piece.len()), &piece[..]);
                let ready = lines.cut(piece.len());
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

    /// Reads until a megabyte has come; gives how many buffers that took.
    fn buffers(keep: bool) -> usize {
        let mut lines = Lines::new(1 << 20);
        let (mut kept, mut seen, mut places) = (Vec::new(), 0u8, std::collections::BTreeSet::new());
        for _ in 0..64 {
            let put = |to: &mut Limit<&mut BytesMut>| {
                to.put_slice(&[seen; 60_000]);
                to.put_slice(b"\nrest");
                Ok(60_005)
            };
            assert_eq!(lines.fill(64 << 10, put).unwrap(), 60_005);
            let ready = lines.cut(60_005);
            let rest = if seen == 0 { 0 } else { 4 };
            assert!(ready[rest..].starts_with(&[seen; 60_000]) && ready.ends_with(b"\n"));
            places.insert(ready.as_ptr() as usize / BUFFER_MAX);
            seen += 1;
            if keep {
                kept.push(ready);
            }
        }
        assert!(kept.iter().zip(0..).all(|(bytes, n)| bytes[4..60_000].iter().all(|&b| b == n)));
        places.len()
    }

    #[test]
    fn buffers_that_are_back_are_used_again_and_no_others() {
        assert!(buffers(false) <= 4);
        assert!(buffers(true) > 10);
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
