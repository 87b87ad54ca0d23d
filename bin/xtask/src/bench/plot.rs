//! One picture a benchmark, PNG and SVG: both axes logarithmic, ours against the others.

use super::results::{Measured, OURS};
use crate::stage::say;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const SIZE: (u32, u32) = (900, 560);
/// Colours that people with any colour vision tell apart (Okabe and Ito); ours first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 90, 160),
    RGBColor(213, 94, 0),
    RGBColor(0, 140, 100),
    RGBColor(190, 100, 160),
    RGBColor(200, 140, 0),
    RGBColor(80, 170, 225),
    RGBColor(110, 110, 110),
];

/// `1 B`, `64 KiB`, `4 MiB`.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{} KiB", n / 1024),
        _ => format!("{} MiB", n / 1_048_576),
    }
}

/// A figure with three digits.
pub(super) fn short(x: f64) -> String {
    match x {
        x if x >= 99.95 => format!("{x:.0}"),
        x if x >= 9.995 => format!("{x:.1}"),
        x if x >= 0.0995 => format!("{x:.2}"),
        x => format!("{x:.3}"),
    }
}

/// A place on an axis: the arithmetic that found it leaves its last digits wrong.
fn plain(y: f64) -> String {
    let text = format!("{y:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A font of the system for words in the pictures, registered once.
fn font() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let Some(path) = find_font(Path::new("/usr/share/fonts")) else {
            say("xtask: skipped: pictures (no sans-serif font below /usr/share/fonts; Debian: fonts-dejavu-core)");
            return false;
        };
        // Pictures need it to the end of the program.
        let data: &'static [u8] = std::fs::read(&path).unwrap_or_default().leak();
        plotters::style::register_font("sans-serif", FontStyle::Normal, data).is_ok()
    })
}

fn find_font(dir: &Path) -> Option<PathBuf> {
    const NAMES: [&str; 4] =
        ["DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "FreeSans.ttf"];
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() { folders.push(path) } else { files.push(path) }
    }
    let named = |p: &PathBuf| NAMES.iter().any(|n| p.ends_with(n));
    files.into_iter().find(named).or_else(|| folders.iter().find_map(|f| find_font(f)))
}

/// Draws `DIR/NAME.svg` and `.png`; nothing when there are fewer than two sizes to draw a line through.
pub(super) fn draw(m: &Measured, dir: &Path) -> Result<(), String> {
    if m.sizes().len() < 2 || !font() {
        return Ok(());
    }
    let file = |end: &str| dir.join(format!("{}.{end}", m.name));
    let failed = |e: String| format!("{}: {e}", m.name);
    let svg = file("svg");
    chart(m, &SVGBackend::new(&svg, SIZE).into_drawing_area()).map_err(failed)?;
    let png = file("png");
    chart(m, &BitMapBackend::new(&png, SIZE).into_drawing_area()).map_err(failed)
}

/// Whether a mode is shown as bytes a second; else as microseconds.
fn rate(mode: &str) -> bool {
    mode == "bw"
}

fn series(m: &Measured, name: &str) -> Vec<(f64, f64)> {
    let value = |size: u64, us: f64| if rate(&m.mode) { size as f64 / us / 1e3 } else { us };
    m.sizes().into_iter().filter_map(|s| Some((s as f64, value(s, m.median(name, s)?)))).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are whole numbers")]
fn chart<DB: DrawingBackend>(m: &Measured, area: &DrawingArea<DB, Shift>) -> Result<(), String> {
    let text = |e: DrawingAreaErrorKind<DB::ErrorType>| e.to_string();
    let names = m.names();
    let lines: Vec<Vec<(f64, f64)>> = names.iter().map(|n| series(m, n)).collect();
    let points = || lines.iter().flatten();
    let edge =
        |f: fn(f64, f64) -> f64, start: f64, of: fn(&(f64, f64)) -> f64| points().map(of).fold(start, f);
    let (left, right) = (edge(f64::min, f64::MAX, |p| p.0), edge(f64::max, 0.0, |p| p.0));
    let (low, high) = (edge(f64::min, f64::MAX, |p| p.1), edge(f64::max, 0.0, |p| p.1));
    area.fill(&WHITE).map_err(text)?;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}, {} ranks, cores {}", m.name, m.np, m.state()), ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(
            (left / 1.3..right * 1.3).log_scale().base(2.0),
            (low / 1.4..high * 1.4).log_scale(),
        )
        .map_err(text)?;
    chart
        .configure_mesh()
        .x_desc("message")
        .y_desc(if rate(&m.mode) { "GB/s" } else { "microseconds" })
        .x_labels(14)
        .x_label_formatter(&|x| bytes(x.round() as u64))
        .y_label_formatter(&|y| plain(*y))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .bold_line_style(BLACK.mix(0.18))
        .light_line_style(BLACK.mix(0.06))
        .draw()
        .map_err(text)?;
    for (i, (name, line)) in names.iter().zip(&lines).enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let width = if name == OURS { 3 } else { 2 };
        let style = colour.stroke_width(width);
        chart
            .draw_series(LineSeries::new(line.iter().copied(), style))
            .map_err(text)?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        let dots = line.iter().map(|&p| Circle::new(p, width + 1, colour.filled()));
        chart.draw_series(dots).map_err(text)?;
    }
    // Once more, to lie on top.
    if let Some((_, ours)) = names.iter().zip(&lines).find(|(n, _)| *n == OURS) {
        let line = LineSeries::new(ours.iter().copied(), COLOURS[0].stroke_width(3));
        chart.draw_series(line).map_err(text)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 16))
        .draw()
        .map_err(text)?;
    area.present().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_figures_are_short() {
        let sizes = [1, 512, 1024, 65_536, 4 << 20].map(bytes);
        assert_eq!(sizes, ["1 B", "512 B", "1 KiB", "64 KiB", "4 MiB"]);
        assert_eq!(
            [0.0123, 0.456, 7.891, 45.67, 1234.5].map(short),
            ["0.012", "0.46", "7.89", "45.7", "1234"]
        );
    }
}
