//! `dotlockfs break FILE`: ends the turn of a holder that the administrator knows to be dead, and
//! fences the file, without waiting for `stale_after`.
//!
//! It does what a waiter does ([`crate::lock::turns`], [`crate::guard::mend`]), in a turn of its own.

use std::cell::Cell;
use std::error::Error;
use std::ffi::{CStr, CString, OsStr};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::{BreakArgs, bare, print};
use crate::config::error::shown;
use crate::config::{self, Rule, Rules};
use crate::guard::mend::Mending;
use crate::lock::dotlock::{self, Dotlock};
use crate::lock::record::Life;
use crate::lock::{Directory, LockNames, Owner, Progress, RealDirectory, Turn, Turns};
use crate::sys;
use crate::sys::process::boottime;

/// What `--help` says after the options.
pub const HELP: &str = "\
The holder of the lock is shown, and whether its process is known to live. After a \"yes\" its turn \
is ended, and the file gets a new inode with the same contents, so that a late write of the old \
holder cannot reach it (fence and fence_limit of the rule say how).

If the holder lives after all, it sees that its turn is over within a quarter of stale_after. WHAT \
ITS PROGRAMS WERE TOLD TO BE WRITTEN UNTIL THEN MAY BE LOST. From then on they get EIO for what they \
write under the lock, and appends are made again.

A lock that shows no sign of life is broken by the next who waits, after stale_after. So this is \
only for those who cannot wait.

Exit status: 0 if the lock is free now; 1 if it is not.";

/// How long the next turn is tried for, after the old one was ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Shows the holder, asks, breaks, fences, and says what was done.
///
/// # Errors
/// A line for the user.
pub fn run(args: &BreakArgs) -> Result<ExitCode, Box<dyn Error>> {
    let path = std::path::absolute(&args.file)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(format!("{}: is not the name of a file", shown(&args.file)).into());
    };
    let bare = bare::open(parent)?;
    let rule = rule(args, &bare.path, name)?;
    let dir = RealDirectory::new(Arc::new(bare.dir));
    let here = Arc::new(Owner::this_process()?);
    let mut turns = Turns::new(LockNames::new(name), Arc::clone(&here), rule.stale_after);
    let done = Breaking {
        args,
        dir: &dir,
        name: sys::c_name(name)?,
        rule: &rule,
        here: &here,
    }
    .run(&mut turns);
    turns.retire(&dir, None);
    done
}

/// The rule for the file: that of the nearest rule file above it, else the defaults.
fn rule(args: &BreakArgs, dir: &Path, name: &OsStr) -> Result<Arc<Rule>, Box<dyn Error>> {
    let found = match &args.config {
        Some(config) => Some((Rules::load(config)?, PathBuf::from(name))),
        None => {
            let mut found = None;
            for above in dir.ancestors() {
                match Rules::load(&above.join(config::FILE_NAME)) {
                    Err(error) if error.is_not_found() => {}
                    other => {
                        let below = dir.strip_prefix(above)?.join(name);
                        found = Some((other?, below));
                        break;
                    }
                }
            }
            found
        }
    };
    let rule = found.and_then(|(rules, below)| rules.rule_for(&below).cloned());
    Ok(rule.unwrap_or_else(|| Arc::clone(&Rules::everything().rules()[0])))
}

struct Breaking<'a> {
    args: &'a BreakArgs,
    dir: &'a RealDirectory,
    name: CString,
    rule: &'a Rule,
    here: &'a Owner,
}

impl Breaking<'_> {
    fn run(&self, turns: &mut Turns) -> Result<ExitCode, Box<dyn Error>> {
        let file = shown(&self.args.file);
        let fail = |error: io::Error| {
            format!("{file}: its lock cannot be looked at: {error}; may you write its directory?")
        };
        turns
            .prepare_claim(self.dir, None, boottime)
            .map_err(fail)?;
        let newest = turns.discover(self.dir, None, boottime, Duration::ZERO);
        let Some(n) = newest.map_err(fail)?.taken() else {
            print(&format!("{file}: nobody has the lock\n"))?;
            return Ok(ExitCode::SUCCESS);
        };
        print(&format!(
            "{file}: turn {n} is held by {}{}\n",
            turns.describe_holder(self.dir, n),
            self.life(turns, n)
        ))?;
        if !self.args.yes && !agreed()? {
            print("nothing was changed\n")?;
            return Ok(ExitCode::FAILURE);
        }
        let not_broken = |error: io::Error| format!("{file}: turn {n} could not be ended: {error}");
        turns.break_turn(self.dir, None, n).map_err(not_broken)?;
        print(&format!("turn {n} was ended\n"))?;
        let Some(turn) = self.take(turns)? else {
            print("somebody else has the lock now, and sees to the rest\n")?;
            return Ok(ExitCode::SUCCESS);
        };
        self.mend(turns, &turn)
    }

    /// What can be told of the holder's process from here.
    fn life(&self, turns: &Turns, n: u64) -> &'static str {
        let record = self.dir.read(&turns.names().turn(n)).ok();
        let owner = record.and_then(|record| Owner::parse(&record));
        match owner.map(|owner| owner.life(self.here)) {
            Some(Life::Dead) => ", which has ended",
            Some(Life::Alive) => ", WHICH IS RUNNING ON THIS HOST",
            Some(Life::Unknown) | None => "",
        }
    }

    /// Takes the next turn, unless somebody else does.
    fn take(&self, turns: &mut Turns) -> io::Result<Option<Turn>> {
        let deadline = boottime() + PATIENCE;
        while boottime() < deadline {
            match turns.attempt(self.dir, None, boottime)? {
                Progress::Held(turn) => return Ok(Some(turn)),
                Progress::Taken(_) => return Ok(None),
                Progress::Again | Progress::Broken { .. } => std::thread::sleep(PAUSE),
            }
        }
        Ok(None)
    }

    fn mend(&self, turns: &mut Turns, turn: &Turn) -> Result<ExitCode, Box<dyn Error>> {
        let file = shown(&self.args.file);
        let sign = Cell::new(turn.sign);
        let age = || boottime().saturating_sub(sign.get());
        let is_prompt = || match age() < self.rule.stale_after / 2 {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
        };
        let show_life = || {
            let now = boottime();
            // A turn that has been slow stays so: a breaker may have made up its mind.
            if age() >= self.rule.stale_after / 4
                && is_prompt().is_ok()
                && self.dir.touch(&turn.claim, turn.identity).is_ok()
            {
                sign.set(now);
            }
        };
        let put = |staged: &CStr| self.dir.rename(staged, &self.name);
        let before = self.dir.identity(&self.name)?;
        let names = turns.names().clone();
        let mending = Mending {
            dir: self.dir,
            name: &self.name,
            names: &names,
            rule: self.rule,
            label: &file.to_string(),
            turn: turn.n,
            claim: &turn.claim,
            show_life: &show_life,
            is_prompt: &is_prompt,
            put: &put,
        };
        let mended = match turn.inherits {
            true => mending.mend(),
            false => Ok(()),
        };
        if let Err(error) = mended {
            turns.give_back(self.dir, turn, boottime())?;
            return Err(format!(
                "{file}: cannot be fenced: {error}; whoever has the lock next tries again"
            )
            .into());
        }
        let fenced = self.dir.identity(&self.name)? != before;
        self.remove_lock_file(turns, turn);
        turns.end(self.dir, turn, (boottime(), is_prompt().is_err()))?;
        print(match fenced {
            true => "the file was fenced: it is a copy of what it was\n",
            false => "the file was not fenced\n",
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The old holder's `X.lock`, if it is still there, keeps out programs that know nothing of
    /// turns.
    fn remove_lock_file(&self, turns: &Turns, turn: &Turn) {
        let Some(lock) = turns.names().dotlock().filter(|_| self.rule.dotlock) else {
            return;
        };
        if matches!(dotlock::take(self.dir, turn, lock), Ok(Dotlock::Held))
            && let Err(error) = dotlock::release(self.dir, turn, lock)
        {
            eprintln!("dotlockfs: {}.lock stays: {error}", shown(&self.args.file));
        }
    }
}

/// Asks whether to go on.
fn agreed() -> Result<bool, Box<dyn Error>> {
    if !io::stdin().is_terminal() {
        return Err("nobody can be asked here; with --yes it is done without asking".into());
    }
    print!("End it? Make sure that the holder is dead. [y/N] ");
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
