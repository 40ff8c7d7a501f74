//! `dotlockfs doctor`: is everything as the lock needs it, on this host and in this directory?
//!
//! Each test gives findings, and none stops the others. Files that tests make have names with a
//! random token, which mounts hide, and are removed on every way out.

mod host;
mod leftovers;
mod nfs;
mod probes;
mod rules;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::bare::{self, Bare};
use super::{DoctorArgs, print};
use crate::config::error::shown;
use crate::config::explain::hang;
use nfs::FileSystem;
use rules::RuleFile;

/// What `--help` says after the options.
pub const HELP: &str = "\
Looked at are the file system of DIR and how it is mounted; whether link(2) works there as the \
lock needs it; freshness, writing and clocks; what crashes have left; the rules, and the mounts of \
DIR on this host; and this host itself. Run it on every host, as the user who mounts.

DIR may be the directory itself, or a mount of dotlockfs: then the directory below is looked at, \
which takes root, or the user who mounted it.

A few files are made in DIR for a moment. Their names begin with .dotlockfs-, and mounts hide \
them.

Each line is one finding, with what to do below it (->):
  ok       as it should be
  note     good to know; nothing has to be done
  warning  it works, but not as well as it could, or not always
  fault    it does not work, or is not safe

With --json, one object: \"directory\"; \"findings\", a list of objects with \"level\" (as above), \
\"subject\", \"what\" and \"advice\" (null where nothing is to be done); and \"faults\" and \
\"warnings\", how many there are.

Exit status:
  0  there is no fault
  1  there is one, or DIR cannot be looked at";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs doctor /net/data  before the first mount, on each host
  dotlockfs doctor /srv/data  a mount, when anything looks odd";

/// How many columns stand before the words of a finding.
const INDENT: usize = 24;

/// How good or bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Note,
    Warning,
    Fault,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Fault => "fault",
        }
    }
}

/// What a test has found.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    /// One or two words, at most 14 characters.
    subject: &'static str,
    what: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Finding {
    fn ok(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding {
            level: Level::Ok,
            subject,
            what: what.into(),
            advice: None,
        }
    }

    fn note(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding {
            level: Level::Note,
            ..Finding::ok(subject, what)
        }
    }

    fn warning(
        subject: &'static str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            level: Level::Warning,
            advice: Some(advice.into()),
            ..Finding::ok(subject, what)
        }
    }

    fn fault(subject: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding {
            level: Level::Fault,
            ..Finding::warning(subject, what, advice)
        }
    }

    fn text(&self) -> String {
        let (level, subject) = (self.level.word(), self.subject);
        let what = format!("{level:<8} {subject:<14} {}", self.what);
        let mut text = hang(&what, 0, INDENT);
        if let Some(advice) = &self.advice {
            text.push_str(&hang(&format!("-> {advice}"), INDENT, INDENT + 3));
        }
        text
    }
}

/// Makes all tests and prints what they find.
///
/// # Errors
/// A line for the user where the directory cannot be looked at at all.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, Box<dyn Error>> {
    // A signal ends the tests between two of them, so that no file of theirs is left.
    let signal = Arc::new(AtomicUsize::new(0));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
    }
    let Bare { dir, path, mount } = bare::open(&args.dir)?;
    let dir = Arc::new(dir);
    let system = FileSystem::of(&dir)?;
    let guarded = mount.as_ref().map(|over| over.entry.point.as_path());
    let rules = RuleFile::read(&dir, &path, guarded)?;
    let tests: [&dyn Fn() -> Vec<Finding>; 6] = [
        &|| system.findings(),
        &|| probes::findings(&dir, &system, &|| signal.load(Ordering::Relaxed) != 0),
        &|| leftovers::findings(&dir, rules.stale_after()),
        &|| rules.findings(),
        &|| rules::mounts(&path, guarded),
        &|| host::findings(),
    ];
    let mut findings = Vec::new();
    for test in tests {
        findings.extend(test());
        let number = signal.load(Ordering::Relaxed);
        if number != 0 {
            eprintln!("dotlockfs: interrupted, so not everything was looked at");
            return Ok(ExitCode::from(128 + number as u8));
        }
    }
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
    print(&match args.json {
        true => json(&path, &findings, faults, warnings)?,
        false => text(&findings, faults, warnings),
    })?;
    match faults {
        0 => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

fn text(findings: &[Finding], faults: usize, warnings: usize) -> String {
    let mut text: String = findings.iter().map(Finding::text).collect();
    let number = |n, one: &str| match n {
        0 => format!("no {one}s"),
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    let (faults, warnings) = (number(faults, "fault"), number(warnings, "warning"));
    text.push_str(&format!("\n{faults}, {warnings}\n"));
    text
}

fn json(
    path: &Path,
    findings: &[Finding],
    faults: usize,
    warnings: usize,
) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Answer<'a> {
        directory: String,
        findings: &'a [Finding],
        faults: usize,
        warnings: usize,
    }
    let mut text = serde_json::to_string_pretty(&Answer {
        directory: path.to_string_lossy().into_owned(),
        findings,
        faults,
        warnings,
    })?;
    text.push('\n');
    Ok(text)
}

/// The reason in an error, without its number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// A few paths in one line, and how many more there are.
fn some_of<'a>(paths: impl ExactSizeIterator<Item = &'a Path>) -> String {
    const SHOWN: usize = 3;
    let more = paths.len().saturating_sub(SHOWN);
    let first: Vec<String> = paths.take(SHOWN).map(shown).collect();
    match more {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_folded_below_its_words() {
        let finding = Finding::fault("mount options", "word ".repeat(20).trim_end(), "do this");
        let text = finding.text();
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert!(first.starts_with("fault    mount options  word"), "{text}");
        assert!(lines.all(|line| line.starts_with(&" ".repeat(INDENT))));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(
            text.ends_with("\n                        -> do this\n"),
            "{text}"
        );
    }

    #[test]
    fn few_paths_are_named_and_the_others_counted() {
        let paths = ["a", "b\n", "c", "d", "e"].map(Path::new);
        assert_eq!(some_of(paths[..2].iter().copied()), "a, b\\n");
        assert_eq!(some_of(paths.iter().copied()), "a, b\\n, c and 2 more");
    }
}
