//! The ratios as bars, in SVG: longer is faster, the line in the middle is as fast.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Report;
use super::table::times;
use crate::cli::stage::interrupt::Failure;

const WIDTH: u32 = 760;
/// Where the bars begin and end.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 690.0;
/// The least and the largest ratio that are shown: the scale is logarithmic.
const SCALE: (f64, f64) = (0.01, 100.0);
const BAR: u32 = 9;
const ROW: u32 = 26;

/// Colours follow the reader's, light or dark.
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.small { font-size: 11px; fill: #57606a }
.heading { font-weight: 600 }
.ground { fill: #ffffff }
.grid { stroke: #d0d7de }
.one { stroke: #57606a }
.plain { fill: #2a78b8 }
.bindfs { fill: #d9822b }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .ground { fill: #0d1117 }
  .grid { stroke: #30363d }
  .one { stroke: #9198a1 }
  .plain { fill: #58a6e0 }
  .bindfs { fill: #f0a050 }
}
";

/// The file that a chart is to be written to. One that was not there before is removed again if
/// nothing is written.
#[derive(Debug)]
pub struct ChartFile {
    path: PathBuf,
    file: File,
    is_empty: bool,
}

impl ChartFile {
    /// Opens or makes it.
    ///
    /// # Errors
    /// A sentence that names it.
    pub fn open(path: &Path) -> Result<ChartFile, Failure> {
        let is_new = !path.exists();
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(path);
        Ok(ChartFile {
            path: path.to_owned(),
            file: file.map_err(|error| Failure::on("write", path, error))?,
            is_empty: is_new,
        })
    }

    /// Replaces what is in it.
    ///
    /// # Errors
    /// A sentence that names it.
    pub fn write(mut self, svg: &str) -> Result<(), Failure> {
        // A device has nothing to cut off.
        let is_file = self.file.metadata().is_ok_and(|file| file.is_file());
        let cut = if is_file {
            self.file.set_len(0)
        } else {
            Ok(())
        };
        cut.and_then(|()| self.file.write_all(svg.as_bytes()))
            .map_err(|error| Failure::on("write", &self.path, error))?;
        self.is_empty = false;
        Ok(())
    }
}

impl Drop for ChartFile {
    fn drop(&mut self) {
        if self.is_empty {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The chart.
pub fn svg(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 84;
    let mut before = (usize::MAX, "");
    for row in &report.measures {
        let Some(ours) = row.subjects.get("dotlockfs") else {
            continue;
        };
        if row.place != before.0 && report.places.len() > 1 {
            let ground = &report.places[row.place];
            let place = format!("{} ({})", ground.directory, ground.file_system);
            y += 10;
            text(&mut body, "heading", 16.0, y, "start", &place);
            y += 20;
        }
        if (row.place, row.heading.as_str()) != before {
            before = (row.place, &row.heading);
            y += 18;
            text(&mut body, "heading", 16.0, y, "start", &row.heading);
            y += 6;
        }
        text(&mut body, "name", 28.0, y + 14, "start", &row.name);
        for (class, spread, top) in [
            ("plain", ours.to_plain, y + 2),
            ("bindfs", ours.to_bindfs, y + 3 + BAR),
        ] {
            if let Some(spread) = spread {
                bar(&mut body, class, spread.median, top);
            }
        }
        y += ROW;
    }
    let height = y + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>dotlockfs in parts of the plain directory and of bindfs</title>\n\
         <style>\n{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n"
    );
    let host = &report.host;
    let title = format!("dotlockfs {}: times as fast as", host.version);
    text(&mut svg, "heading", 16.0, 26, "start", &title);
    for (class, name, x) in [
        ("plain", "the plain directory", LEFT + 40.0),
        ("bindfs", "bindfs", LEFT + 190.0),
    ] {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"17\" width=\"10\" height=\"10\" rx=\"2\"/>"
        );
        text(&mut svg, "name", x + 16.0, 26, "start", name);
    }
    let kind = report
        .places
        .first()
        .map_or("", |ground| &ground.file_system);
    let ran_on = format!(
        "Linux {}, {kind}, {} processors; medians of {} rounds of one run",
        host.kernel, host.processors, report.rounds
    );
    text(&mut svg, "small", 16.0, 46, "start", &ran_on);
    let mut mark = SCALE.0;
    while mark <= SCALE.1 * 1.001 {
        let (x, class) = (at(mark), if mark == 1.0 { "one" } else { "grid" });
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"76\" y2=\"{}\"/>",
            y + 4
        );
        let label = format!("{mark}\u{d7}");
        text(&mut svg, "small", x, 70, "middle", &label);
        // Not multiplied by itself, which would miss 1.
        mark = 10f64.powi(mark.log10().round() as i32 + 1);
    }
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

fn at(ratio: f64) -> f64 {
    let (least, most) = (SCALE.0.log10(), SCALE.1.log10());
    let part = (ratio.max(SCALE.0).min(SCALE.1).log10() - least) / (most - least);
    LEFT + (RIGHT - LEFT) * part
}

fn bar(svg: &mut String, class: &str, ratio: f64, top: u32) {
    let (one, end) = (at(1.0), at(ratio));
    let (x, width) = (one.min(end), (end - one).abs().max(1.0));
    let _ = writeln!(
        svg,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
    );
    let (x, anchor) = if end < one {
        (end - 4.0, "end")
    } else {
        (end + 4.0, "start")
    };
    text(svg, "small", x, top + BAR, anchor, &times(ratio));
}

fn text(svg: &mut String, class: &str, x: f64, y: u32, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

/// XML text of any words: what it does not allow, control characters, is replaced.
fn escape(words: &str) -> String {
    let mut escaped = String::new();
    for c in words.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_directories_do_no_harm() {
        assert_eq!(escape("<a & \"b\">\u{1}"), "&lt;a &amp; \"b\"&gt;\u{fffd}");
    }

    #[test]
    fn as_fast_is_in_the_middle_and_nothing_leaves_the_scale() {
        assert!((at(1.0) - f64::midpoint(LEFT, RIGHT)).abs() < 0.01);
        assert_eq!((at(0.0), at(f64::INFINITY)), (LEFT, RIGHT));
    }
}
