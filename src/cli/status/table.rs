//! What was told, as text: of one mount all of it, of several a line for each.

use std::fmt::Write;
use std::time::Duration;

use console::measure_text_width;

use super::find::Asked;
use crate::cli::locks::age;
use crate::config::error::shown_text;
use crate::observe::report::{Guard, Holder, Report, State};

/// So many guards are shown at the most.
const GUARDS: usize = 20;
/// Where the words of a line begin.
const INDENT: usize = 11;
/// No column is made narrower than this.
const NARROWEST: usize = 8;
/// The widest column of holders.
const HOLDER_MAX: usize = 32;

/// All of one mount. `before` is what was told some seconds ago.
pub(super) fn one(report: &Report, before: Option<(&Report, f64)>, width: usize) -> String {
    let kind = report.file_system.as_deref().unwrap_or("unknown");
    let mut lines = vec![
        shorten(&report.mountpoint, width),
        field("source", &format!("{} ({kind})", report.source), width),
        field(
            "daemon",
            &format!(
                "dotlockfs {}, pid {}, up {}",
                report.version,
                report.pid,
                age(report.uptime_seconds)
            ),
            width,
        ),
        field("options", &options(report), width),
        field("rules", &rules(report), width),
    ];
    lines.extend(totals(report, before).iter().flat_map(|(name, words)| {
        let words = words.join(", ");
        wrapped(name, &words, width)
    }));
    lines.push(String::new());
    lines.extend(guards(report, width));
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn options(report: &Report) -> String {
    let options = &report.options;
    let mut words = vec![if options.read_only { "ro" } else { "rw" }.to_owned()];
    if options.allow_other {
        words.push("allow_other".to_owned());
    }
    words.push(if options.passthrough {
        "passthrough".to_owned()
    } else {
        "no passthrough".to_owned()
    });
    words.push(plural(options.threads as u64, "thread"));
    words.extend(options.metrics.iter().map(|at| format!("metrics at {at}")));
    words.join(", ")
}

fn rules(report: &Report) -> String {
    match (&report.rules.file, report.rules.count) {
        (_, 0) => "none, so every file is guarded for appends and locks".to_owned(),
        (Some(file), count) => format!("{} in {file}", plural(count as u64, "rule")),
        (None, count) => format!("{} by -o guard=", plural(count as u64, "rule")),
    }
}

/// What has happened, a line for each subject.
fn totals(report: &Report, before: Option<(&Report, f64)>) -> Vec<(&'static str, Vec<String>)> {
    let totals = &report.totals;
    // How many, and how many more in each second.
    let count = |of: fn(&Report) -> u64| {
        let now = of(report);
        match before {
            Some((before, ago)) if ago > 0.0 => {
                let rate = now.saturating_sub(of(before)) as f64 / ago;
                format!("{now} ({rate:.0}/s)")
            }
            _ => now.to_string(),
        }
    };
    let bytes = bytesize::ByteSize(totals.appended_bytes);
    vec![
        (
            "waits",
            vec![
                count(|report| report.totals.waits.count),
                format!("median {}", span(totals.waits.median_seconds)),
                format!("99% {}", span(totals.waits.p99_seconds)),
                format!("longest {}", span(totals.waits.max_seconds)),
            ],
        ),
        (
            "appends",
            vec![
                format!("{}, {bytes}", count(|report| report.totals.appends)),
                format!(
                    "in {} batches of up to {}",
                    count(|report| report.totals.batches),
                    totals.largest_batch
                ),
            ],
        ),
        (
            "turns",
            vec![
                format!("{} taken", count(|report| report.totals.turns)),
                format!("{} lost", totals.turns_lost),
                format!("{} of others broken", totals.breaks),
                plural(totals.fences, "fence"),
            ],
        ),
        (
            "refused",
            vec![
                format!("{} stale", totals.refused_stale),
                format!("{} denied", totals.refused_denied),
            ],
        ),
        (
            "failed",
            vec![
                plural(totals.timeouts, "timeout"),
                plural(totals.deadlocks, "deadlock"),
                format!("{} interrupted", totals.interrupted),
                plural(totals.errors, "error"),
            ],
        ),
        (
            "calls",
            vec![
                format!("link {}", count(|report| report.calls.link)),
                format!("getattr {}", count(|report| report.calls.getattr)),
                format!("write {}", count(|report| report.calls.write)),
                format!("sync {}", count(|report| report.calls.sync)),
            ],
        ),
    ]
}

/// The files at work, and others as far as there is room.
fn guards(report: &Report, width: usize) -> Vec<String> {
    if report.guards_total == 0 {
        return vec!["no file is in use".to_owned()];
    }
    let mut rows = vec![["STATE", "QUEUED", "WAITED", "HOLDER", "FILE"].map(str::to_owned)];
    rows.extend(report.guards.iter().take(GUARDS).map(|guard| {
        let state = match guard.state {
            State::Free => "free",
            State::Held => "held",
            State::Waiting => "waiting",
        };
        let waited = match guard.queued {
            0 => "-".to_owned(),
            _ => span(guard.waited_seconds),
        };
        [
            state.to_owned(),
            guard.queued.to_string(),
            waited,
            holder(guard, report),
            guard.file.clone(),
        ]
    }));
    let mut lines = columns(&rows, &[Side::Left, Side::Right, Side::Right], width);
    let left = report.guards_total - (rows.len() - 1).min(report.guards_total);
    if left > 0 {
        lines.push(format!(
            "and {left} more, of which none waits longer (--json shows them)"
        ));
    }
    lines
}

fn holder(guard: &Guard, report: &Report) -> String {
    let text = match (&guard.holder, guard.state) {
        (None, State::Free) => "-".to_owned(),
        (None, _) => "not known yet".to_owned(),
        (Some(Holder::Here { programs }), _) => match &programs[..] {
            [] => "this mount".to_owned(),
            [pid] => format!("process {pid}"),
            [pid, others @ ..] => format!("process {pid} and {} more", others.len()),
        },
        (Some(Holder::Other { host, pid }), _) if *host == report.host => {
            format!("this host, pid {pid}")
        }
        (Some(Holder::Other { host, pid }), _) => {
            let rest = format!(", pid {pid}");
            cut(&shown_text(host), HOLDER_MAX - rest.len()) + &rest
        }
        (Some(Holder::LockFile), _) => "a program, by X.lock".to_owned(),
    };
    cut(&text, HOLDER_MAX)
}

/// A line for each mount.
pub(super) fn all(reports: &[Report], before: Option<(&Asked, f64)>, width: usize) -> String {
    if reports.is_empty() {
        return "no mount of dotlockfs here that this user may ask\n".to_owned();
    }
    let heading = [
        "UP",
        "HELD",
        "WAITING",
        "APPENDS",
        "LOST",
        "MOUNTPOINT",
        "SOURCE",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for report in reports {
        let old = before.and_then(|(asked, ago)| {
            let is_same = |old: &&Report| (old.pid, &old.device) == (report.pid, &report.device);
            Some((asked.reports.iter().find(is_same)?, ago))
        });
        let appends = match old {
            Some((old, ago)) if ago > 0.0 => {
                let more = report.totals.appends.saturating_sub(old.totals.appends);
                format!("{:.0}/s", more as f64 / ago)
            }
            _ => report.totals.appends.to_string(),
        };
        rows.push([
            age(report.uptime_seconds),
            report.guards_held.to_string(),
            report.guards_waiting.to_string(),
            appends,
            report.totals.turns_lost.to_string(),
            report.mountpoint.clone(),
            report.source.clone(),
        ]);
    }
    let mut text = String::new();
    for line in columns(&rows, &[Side::Right; 5], width) {
        writeln!(text, "{line}").expect("writing to a String does not fail");
    }
    text
}

/// The side of a column on which its text stands.
#[derive(Debug, Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Rows as lines of at most `width` columns. The first columns stand on these sides, the others are
/// on the left; the last two give room where there is not enough, as far as they must.
fn columns<const N: usize>(rows: &[[String; N]], sides: &[Side], width: usize) -> Vec<String> {
    const GAP: usize = 2;
    let mut widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| measure_text_width(&row[column]));
        cells.max().unwrap_or_default()
    });
    let fixed: usize = widths[..N - 2].iter().sum::<usize>() + GAP * (N - 1);
    let room = width.saturating_sub(fixed).max(2 * NARROWEST);
    let (a, b) = (widths[N - 2], widths[N - 1]);
    if a + b > room {
        // Each gets half, unless the other needs less.
        let half = room / 2;
        widths[N - 2] = a.min(half.max(room.saturating_sub(b)));
        widths[N - 1] = b.min(room - widths[N - 2]);
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let cell = shorten(cell, widths[column]);
                let blank = " ".repeat(widths[column] - measure_text_width(&cell));
                let is_last = column + 1 == N;
                match sides.get(column).unwrap_or(&Side::Left) {
                    Side::Right => line += &(blank + &cell),
                    Side::Left if is_last => line += &cell,
                    Side::Left => line += &(cell + &blank),
                }
                if !is_last {
                    line += &" ".repeat(GAP);
                }
            }
            line
        })
        .collect()
}

/// One line about a subject, cut where it is too long.
fn field(name: &str, words: &str, width: usize) -> String {
    let words = shorten(words, width.saturating_sub(INDENT).max(NARROWEST));
    format!("  {name:<8} {words}")
}

/// The same in as many lines as it takes, broken at blanks.
fn wrapped(name: &str, words: &str, width: usize) -> Vec<String> {
    let mut lines = vec![format!("  {name:<8}")];
    for word in words.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.len() > INDENT && line.len() + 1 + word.len() > width {
            lines.push(format!("{:INDENT$}{word}", ""));
        } else {
            write!(line, " {word}").expect("writing to a String does not fail");
        }
    }
    lines
}

/// The end of a text that is too wide: of a path it tells most.
fn shorten(text: &str, width: usize) -> String {
    const DOTS: &str = "...";
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(DOTS.len());
    let mut start = text.len();
    for (at, _) in text.char_indices().rev() {
        if measure_text_width(&text[at..]) > room {
            break;
        }
        start = at;
    }
    DOTS[..DOTS.len().min(width)].to_owned() + &text[start..]
}

/// The beginning of a text that is too wide.
fn cut(text: &str, most: usize) -> String {
    console::truncate_str(text, most, "...").into_owned()
}

fn plural(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// A time in the unit that suits it.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_001 => "0".to_owned(),
        s if s < 0.001 => format!("{:.0}us", s * 1e6),
        s if s < 0.01 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s => humantime::format_duration(Duration::from_secs(s as u64)).to_string(),
    }
}
