//! How a chunk of a rank's output looks on the console: untouched, or each line with its tag. Pure but for the
//! time, which the caller gives. A chunk is whole lines, a piece of an overlong line, or a last line without
//! newline; so one tag a line needs no state between chunks.

use rmpi_types::ProcId;
use rmpi_types::spec::Tag;
use rmpi_wire::msg::Stream;
use std::io::Write as _;

/// What is put before lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) tag: Tag,
    pub(crate) timestamp: bool,
}

/// The moment lines are printed at, in the two forms formats use.
pub(crate) struct Now {
    pub(crate) ctime: String,
    pub(crate) seconds: f64,
}

impl Format {
    /// Whether bytes pass through untouched.
    pub(crate) fn raw(self) -> bool {
        self.tag == Tag::None && !self.timestamp
    }

    /// Appends `bytes` of `stream` to `out`, each line tagged; a missing last newline is added when tagging.
    pub(crate) fn put(
        self,
        out: &mut Vec<u8>,
        proc: ProcId,
        host: &str,
        stream: Stream,
        bytes: &[u8],
        now: &Now,
    ) {
        if self.raw() {
            out.extend_from_slice(bytes);
            return;
        }
        let tag = self.line_start(proc, stream, now);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if self.tag == Tag::Json {
                put_json(out, proc, host, stream, line, now);
            } else {
                out.extend_from_slice(&tag);
                out.extend_from_slice(line);
            }
            out.push(b'\n');
        }
    }

    fn line_start(self, proc: ProcId, stream: Stream, now: &Now) -> Vec<u8> {
        let mut tag = Vec::with_capacity(48);
        let (job, rank, stream) = (proc.ns.0 + 1, proc.rank, name(stream));
        let time = if self.timestamp { now.ctime.as_str() } else { "" };
        let (open, close) = if self.timestamp { ("[", "]") } else { ("", "") };
        let written = match self.tag {
            Tag::None => write!(tag, "{time}<{stream}>:"),
            Tag::OpenMpi4 => write!(tag, "{time}[{job},{rank}]<{stream}>:"),
            Tag::OpenMpi5 => write!(tag, "{open}{time}{close}[{job},{rank}]<{stream}>: "),
            Tag::OpenMpi5Stream => write!(tag, "{open}{time}{close}<{stream}>: "),
            Tag::Hydra => write!(tag, "{time}[{rank}] "),
            Tag::Json => Ok(()),
        };
        debug_assert!(written.is_ok(), "a Vec takes every write");
        tag
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn put_json(out: &mut Vec<u8>, proc: ProcId, host: &str, stream: Stream, line: &[u8], now: &Now) {
    let start = format!("{{\"t\":{:.6},\"rank\":{},\"host\":", now.seconds, proc.rank);
    out.extend_from_slice(start.as_bytes());
    put_json_string(out, host.as_bytes());
    out.extend_from_slice(b",\"stream\":\"");
    out.extend_from_slice(name(stream).as_bytes());
    out.extend_from_slice(b"\",\"line\":");
    put_json_string(out, line);
    out.push(b'}');
}

/// A JSON string (RFC 8259 section 7); bytes that are not UTF-8 become U+FFFD.
fn put_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let text = String::from_utf8_lossy(text);
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\r' => out.extend_from_slice(b"\\r"),
            c if u32::from(c) < 0x20 => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tag: Tag, timestamp: bool, bytes: &[u8]) -> String {
        let now = Now { ctime: "Sun Nov 22 18:55:21 2026".into(), seconds: 1.5 };
        let mut out = Vec::new();
        Format { tag, timestamp }.put(&mut out, ProcId::first(7), "n\"1", Stream::Stderr, bytes, &now);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn exact_formats() {
        for (tag, timestamp, text) in [
            (Tag::None, false, "a\nb"),
            (Tag::None, true, "Sun Nov 22 18:55:21 2026<stderr>:a\nSun Nov 22 18:55:21 2026<stderr>:b\n"),
            (Tag::OpenMpi4, false, "[1,7]<stderr>:a\n[1,7]<stderr>:b\n"),
            (Tag::OpenMpi5, false, "[1,7]<stderr>: a\n[1,7]<stderr>: b\n"),
            (
                Tag::OpenMpi5Stream,
                true,
                "[Sun Nov 22 18:55:21 2026]<stderr>: a\n[Sun Nov 22 18:55:21 2026]<stderr>: b\n",
            ),
            (Tag::Hydra, false, "[7] a\n[7] b\n"),
            (
                Tag::OpenMpi4,
                true,
                "Sun Nov 22 18:55:21 2026[1,7]<stderr>:a\nSun Nov 22 18:55:21 2026[1,7]<stderr>:b\n",
            ),
        ] {
            assert_eq!(shown(tag, timestamp, b"a\nb"), text);
        }
    }

    #[test]
    fn empty_lines_have_a_tag_and_empty_chunks_have_none() {
        assert_eq!(shown(Tag::Hydra, false, b"\n\nx\n"), "[7] \n[7] \n[7] x\n");
        assert_eq!(shown(Tag::Hydra, false, b""), "");
    }

    #[test]
    fn json_is_escaped() {
        assert_eq!(
            shown(Tag::Json, false, b"a\"\\\t\x01\xff\n"),
            "{\"t\":1.500000,\"rank\":7,\"host\":\"n\\\"1\",\"stream\":\"stderr\",\
             \"line\":\"a\\\"\\\\\\t\\u0001\u{fffd}\"}\n"
        );
    }
}
