//! The page that shows a run: pictures and tables.

use super::plot::{bytes, short};
use super::results::{Measured, Results};
use std::fmt::Write;
use std::path::{Path, PathBuf};

const STYLE: &str = "body{font:15px sans-serif;max-width:960px;margin:2em auto;padding:0 1em}\
table{border-collapse:collapse;margin:1em 0}td,th{padding:2px 12px;text-align:right;border-bottom:1px solid #ddd}\
img{max-width:100%}.good{color:#006030}.bad{color:#b03000}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Geometric mean of the ratios of all sizes.
fn mean_ratio(m: &Measured) -> Option<f64> {
    let ratios: Vec<f64> = m.sizes().into_iter().filter_map(|s| m.ratio(s)).collect();
    let n = ratios.len() as f64;
    (n > 0.0).then(|| (ratios.iter().map(|r| r.ln()).sum::<f64>() / n).exp())
}

fn cell(ratio: Option<f64>) -> String {
    ratio.map_or_else(
        || "<td>-</td>".into(),
        |r| format!("<td class={}>{r:.2}</td>", if r <= 1.0 { "good" } else { "bad" }),
    )
}

fn section(m: &Measured, dir: &Path) -> String {
    let (names, mut out) = (m.names(), String::new());
    let title = escape(&m.name);
    let _ = writeln!(out, "<h2 id=\"{title}\">{title}</h2>");
    let _ = writeln!(out, "<p>{} ranks, {} rounds, cores {}. Microseconds.</p>", m.np, m.count(), m.state());
    if dir.join(format!("{}.svg", m.name)).exists() {
        let _ = writeln!(out, "<img src=\"{title}.svg\" alt=\"{title}\">");
    }
    let _ = write!(out, "<table><tr><th>message</th>");
    for name in &names {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    let _ = writeln!(out, "<th>ratio</th></tr>");
    for size in m.sizes() {
        let _ = write!(out, "<tr><td>{}</td>", bytes(size));
        for name in &names {
            let figure = m.median(name, size).map_or_else(|| "-".into(), short);
            let _ = write!(out, "<td>{figure}</td>");
        }
        let _ = writeln!(out, "{}</tr>", cell(m.ratio(size)));
    }
    let _ = writeln!(out, "</table>");
    out
}

fn page(results: &Results, dir: &Path) -> String {
    let mut out = format!(
        "<!doctype html><meta charset=utf-8><title>rmpirun benchmarks</title><style>{STYLE}</style>\n"
    );
    let _ = writeln!(out, "<h1>Benchmarks</h1><p>{}, {}</p>", escape(&results.machine), date(results.at));
    let _ = writeln!(
        out,
        "<p>A ratio is our time divided by that of the fastest other in the same round, median of the rounds: below 1 \
         is ahead.</p><table><tr><th>benchmark</th><th>rounds</th><th>cores</th><th>geometric mean of ratios</th></tr>"
    );
    for m in &results.suites {
        let name = escape(&m.name);
        let (count, state, ratio) = (m.count(), m.state(), cell(mean_ratio(m)));
        let _ = writeln!(
            out,
            "<tr><td><a href=\"#{name}\">{name}</a></td><td>{count}</td><td>{state}</td>{ratio}</tr>"
        );
    }
    let _ = writeln!(out, "</table>");
    results.suites.iter().for_each(|m| out.push_str(&section(m, dir)));
    out
}

/// `2026-11-25` of seconds since 1970 (days of the proleptic Gregorian calendar, after Hinnant's algorithm).
fn date(at: u64) -> String {
    let days = at / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{}-{month:02}-{day:02}", era * 400 + year + u64::from(month <= 2))
}

/// Writes `DIR/report.html`.
pub(super) fn write(results: &Results, dir: &Path) -> Result<PathBuf, String> {
    let path = dir.join("report.html");
    std::fs::write(&path, page(results, dir)).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::results::{Figures, OURS, Round};
    use super::*;

    #[test]
    fn days_are_dates() {
        let days = [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_790_294_400, "2026-09-25")];
        days.iter().for_each(|(at, want)| assert_eq!(date(*at), *want));
    }

    #[test]
    fn the_page_has_every_figure() {
        let figures = [(OURS, 1.0), ("a<b", 4.0)]
            .map(|(n, us)| (n.to_owned(), Figures::from([(8, us), (64, 2.0 * us)])));
        let rounds = vec![Round { state: "near".into(), figures: figures.into() }];
        let suites = vec![Measured { name: "latency-shm".into(), mode: "latency".into(), np: 2, rounds }];
        let text = page(&Results { at: 0, machine: "one".into(), suites }, Path::new("/nonexistent"));
        for want in ["1970-01-01", "a&lt;b", "<td>4.00</td>", "<td class=good>0.25</td>", "64 B"] {
            assert!(text.contains(want), "{want}: {text}");
        }
    }
}
