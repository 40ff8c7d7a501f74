//! `dotlockfs status`: what the mounts of this host are doing, as their daemons tell it.

mod find;
mod table;
mod watch;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use console::Term;
use serde::Serialize;

use super::{StatusArgs, print};
use crate::observe::report::{FORMAT, Report};
use find::Asked;

/// What `--help` says after the options.
pub const HELP: &str = "\
Each daemon answers at a socket of its own, in /run/dotlockfs where root has mounted it, else in \
$XDG_RUNTIME_DIR/dotlockfs. It answers root and the user who has mounted it. The answer takes no \
call to the file system below, so it comes also while a server does not answer. Mounts of `dotlockfs \
run` have no socket.

With MNT, what is shown of that mount:
  rules    the rule file, and how many rules it has (`dotlockfs check-config`
           says what they do)
  waits    how many calls were done under a lock, and how long they had to wait
           for it: half of them, 99 of 100, and the longest
  appends  writes of programs that were appended, in how many pieces, and the
           most of them in one
  turns    how often the lock of a file was taken; how many turns were lost to
           other hosts, how many of others were broken here, and after how many
           the file was fenced
  refused  changes to a newer version than was read (ESTALE), and opens that a
           rule denies (EROFS)
  failed   calls that gave up waiting (EAGAIN), would have waited for ever
           (EDEADLK), were ended by a signal (EINTR), or failed otherwise
  calls    system calls of the daemon that cost a way to the server
and then the files at work: STATE is \"held\" where this mount has the lock, \"waiting\" where calls \
wait for somebody else who has it. A lock that is \"free\" here may be held by another host; \
`dotlockfs locks` tells.

With --watch there is a new look every second, and how much was done in between stands in \
parentheses, for one second. On a terminal it takes the place of the one before.

With --json, one object: \"format\", 1; \"mounts\", a list of objects; \"problems\", lines for people. \
With --watch it is one such object a line. A mount has \"version\", \"pid\", \"uid\", \"host\", \"source\", \
\"mountpoint\", \"device\", \"file_system\" (null where it is not known), \"uptime_seconds\"; \
\"options\": \"read_only\", \"allow_other\", \"passthrough\", \"threads\", \"metrics\" (an address or null); \
\"rules\": \"file\" (or null), \"count\" (0: every file is guarded for appends and locks); \
\"guards_total\", \"guards_held\", \"guards_waiting\"; \"guards\", those at work and others, 1000 at the most: \"file\", \"state\" (\"free\", \
\"held\" or \"waiting\"), \"queued\", \"waited_seconds\" (the longest wait that goes on), and \"holder\", \
null or an object whose \"kind\" is \"here\" (with \"programs\", a list of processes), \"other\" (with \
\"host\" and \"pid\") or \"lock_file\"; \"totals\": \"waits\" (\"count\", \"median_seconds\", \"p99_seconds\", \
\"max_seconds\", \"sum_seconds\"), \"turns\", \"batches\", \"appends\", \"appended_bytes\", \
\"largest_batch\", \"breaks\", \"turns_lost\", \"fences\", \"refused_stale\", \"refused_denied\", \
\"timeouts\", \"deadlocks\", \"interrupted\", \"errors\"; and \"calls\": \"link\", \"getattr\", \"write\", \
\"sync\". Names will stay, and others may be added. Paths are escaped as in the table, but not cut.

Exit status:
  0  all has answered
  1  a mount that was asked for does not answer";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs status                    all mounts of this host
  dotlockfs status --watch /srv/data  one of them, each second anew
  dotlockfs status --json             for scripts";

/// The width of a table that is not for a terminal, in columns.
const WIDTH: usize = 80;

/// Asks, and prints what is told.
///
/// # Errors
/// A line for the user where the mount that was asked for does not answer.
pub fn run(args: &StatusArgs) -> Result<ExitCode, Box<dyn Error>> {
    if args.watch {
        return watch::run(args);
    }
    let asked = look(args)?;
    if args.json {
        print(&(serde_json::to_string_pretty(&json(&asked))? + "\n"))?;
    } else {
        print(&text(args, &asked, None, width()))?;
    }
    for problem in &asked.problems {
        let _ = writeln!(io::stderr(), "dotlockfs: {problem}");
    }
    match asked.problems.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

fn look(args: &StatusArgs) -> Result<Asked, Box<dyn Error>> {
    match &args.mount {
        Some(path) => Ok(find::one(path)?),
        None => Ok(find::all()),
    }
}

/// What is shown of it, in lines of at most `width` columns. `before` is what was told before, and how
/// many seconds ago.
fn text(args: &StatusArgs, asked: &Asked, before: Option<(&Asked, f64)>, width: usize) -> String {
    match (&args.mount, asked.reports.first()) {
        (Some(_), Some(report)) => {
            let same = |old: &&Report| (old.pid, &old.device) == (report.pid, &report.device);
            let before = before.and_then(|(asked, ago)| {
                let old = asked.reports.first().filter(same)?;
                Some((old, ago))
            });
            table::one(report, before, width)
        }
        _ => table::all(&asked.reports, before, width),
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    format: u32,
    mounts: &'a [Report],
    problems: &'a [String],
}

fn json(asked: &Asked) -> Answer<'_> {
    Answer {
        format: FORMAT,
        mounts: &asked.reports,
        problems: &asked.problems,
    }
}

/// How wide a line may be.
fn width() -> usize {
    let size = Term::stdout().size_checked();
    size.map_or(WIDTH, |(_, columns)| usize::from(columns))
}
