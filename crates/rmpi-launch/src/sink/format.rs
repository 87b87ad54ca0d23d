//! How a chunk of a rank's output looks on the console: untouched, or each line with its tag. Pure but for the
//! time, which the caller gives. A chunk is whole lines, a piece of an overlong line, or a last line without
//! newline; so one tag a line needs no state between chunks.

use super::places::Place;
use crate::json::Object;
use rmpi_types::ProcId;
use rmpi_types::spec::{Piece, Tag};
use rmpi_wire::msg::Stream;
use std::io::Write as _;

/// What is put before lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) tag: Tag,
    pub(crate) timestamp: bool,
}

/// The moment lines are printed at, in the two forms formats use.
#[derive(Default)]
pub(crate) struct Now {
    pub(crate) ctime: String,
    pub(crate) seconds: f64,
}

impl Format {
    /// Whether bytes pass through untouched.
    pub(crate) fn raw(&self) -> bool {
        self.tag == Tag::None && !self.timestamp
    }

    /// Whether a line begins with the time in words.
    pub(crate) fn timed(&self) -> bool {
        self.timestamp || matches!(&self.tag, Tag::Pattern(pieces) if pieces.contains(&Piece::Time))
    }

    /// Appends `bytes` of `stream` to `out`, each line tagged; a missing last newline is added when tagging.
    pub(crate) fn put(
        &self,
        out: &mut Vec<u8>,
        proc: ProcId,
        place: &Place,
        stream: Stream,
        bytes: &[u8],
        now: &Now,
    ) {
        if self.raw() {
            out.extend_from_slice(bytes);
            return;
        }
        if self.tag == Tag::Xml {
            return put_xml(out, proc, stream, bytes);
        }
        let tag = self.line_start(proc, place, stream, now);
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if self.tag == Tag::Json {
                put_json(out, proc, &place.host, stream, line, now);
            } else {
                out.extend_from_slice(&tag);
                out.extend_from_slice(line);
            }
            out.push(b'\n');
        }
    }

    fn line_start(&self, proc: ProcId, place: &Place, stream: Stream, now: &Now) -> Vec<u8> {
        let mut tag = Vec::with_capacity(48);
        let (job, rank, stream) = (proc.ns.0 + 1, proc.rank, name(stream));
        let time = if self.timestamp { now.ctime.as_str() } else { "" };
        let (open, close) = if self.timestamp { ("[", "]") } else { ("", "") };
        let (space, host, pid) = (&place.namespace, &place.host, place.pid);
        let written = match &self.tag {
            Tag::None => write!(tag, "{time}<{stream}>:"),
            Tag::OpenMpi4 => write!(tag, "{time}[{job},{rank}]<{stream}>:"),
            Tag::OpenMpi5 => write!(tag, "{open}{time}{close}[{job},{rank}]<{stream}>: "),
            Tag::OpenMpi5Stream => write!(tag, "{open}{time}{close}<{stream}>: "),
            Tag::Hydra => write!(tag, "{time}[{rank}] "),
            Tag::OpenMpi5Fullname => write!(tag, "{open}{time}{close}[{space},{rank}]<{stream}>: "),
            Tag::OpenMpi5Detailed => {
                write!(tag, "{open}{time}{close}[{space},{rank}][{host}:{pid}]<{stream}>: ")
            }
            Tag::Horovod => write!(tag, "{time}[{rank}]<{stream}>:"),
            Tag::Torch(role) => write!(tag, "{time}[{role}{}]:", place.local),
            Tag::Pattern(pieces) => {
                let written = write!(tag, "{time}");
                Piece::fill(pieces, &place.writer(proc), &now.ctime, &mut tag);
                written
            }
            Tag::Json | Tag::Xml => Ok(()),
        };
        debug_assert!(written.is_ok(), "a Vec takes every write");
        tag
    }
}

/// Open MPI's XML: one element a line, its newline as a character reference.
fn put_xml(out: &mut Vec<u8>, proc: ProcId, stream: Stream, bytes: &[u8]) {
    let stream = name(stream);
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        out.extend_from_slice(format!("<{stream} rank=\"{}\">", proc.rank).as_bytes());
        for c in String::from_utf8_lossy(line).chars() {
            match c {
                '&' => out.extend_from_slice(b"&amp;"),
                '<' => out.extend_from_slice(b"&lt;"),
                '>' => out.extend_from_slice(b"&gt;"),
                c if c.is_ascii_control() => {
                    out.extend_from_slice(format!("&#{:03};", u32::from(c)).as_bytes())
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend_from_slice(format!("</{stream}>\n").as_bytes());
    }
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// Bytes that are not UTF-8 become U+FFFD.
fn put_json(out: &mut Vec<u8>, proc: ProcId, host: &str, stream: Stream, line: &[u8], now: &Now) {
    let object = Object::new().raw("t", format_args!("{:.6}", now.seconds)).raw("rank", proc.rank);
    let object = object.text("host", host).text("stream", name(stream));
    out.extend_from_slice(object.text("line", &String::from_utf8_lossy(line)).end().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(tag: Tag, timestamp: bool, bytes: &[u8]) -> String {
        let now = Now { ctime: "Sun Nov 22 18:55:21 2026".into(), seconds: 1.5 };
        let place = Place { host: "n\"1".into(), node: 2, local: 3, pid: 99, namespace: "ns@1".into() };
        let mut out = Vec::new();
        let format = Format { tag, timestamp };
        format.put(&mut out, ProcId::first(7), &place, Stream::Stderr, bytes, &now);
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
            (Tag::OpenMpi5Fullname, false, "[ns@1,7]<stderr>: a\n[ns@1,7]<stderr>: b\n"),
            (Tag::OpenMpi5Detailed, false, "[ns@1,7][n\"1:99]<stderr>: a\n[ns@1,7][n\"1:99]<stderr>: b\n"),
            (Tag::Horovod, false, "[7]<stderr>:a\n[7]<stderr>:b\n"),
            (Tag::Torch("default".into()), false, "[default3]:a\n[default3]:b\n"),
            (
                Tag::Pattern(vec![
                    Piece::Rank,
                    Piece::Text(".".into()),
                    Piece::Group,
                    Piece::Node,
                    Piece::Time,
                ]),
                false,
                "7.02Sun Nov 22 18:55:21 2026a\n7.02Sun Nov 22 18:55:21 2026b\n",
            ),
            (Tag::Xml, false, "<stderr rank=\"7\">a&#010;</stderr>\n<stderr rank=\"7\">b</stderr>\n"),
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
