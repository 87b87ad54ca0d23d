//! Who last wrote and since then read each byte of a buffer, by ranges: from this the builder knows which
//! earlier steps a step must wait for. Ranges are cut where steps' regions begin and end and never merged.

use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Clone, Debug, Default)]
struct Span {
    end: usize,
    writer: Option<u32>,
    readers: Vec<u32>,
}

/// The history of one buffer.
#[derive(Debug, Default)]
pub(crate) struct Hazards {
    spans: BTreeMap<usize, Span>,
}

impl Hazards {
    /// Step `step` reads `bytes`: it must wait for those that wrote them.
    pub(crate) fn read(&mut self, step: u32, bytes: Range<usize>, waits: &mut Vec<u32>) {
        self.each(bytes, |span| {
            waits.extend(span.writer);
            span.readers.push(step);
        });
    }

    /// Step `step` writes `bytes`: it must wait for those that wrote or read them.
    pub(crate) fn write(&mut self, step: u32, bytes: Range<usize>, waits: &mut Vec<u32>) {
        self.each(bytes, |span| {
            waits.extend(span.writer);
            waits.append(&mut span.readers);
            span.writer = Some(step);
        });
    }

    fn each(&mut self, bytes: Range<usize>, mut visit: impl FnMut(&mut Span)) {
        if bytes.is_empty() {
            return;
        }
        self.cut(bytes.start);
        self.cut(bytes.end);
        let mut gaps = Vec::new();
        let mut at = bytes.start;
        for (&start, span) in self.spans.range_mut(bytes.clone()) {
            if at < start {
                gaps.push(at..start);
            }
            at = span.end;
            visit(span);
        }
        if at < bytes.end {
            gaps.push(at..bytes.end);
        }
        for gap in gaps {
            let mut span = Span { end: gap.end, ..Span::default() };
            visit(&mut span);
            self.spans.insert(gap.start, span);
        }
    }

    /// Makes `at` a border.
    fn cut(&mut self, at: usize) {
        if let Some((_, span)) = self.spans.range_mut(..at).next_back()
            && span.end > at
        {
            let tail = span.clone();
            span.end = at;
            self.spans.insert(at, tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(h: &mut Hazards, step: u32, bytes: Range<usize>) -> Vec<u32> {
        let mut waits = Vec::new();
        h.read(step, bytes, &mut waits);
        waits
    }

    fn write(h: &mut Hazards, step: u32, bytes: Range<usize>) -> Vec<u32> {
        let mut waits = Vec::new();
        h.write(step, bytes, &mut waits);
        waits.sort_unstable();
        waits.dedup();
        waits
    }

    #[test]
    fn only_overlapping_bytes_make_steps_wait() {
        let mut h = Hazards::default();
        assert!(write(&mut h, 0, 0..10).is_empty());
        assert!(write(&mut h, 1, 20..30).is_empty());
        assert_eq!(read(&mut h, 2, 5..25), [0, 1]);
        assert!(read(&mut h, 3, 10..20).is_empty());
        assert_eq!(write(&mut h, 4, 12..13), [2, 3]);
        assert_eq!(write(&mut h, 5, 0..30), [0, 1, 2, 3, 4]);
        assert_eq!(read(&mut h, 6, 29..31), [5]);
        assert!(read(&mut h, 7, 9..9).is_empty());
    }
}
