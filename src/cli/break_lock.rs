//! `dotlockfs break FILE`: ends the turn of a holder that the administrator knows to be dead, and
//! fences the file, without waiting for `stale_after`.
//!
//! It does what a waiter does ([`crate::lock::turns`], [`crate::guard::mend`]), in a turn of its own.
//! But it has not seen the holder be silent for `stale_after`: a holder that lives may answer its
//! programs without a look whether the turn is still its own, up to half of `stale_after` after its
//! last sign of life. So the next turn is taken first, while the holder's still stands: a holder that
//! sees a later turn does no more. Only after that time its turn is ended, and the file fenced.

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
use crate::guard::events::Events;
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

A holder whose process is not known to have ended may live. It is given half of stale_after to see \
that its turn is over; from then on its programs get EIO for what they write under the lock, and \
appends are made again. With --now it is not waited for, and what it tells its programs to be written \
until then may be lost.

A lock that shows no sign of life is broken by the next who waits, after stale_after. So this is \
only for those who cannot wait.

Exit status:
  0  the lock is free now
  1  it is not";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs locks /net/data              who has the lock?
  dotlockfs break /net/data/results.csv  end it, after a question";

/// After this it is told why the command does not come to its end.
const TELL_AFTER: Duration = Duration::from_millis(500);
/// A pause between two looks at the old turn.
const PAUSE: Duration = Duration::from_millis(20);

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
        // The answer may have taken long.
        turns
            .prepare_claim(self.dir, None, boottime)
            .map_err(fail)?;
        let next = turns.take(self.dir, None, n + 1, boottime);
        let Progress::Held(mut turn) = next.map_err(not_broken)? else {
            print("it has ended meanwhile, and somebody else has the lock now\n")?;
            return Ok(ExitCode::SUCCESS);
        };
        let broken = self.wait_for_end(turns, &turn).and_then(|sign| {
            turns.break_turn(self.dir, None, n)?;
            Ok((sign, turns.inspect(self.dir, n)?))
        });
        (turn.sign, turn.inherits) = match broken {
            Ok(found) => found,
            Err(error) => {
                turns.give_back(self.dir, &turn, boottime())?;
                return Err(not_broken(error).into());
            }
        };
        print(&match turn.inherits {
            true => format!("turn {n} was ended\n"),
            false => format!("turn {n} has ended by itself\n"),
        })?;
        self.mend(turns, &turn)
    }

    /// Waits until the holder of the turn before ours has ended it, or can do nothing more under it.
    /// Gives when we have last shown a sign of life.
    fn wait_for_end(&self, turns: &mut Turns, turn: &Turn) -> io::Result<Duration> {
        let mut sign = turn.sign;
        if self.args.now {
            return Ok(sign);
        }
        let n = turn.n - 1;
        let (taken, longest) = (boottime(), self.rule.stale_after / 2);
        let holder = self.holder(turns, n);
        let is_dead = || {
            holder
                .as_ref()
                .is_some_and(|owner| owner.has_ended(self.here))
        };
        let mut told = false;
        loop {
            let waited = boottime().saturating_sub(taken);
            if is_dead() || waited >= longest {
                return Ok(sign);
            }
            if self.dir.identity(&turns.names().done(n))?.is_some() {
                return Ok(sign);
            }
            if !told && waited >= TELL_AFTER {
                told = true;
                let longest = humantime::format_duration(longest);
                eprintln!("it may live, and has {longest} to see that its turn is over");
            }
            if boottime().saturating_sub(sign) >= longest {
                // Somebody may be about to end our own turn.
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            sign = turns.refresh(self.dir, turn, boottime)?;
            std::thread::sleep(PAUSE);
        }
    }

    /// The holder of turn `n`, if it can be told.
    fn holder(&self, turns: &Turns, n: u64) -> Option<Owner> {
        let record = self.dir.read(&turns.names().turn(n)).ok()?;
        Owner::parse(&record)
    }

    /// What can be told of the holder's process from here.
    fn life(&self, turns: &Turns, n: u64) -> &'static str {
        match self.holder(turns, n).map(|owner| owner.life(self.here)) {
            Some(Life::Dead) => ", which has ended",
            Some(Life::Alive) => ", WHICH IS RUNNING ON THIS HOST",
            Some(Life::Unknown) | None => "",
        }
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
        let events = Events::default();
        let mending = Mending {
            events: &events,
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
