//! What crashes have left in the directory, and lock files of other programs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Finding, reason, some_of};
use crate::cli::locks;
use crate::lock::Owner;
use crate::lock::survey::{self, Life, State, Survey};
use crate::sys::fs::Timestamp;

/// A held lock without a sign of life for so long is stale, unless the rules allow for more: they
/// are perhaps those of another directory, and one minute is what most say.
const SILENT: Duration = Duration::from_secs(5 * 60);
/// A lock file of another program is suspicious after this.
const FOREIGN: Duration = Duration::from_secs(30 * 60);
/// No update takes so long.
const STAGED: Duration = Duration::from_secs(60 * 60);
/// A claim of a host that we cannot ask is suspicious after this.
const CLAIM: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks at the directory and all below it. `stale_after` is the longest time without a sign of
/// life that the rules allow a holder.
pub(super) fn findings(dir: &Arc<OwnedFd>, stale_after: Option<Duration>) -> Vec<Finding> {
    let found = survey::survey(dir);
    let now = survey::server_time(dir).unwrap_or(found.newest);
    let here = match Owner::this_process() {
        Ok(here) => here,
        Err(error) => {
            return vec![Finding::fault(
                "/proc",
                format!("does not tell who this process is: {}", reason(&error)),
                "mount /proc",
            )];
        }
    };
    let silent = stale_after.unwrap_or_default().max(SILENT);
    let mut findings = judged(&found, now, silent, &here);
    if let Some((path, error)) = found.problems.first() {
        let others = found.problems.len() - 1;
        findings.push(Finding::warning(
            "directories",
            format!(
                "{} cannot be looked at: {}{}",
                some_of([path.as_path()].into_iter()),
                reason(error),
                match others {
                    0 => String::new(),
                    others => format!("; and {others} more"),
                }
            ),
            "run it as a user who may read them",
        ));
    }
    findings
}

fn judged(found: &Survey, now: Timestamp, silence: Duration, here: &Owner) -> Vec<Finding> {
    let old = |then, limit| survey::between(then, now) > limit;
    let (mut dead, mut silent, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
    let (mut claims, mut staged, mut left) = (Vec::new(), Vec::new(), Vec::new());
    let (mut held, mut fine) = (0, Vec::new());
    for lock in &found.locks {
        let file = &lock.file;
        let holder = lock.turn.as_ref().filter(|turn| turn.state == State::Held);
        if let Some(turn) = holder {
            held += 1;
            let life = turn.holder.as_ref().map(|owner| owner.life(here));
            if life == Some(Life::Dead) {
                dead.push(file.clone());
            } else if old(turn.sign_of_life, silence) {
                silent.push(file.clone());
            }
        }
        match &lock.lock_file {
            Some(file) if file.owner.is_none() && old(file.changed, FOREIGN) => {
                foreign.push(beside(&lock.file));
            }
            Some(file) if file.owner.is_some() && holder.is_none() => left.push(beside(&lock.file)),
            _ => {}
        }
        for claim in &lock.claims {
            let life = claim.owner.as_ref().map(|owner| owner.life(here));
            let holds = holder.is_some_and(|turn| turn.holder == claim.owner);
            if !holds && (life == Some(Life::Dead) || old(claim.sign_of_life, CLAIM)) {
                claims.push(claim.path.clone());
            }
        }
        let old_ones = lock.staged.iter().filter(|(_, time)| old(*time, STAGED));
        staged.extend(old_ones.map(|(path, _)| path.clone()));
    }
    let mut findings = Vec::new();
    let mut say = |paths: &[PathBuf], make: &dyn Fn(&str) -> Finding| {
        if !paths.is_empty() {
            findings.push(make(&some_of(paths.iter().map(PathBuf::as_path))));
        }
    };
    if dead.is_empty() && silent.is_empty() {
        fine.push(Finding::ok(
            "locks",
            match held {
                0 => "none is held".to_owned(),
                1 => "1 is held, and its holder gives signs of life".to_owned(),
                held => format!("{held} are held, and their holders give signs of life"),
            },
        ));
    }
    say(&dead, &|paths| {
        Finding::warning(
            "locks",
            format!("held by a daemon of this host that is dead: {paths}"),
            "whoever wants it next has to break the lock; the log of that daemon, or of the kernel, \
             may say why it died",
        )
    });
    say(&silent, &|paths| {
        Finding::warning(
            "locks",
            format!(
                "held without a sign of life for more than {}: {paths}",
                locks::age(silence.as_secs_f64())
            ),
            "does that host still run, and reach the server? see: dotlockfs locks DIR",
        )
    });
    say(&foreign, &|paths| {
        Finding::warning(
            "lock files",
            format!("made by other programs more than 30 minutes ago: {paths}"),
            "everybody waits for them: remove those whose program is dead; where one stands for \
             ever on purpose, set dotlock = false in the rule of its file",
        )
    });
    say(&left, &|paths| {
        Finding::note(
            "lock files",
            format!("left by dotlockfs from a lock that is over: {paths} (removed with the next)"),
        )
    });
    say(&staged, &|paths| {
        Finding::warning(
            "leftovers",
            format!("copies of updates that never came to their end: {paths}"),
            "look whether anybody misses what is in them, and remove them",
        )
    });
    say(&claims, &|paths| {
        Finding::note(
            "leftovers",
            format!(
                "claims of daemons that are dead, or have shown no sign of life for a day: \
                 {paths}; they do no harm, and may be removed while no dotlockfs runs there"
            ),
        )
    });
    fine.extend(findings);
    fine
}

/// `X.lock`
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
