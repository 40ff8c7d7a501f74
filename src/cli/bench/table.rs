//! The report as text, 80 columns wide.

use super::Report;
use super::figures::{Figures, Row, Spread};
use super::host::Ground;
use crate::config::explain::{hang, wrap};

const WIDTH: usize = 80;

/// What the columns mean.
const MEANING: &str = "\
Medians over the rounds. \"x plain\" and \"x bindfs\": dotlockfs in parts of these, measured in the \
same round; the median, and the least..the most. Only such ratios mean something: the figures \
themselves depend on what the machine does besides.

Appends: \"held\" writers keep the file open, \"open\" ones open and close it for each record. With \
held, plain and bindfs call fsync as often as dotlockfs makes records durable by itself: after each \
record (ack = \"write\"), or once at the end (\"close\"). With open, they do not wait for the disk at \
all; dotlockfs does.";

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut text = head(report);
    for (number, ground) in report.places.iter().enumerate() {
        text.push('\n');
        text.push_str(&hang(&place_line(ground), 0, 2));
        text.push_str(&place(report, number));
    }
    text.push_str(&records(report));
    if !report.measures.is_empty() {
        text.push('\n');
        text.push_str(&wrap(MEANING, WIDTH));
        text.push('\n');
    }
    text
}

fn head(report: &Report) -> String {
    let host = &report.host;
    let bindfs = match &host.bindfs {
        Some(version) => format!("bindfs {version} by its defaults"),
        None => "bindfs is not installed".into(),
    };
    let role = match &report.role {
        Some(role) => format!(", host {role} of {}", report.hosts.unwrap_or(1)),
        None => String::new(),
    };
    let user = if host.root { "as root" } else { "not as root" };
    let line = format!(
        "dotlockfs {} on Linux {}, {} processors, {user}{role}; {bindfs}; {} rounds",
        host.version, host.kernel, host.processors, report.rounds
    );
    hang(&line, 0, 2)
}

fn place_line(ground: &Ground) -> String {
    let passthrough = match ground.passthrough {
        Some(true) => "; unguarded files: passthrough",
        Some(false) => "; unguarded files: by the daemon, no passthrough",
        None => "",
    };
    format!(
        "{}: {} ({}){passthrough}",
        ground.directory,
        ground.file_system,
        // A list of many options may be broken between them.
        ground.mount_options.replace(',', ", ")
    )
}

fn place(report: &Report, number: usize) -> String {
    let rows: Vec<&Row> = report
        .measures
        .iter()
        .filter(|row| row.place == number)
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&line(
            "",
            ["plain", "dotlockfs", "bindfs", "x plain", "x bindfs"].map(String::from),
        ));
    }
    let mut heading = "";
    for row in &rows {
        if row.heading != heading {
            heading = &row.heading;
            text.push_str(&format!("{heading}\n"));
        }
        text.push_str(&figures(row, "dotlockfs", &row.name));
        if row.subjects.contains_key("nopassthrough") {
            text.push_str(&figures(row, "nopassthrough", "  nopassthrough"));
        }
    }
    text.push_str(&from_disk(&rows));
    text.push_str(&cpu(&rows));
    for memory in report.memory.iter().filter(|memory| memory.place == number) {
        text.push_str(&format!(
            "memory of {}: {:.0} bytes for each of {} files and directories\n",
            memory.subject, memory.bytes_per_inode, memory.inodes
        ));
    }
    for idle in report.idle.iter().filter(|idle| idle.place == number) {
        text.push_str(&format!(
            "idle: woken {} times in {:.0} s, {:.0} s after the last append\n",
            idle.woken, idle.seconds, idle.after_seconds
        ));
    }
    text
}

fn figures(row: &Row, subject: &str, name: &str) -> String {
    let of = |name: &str| row.subjects.get(name);
    let rate = |figures: Option<&Figures>| {
        figures.map_or("-".into(), |figures| short(figures.rate.median))
    };
    let ours = of(subject);
    let to = |spread: Option<Spread>| spread.map_or("-".into(), ratio);
    line(
        name,
        [
            rate(of("plain")),
            rate(ours),
            rate(of("bindfs")),
            to(ours.and_then(|figures| figures.to_plain)),
            to(ours.and_then(|figures| figures.to_bindfs)),
        ],
    )
}

fn line(name: &str, [plain, ours, bindfs, to_plain, to_bindfs]: [String; 5]) -> String {
    let name = if name.is_empty() {
        String::new()
    } else {
        format!("  {name}")
    };
    let line = format!("{name:<18}{plain:>7}{ours:>10}{bindfs:>7}{to_plain:>19}{to_bindfs:>19}");
    format!("{}\n", line.trim_end())
}

/// Where what was read came from.
fn from_disk(rows: &[&Row]) -> String {
    let source = |name: &str| {
        let row = rows.iter().find(|row| row.name == name)?;
        let from_disk = row.subjects.get("dotlockfs")?.from_disk?;
        let from = if from_disk { "the disk" } else { "memory" };
        Some(format!("\"{name}\" from {from}"))
    };
    let sources: Vec<String> = ["read", "read again"]
        .iter()
        .filter_map(|name| source(name))
        .collect();
    match sources.is_empty() {
        true => String::new(),
        false => format!("The large file came: {}.\n", sources.join(", ")),
    }
}

/// What daemons use of processors; two to a line.
fn cpu(rows: &[&Row]) -> String {
    let mut cells = Vec::new();
    let mut text = String::new();
    let flush = |cells: &mut Vec<String>, text: &mut String| {
        for pair in cells.chunks(2) {
            text.push_str(&format!("{}\n", pair.join("    ").trim_end()));
        }
        cells.clear();
    };
    let mut heading = "";
    for row in rows {
        let of = |subject: &str| row.subjects.get(subject)?.cpu_microseconds;
        if of("dotlockfs").is_none() {
            continue;
        }
        if row.heading != heading {
            flush(&mut cells, &mut text);
            heading = &row.heading;
            let what = heading.rsplit_once(", ").map_or(heading, |(what, _)| what);
            text.push_str(&format!("{what}\n"));
        }
        let shown = |cpu: Option<f64>| cpu.map_or("-".into(), short);
        let cell = |name: &str, subject: &str| {
            let name = format!("  {name}");
            format!(
                "{name:<18}{:>9}{:>9}",
                shown(of(subject)),
                shown(of("bindfs"))
            )
        };
        cells.push(cell(&row.name, "dotlockfs"));
    }
    flush(&mut cells, &mut text);
    if text.is_empty() {
        return text;
    }
    let columns = format!("{:<18}{:>9}{:>9}", "", "dotlockfs", "bindfs");
    format!(
        "\nprocessor time of the daemon, microseconds for each record, MiB, read, file\n{columns}    {columns}\n{text}"
    )
}

fn records(report: &Report) -> String {
    let mut text = String::new();
    for (subject, records) in &report.records {
        let kept = match records.are_kept() {
            true => "all kept: none lost, torn or doubled".to_owned(),
            false => format!(
                "{} lost, {} torn, {} doubled, {} files not in order",
                records.lost, records.torn, records.doubled, records.disordered_files
            ),
        };
        text.push_str(&format!(
            "{subject}: {} records appended, {kept}\n",
            records.appended
        ));
    }
    if !text.is_empty() {
        text.insert(0, '\n');
    }
    text
}

/// A figure of three digits, in 6 columns; thousands are k.
pub fn short(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{:.2}M", value / 1e6),
        value if value >= 99_950.0 => format!("{:.0}k", value / 1e3),
        value if value >= 9_999.5 => format!("{:.1}k", value / 1e3),
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A ratio.
pub fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio < 0.0995 => format!("{ratio:.3}"),
        ratio => short(ratio),
    }
}

fn ratio(spread: Spread) -> String {
    format!(
        "{} {}..{}",
        times(spread.median),
        times(spread.least),
        times(spread.most)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_they_need() {
        let figures = [
            0.034, 1.0, 9.994, 9.996, 99.96, 9999.0, 12_345.0, 123_456.0, 1e7,
        ];
        let expected = [
            "0.03", "1.00", "9.99", "10.0", "100", "9999", "12.3k", "123k", "10.00M",
        ];
        assert_eq!(figures.map(short), expected);
    }

    #[test]
    fn a_line_is_not_wider_than_a_terminal() {
        let widest = ratio(Spread {
            median: 0.0123,
            least: 0.0111,
            most: 12_345.0,
        });
        let line = line(
            "8 writers, held",
            ["1".into(), "2".into(), "3".into(), widest.clone(), widest],
        );
        assert!(line.len() <= WIDTH + 1, "{line}");
    }
}
