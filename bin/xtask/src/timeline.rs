//! `cargo xtask timeline TRACE SVG`: a picture of a trace that `rmpirun --timeline` wrote: a row a host that was reached,
//! a row a rank, one for the job's own spans.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Width of the picture and of the names at its left, height of a row.
const WIDTH: f64 = 960.0;
const NAMES: f64 = 150.0;
const ROW: f64 = 22.0;
/// Launcher, hosts, ranks, failed ranks (Okabe and Ito, told apart with any colour vision).
const COLOURS: [&str; 4] = ["#6e6e6e", "#005aa0", "#008c64", "#d55e00"];

/// A bar: where it is drawn, in microseconds, and what it says.
#[derive(Debug, PartialEq)]
struct Bar {
    from: f64,
    long: f64,
    says: String,
}

/// Rows by process and thread of the trace, with their names.
type Rows = BTreeMap<(u64, u64), (String, Vec<Bar>)>;

/// Draws a trace.
///
/// # Errors
/// The file that cannot be read or written, or is no trace.
pub(crate) fn run(trace: &str, picture: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(trace).map_err(|e| format!("{trace}: {e}"))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| format!("{trace}: {e}"))?;
    let svg = draw(&rows(&json).ok_or_else(|| format!("{trace}: not a trace of rmpirun --timeline"))?);
    std::fs::write(picture, svg).map_err(|e| format!("{picture}: {e}"))
}

fn rows(json: &Value) -> Option<Rows> {
    let events = json.get("traceEvents").unwrap_or(json).as_array()?;
    let mut hosts: BTreeMap<u64, String> = BTreeMap::new();
    let mut rows = Rows::new();
    for event in events {
        let (pid, tid) = (event.get("pid")?.as_u64()?, event.get("tid")?.as_u64()?);
        let name = event.get("name")?.as_str()?;
        let given = || event.pointer("/args/name").and_then(Value::as_str).map(str::to_owned);
        match (event.get("ph")?.as_str()?, name) {
            ("M", "process_name") => drop(hosts.insert(pid, given()?)),
            ("M", "thread_name") => rows.entry((pid, tid)).or_default().0 = given()?,
            ("X", _) => rows.entry((pid, tid)).or_default().1.push(Bar {
                from: event.get("ts")?.as_f64()?,
                long: event.get("dur")?.as_f64()?,
                says: name.to_owned(),
            }),
            _ => {}
        }
    }
    for ((pid, tid), (name, bars)) in &mut rows {
        bars.sort_by(|a, b| b.long.total_cmp(&a.long));
        let host = hosts.get(pid).map_or("?", String::as_str);
        *name = match (*pid, *tid) {
            (_, 0) => host.to_owned(),
            (0, _) => name.clone(),
            _ => format!("{host} {name}"),
        };
    }
    rows.retain(|_, (_, bars)| !bars.is_empty());
    (!rows.is_empty()).then_some(rows)
}

fn draw(rows: &Rows) -> String {
    let bars = || rows.values().flat_map(|(_, bars)| bars);
    let end = bars().map(|b| b.from + b.long).fold(1.0, f64::max);
    let place = |at: f64| NAMES + at / end * (WIDTH - NAMES - 20.0);
    let all: usize = rows.iter().map(|((pid, tid), (_, bars))| lines(*pid, *tid, bars)).sum();
    let height = all as f64 * ROW + 40.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let step = step(end / 1e6);
    for i in 0..=(end / 1e6 / step) as u32 {
        let (x, at) = (place(f64::from(i) * step * 1e6), f64::from(i) * step);
        let foot = height - 24.0;
        let _ =
            writeln!(out, "<line x1=\"{x:.1}\" y1=\"8\" x2=\"{x:.1}\" y2=\"{foot}\" stroke=\"#dddddd\"/>");
        let y = height - 8.0;
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{at:.1} s</text>");
    }
    let mut y = 10.0;
    for ((pid, tid), (name, bars)) in rows {
        let _ = writeln!(out, "<text x=\"8\" y=\"{:.1}\">{}</text>", y + 14.0, escaped(name));
        let own = lines(*pid, *tid, bars) > 1;
        for (i, bar) in bars.iter().enumerate() {
            let top = y + if own { i as f64 * ROW } else { 0.0 };
            let failed = bar.says.starts_with("rank ") && !bar.says.ends_with("exit 0");
            let colour = COLOURS[if failed { 3 } else { usize::from(*tid > 0) + usize::from(*pid > 0) }];
            let (x, wide) = (place(bar.from), (place(bar.from + bar.long) - place(bar.from)).max(1.5));
            let (says, high) = (escaped(&bar.says), ROW - 5.0);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{high}\" fill=\"{colour}\"/>"
            );
            let said = format!("{says}, {:.0} ms", bar.long / 1e3);
            // Beside a bar that is too short for its words.
            let inside = wide > said.len() as f64 * 6.5 + 8.0;
            let (at, ink) = if inside { (x + 4.0, "white") } else { (x + wide + 4.0, "black") };
            let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" fill=\"{ink}\">{said}</text>", top + 13.0);
        }
        y += lines(*pid, *tid, bars) as f64 * ROW;
    }
    out + "</svg>\n"
}

/// The launcher's own spans overlap: each has a line.
fn lines(pid: u64, tid: u64, bars: &[Bar]) -> usize {
    if (pid, tid) == (0, 0) { bars.len() } else { 1 }
}

/// Seconds between two marks, so that there are at most ten.
fn step(seconds: f64) -> f64 {
    let mut step = 0.1;
    while seconds / step > 10.0 {
        step *= 2.0;
    }
    step
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_becomes_rows_and_a_picture() {
        let json = serde_json::json!([
            {"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "rmpirun"}},
            {"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "n1"}},
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "rank 0"}},
            {"name": "job", "ph": "X", "pid": 0, "tid": 0, "ts": 0, "dur": 2_000_000},
            {"name": "reach all hosts", "ph": "X", "pid": 0, "tid": 0, "ts": 0, "dur": 500_000},
            {"name": "rank 0: exit 3", "ph": "X", "pid": 1, "tid": 1, "ts": 600_000, "dur": 900_000},
        ]);
        let rows = rows(&json).unwrap();
        let names: Vec<&str> = rows.values().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["rmpirun", "n1 rank 0"]);
        let svg = draw(&rows);
        assert!(svg.contains("rank 0: exit 3, 900 ms") && svg.contains(COLOURS[3]), "{svg}");
        assert!(super::rows(&serde_json::json!({"a": 1})).is_none());
        assert_eq!((step(0.5), step(1.4), step(30.0)), (0.1, 0.2, 3.2));
    }
}
