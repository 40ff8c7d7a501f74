//! `dotlockfs locks`: who holds which lock under a directory.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::bare::{self, Bare};
use super::{LocksArgs, print};
use crate::config::error::{shown, shown_text};
use crate::lock::Owner;
use crate::lock::survey::{self, Life, Lock, LockFile, State, Survey, Turn};
use crate::sys::fs::Timestamp;

/// What `--help` says after the options.
pub const HELP: &str = "\
Shown are the locks of dotlockfs on any host, and lock files X.lock of other programs, in DIR and \
all directories below it. Nothing is changed, and nobody is waited for. In a mount of dotlockfs \
this takes root, or the user who mounted it.

With --json, one object: \"directory\"; \"clock\", \"server\" or \"newest\" (as in SEEN); \"locks\", a \
list of objects with \"file\" (and \"file_hex\", where that is not UTF-8), \"state\" (\"held\", \
\"broken\", \"over\" or \"foreign\"), and either \"program\", \"turn\", \"host\", \"pid\", \"alive\" (null \
where this host cannot know), \"sign_of_life_seconds\" and, if broken, \"ended_by\"; or, for \
\"foreign\", \"lock_file\", \"kind\", \"content\" and \"age_seconds\"; and \"problems\", what could not \
be looked at.

Columns:
  STATE   held: somebody has the lock; broken: it is free, since another has
          ended the last holder's; free: nobody has it (shown with --all);
          X.lock: another program has made the lock file FILE.lock
  TURN    its number: each time that the lock is taken has its own
  HOLDER  host and process of the dotlockfs that has the lock or had it (not
          of the program that it works for), and \"dead\" if that is known;
          or what is written in X.lock
  SEEN    how long ago the holder has last shown a sign of life, which it
          does every quarter of stale_after while it has the lock; the age
          of X.lock. By the server's clock: a hidden file is made in DIR for
          a moment to see the time. Where that cannot be, the newest time on
          any lock counts as the present, and a ~ stands before it
  FILE    relative to DIR; control characters and the like are escaped

Exit status:
  0  all was looked at
  1  something could not be looked at";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs locks /net/data         who holds what, on whichever host
  dotlockfs locks --json /srv/data  by a mount, for scripts";

/// The widest column of holders in the table, in characters.
const HOLDER_MAX: usize = 34;

/// Looks, and prints what it finds. The exit status is 1 if something could not be looked at.
///
/// # Errors
/// A line for the user where the directory cannot be looked at at all.
pub fn run(args: &LocksArgs) -> Result<ExitCode, Box<dyn Error>> {
    let Bare { dir, path, .. } = bare::open(&args.dir)?;
    let dir = Arc::new(dir);
    let found = survey::survey(&dir);
    let clock = Clock::of(survey::server_time(&dir), &found);
    let here = Owner::this_process()?;
    let rows = rows(&found, args.all, &clock, &here);
    let text = match args.json {
        true => json(&path, &clock, &rows, &found)?,
        false => table(&args.dir, &clock, &rows),
    };
    print(&text)?;
    for line in complaints(&args.dir, &found) {
        eprintln!("dotlockfs: {line}");
    }
    match found.problems.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// The present time.
struct Clock {
    now: Timestamp,
    /// The server has told it; else it is the newest time on any lock.
    server: bool,
}

impl Clock {
    fn of(time: io::Result<Timestamp>, found: &Survey) -> Clock {
        match time {
            Ok(now) => Clock { now, server: true },
            Err(_) => Clock {
                now: found.newest,
                server: false,
            },
        }
    }

    fn since(&self, then: Timestamp) -> Duration {
        survey::between(then, self.now)
    }
}

/// One lock, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    /// For people, in JSON too: what is not UTF-8 is replaced there.
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_hex: Option<String>,
    state: &'static str,
    #[serde(flatten)]
    what: What,
    #[serde(skip)]
    file_shown: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum What {
    Turn {
        program: &'static str,
        turn: u64,
        host: Option<String>,
        pid: Option<u32>,
        alive: Option<bool>,
        sign_of_life_seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        ended_by: Option<String>,
    },
    Foreign {
        lock_file: String,
        kind: &'static str,
        content: String,
        age_seconds: f64,
    },
}

fn rows(found: &Survey, all: bool, clock: &Clock, here: &Owner) -> Vec<Row> {
    let mut rows = Vec::new();
    for lock in &found.locks {
        if let Some(turn) = &lock.turn
            && (all || turn.state != State::Over)
        {
            let state = match turn.state {
                State::Held => "held",
                State::Over => "over",
                State::Broken => "broken",
            };
            rows.push(row(lock, state, turn_row(turn, clock, here)));
        }
        if let Some(file) = &lock.lock_file
            && file.owner.is_none()
        {
            rows.push(row(lock, "foreign", foreign_row(lock, file, clock)));
        }
    }
    rows
}

fn row(lock: &Lock, state: &'static str, what: What) -> Row {
    let bytes = lock.file.as_os_str().as_bytes();
    let is_text = std::str::from_utf8(bytes).is_ok();
    Row {
        file: lock.file.to_string_lossy().into_owned(),
        file_hex: (!is_text).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        file_shown: shown(&lock.file),
        state,
        what,
    }
}

fn turn_row(turn: &Turn, clock: &Clock, here: &Owner) -> What {
    let life = turn.holder.as_ref().map(|owner| owner.life(here));
    What::Turn {
        program: "dotlockfs",
        turn: turn.n,
        host: turn.holder.as_ref().map(|owner| owner.host.clone()),
        pid: turn.holder.as_ref().map(|owner| owner.pid),
        alive: match life {
            Some(Life::Alive) => Some(true),
            Some(Life::Dead) => Some(false),
            Some(Life::Unknown) | None => None,
        },
        sign_of_life_seconds: seconds(clock.since(turn.sign_of_life)),
        ended_by: match (turn.state, &turn.ender) {
            (State::Broken, Some(ender)) => Some(ender.to_string()),
            _ => None,
        },
    }
}

fn foreign_row(lock: &Lock, file: &LockFile, clock: &Clock) -> What {
    What::Foreign {
        lock_file: format!("{}.lock", lock.file.to_string_lossy()),
        kind: match file.file_type {
            libc::S_IFREG => "file",
            libc::S_IFDIR => "directory",
            libc::S_IFLNK => "symbolic link",
            _ => "other",
        },
        content: String::from_utf8_lossy(&file.content).into_owned(),
        age_seconds: seconds(clock.since(file.changed)),
    }
}

/// To the millisecond: more would only look exact.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn json(path: &Path, clock: &Clock, rows: &[Row], found: &Survey) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Answer<'a> {
        directory: String,
        clock: &'static str,
        locks: &'a [Row],
        problems: Vec<String>,
    }
    let answer = Answer {
        directory: path.to_string_lossy().into_owned(),
        clock: match clock.server {
            true => "server",
            false => "newest",
        },
        locks: rows,
        problems: complaints(path, found),
    };
    let mut text = serde_json::to_string_pretty(&answer)?;
    text.push('\n');
    Ok(text)
}

/// What was not looked at.
fn complaints(dir: &Path, found: &Survey) -> Vec<String> {
    let unread = found.problems.iter().map(|(path, error)| {
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        format!("{}: cannot be looked at: {reason}", shown(&dir.join(path)))
    });
    let left_out = found.left_out.iter().map(|path| {
        format!(
            "{}: another FUSE file system is mounted there; its locks are not in this list",
            shown(&dir.join(path))
        )
    });
    unread.chain(left_out).collect()
}

fn table(dir: &Path, clock: &Clock, rows: &[Row]) -> String {
    if rows.is_empty() {
        return format!("no lock is held under {}\n", shown(dir));
    }
    let approximately = if clock.server { "" } else { "~" };
    let mut lines = vec![["STATE", "TURN", "HOLDER", "SEEN", "FILE"].map(str::to_owned)];
    for row in rows {
        lines.push(match &row.what {
            What::Turn {
                turn,
                host,
                pid,
                alive,
                sign_of_life_seconds,
                ..
            } => [
                if row.state == "over" {
                    "free"
                } else {
                    row.state
                }
                .to_owned(),
                turn.to_string(),
                holder(host.as_deref(), *pid, *alive),
                approximately.to_owned() + &age(*sign_of_life_seconds),
                row.file_shown.clone(),
            ],
            What::Foreign {
                kind,
                content,
                age_seconds,
                ..
            } => [
                "X.lock".to_owned(),
                "-".to_owned(),
                says(kind, content),
                approximately.to_owned() + &age(*age_seconds),
                row.file_shown.clone(),
            ],
        });
    }
    let width = |column: usize| {
        let cells = lines.iter().map(|cells| cells[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let (state, turn, holder, seen) = (width(0), width(1), width(2), width(3));
    let mut text = String::new();
    for [a, b, c, d, e] in &lines {
        let line = format!("{a:<state$}  {b:>turn$}  {c:<holder$}  {d:>seen$}  {e}");
        writeln!(text, "{line}").expect("writing to a String does not fail");
    }
    text
}

/// Who it is. The host's name is cut before the rest would be.
fn holder(host: Option<&str>, pid: Option<u32>, alive: Option<bool>) -> String {
    let (Some(host), Some(pid)) = (host, pid) else {
        return "unknown: the claim has no record".to_owned();
    };
    let dead = if alive == Some(false) { ", dead" } else { "" };
    let rest = format!(", pid {pid}{dead}");
    cut(&shown_text(host), HOLDER_MAX - rest.len()) + &rest
}

/// What a lock file says, in one line.
fn says(kind: &str, content: &str) -> String {
    let line = content.trim_end().lines().next().unwrap_or_default();
    match (kind, line) {
        ("file", "") => "an empty file".to_owned(),
        ("file", line) => format!("says {}", cut(&shown_text(line), HOLDER_MAX - 5)),
        ("symbolic link", line) => format!("link to {}", cut(&shown_text(line), HOLDER_MAX - 8)),
        ("directory", _) => "a directory".to_owned(),
        _ => "neither a file nor a directory".to_owned(),
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(most.saturating_sub(3)).collect();
    beginning + "..."
}

/// A time in its largest unit, rounded down.
pub(super) fn age(seconds: f64) -> String {
    // Saturates where it is out of range.
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}min", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let of = |seconds| age(f64::from(seconds));
        assert_eq!(
            [of(0), of(59), of(60), of(3599)],
            ["0s", "59s", "1min", "59min"]
        );
        assert_eq!([of(3600), of(172_799), of(172_800)], ["1h", "47h", "2d"]);
    }

    #[test]
    fn holders_stay_within_their_column() {
        let long = "h".repeat(100);
        let text = holder(Some(&long), Some(u32::MAX), Some(false));
        assert_eq!(text.chars().count(), HOLDER_MAX);
        assert!(text.ends_with("..., pid 4294967295, dead"), "{text}");
        assert_eq!(holder(Some("a\nb"), Some(7), None), "a\\nb, pid 7");
        assert_eq!(holder(None, None, None).chars().count(), 32);
        assert_eq!(says("file", &long).chars().count(), HOLDER_MAX);
        assert_eq!(says("file", "4711\nmore\n"), "says 4711");
    }
}
