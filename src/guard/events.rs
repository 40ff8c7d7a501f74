//! What an administrator must know: counted, and said in the log, but not more often than it helps.
//!
//! A line is a sentence that begins with the file, and ends with what it is about, to search for:
//! `log: broke turn 7 of ... [event=break]`. Of one kind and file there is one line within ten seconds;
//! the next one tells how many were left out.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;

use super::counts::{Count, Counts};
use crate::sys::process::boottime;

/// How long nothing more of the same kind is said of a file.
const QUIET: Duration = Duration::from_secs(10);
/// Of so many kinds and files it is known when something was said.
const MANY: usize = 1024;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A call waits for long.
    Wait,
    /// Calls have waited for too long, and fail with EAGAIN.
    Timeout,
    /// A call would wait for ever, and fails with EDEADLK.
    Deadlock,
    /// The turn of another holder was broken.
    Break,
    /// A turn of this host was ended by another.
    Lost,
    /// The same while programs held the lock by it.
    LostWhileHeld,
    /// A file was fenced.
    Fence,
    /// Another version of the file was read than is there now: ESTALE.
    Stale,
    /// The rule lets nobody write so: EROFS.
    Denied,
}

impl Event {
    /// Its word in the log.
    fn word(self) -> &'static str {
        match self {
            Event::Wait => "wait",
            Event::Timeout => "timeout",
            Event::Deadlock => "deadlock",
            Event::Break => "break",
            Event::Lost | Event::LostWhileHeld => "lost",
            Event::Fence => "fence",
            Event::Stale => "stale",
            Event::Denied => "denied",
        }
    }

    /// What counts how often that was.
    fn count(self) -> Option<Count> {
        match self {
            // The histogram counts waits; a line may stand for many calls; and of one turn that is lost
            // there may be two lines.
            Event::Wait | Event::Timeout | Event::Lost | Event::LostWhileHeld => None,
            Event::Deadlock => Some(Count::Deadlocks),
            Event::Break => Some(Count::Breaks),
            Event::Fence => Some(Count::Fences),
            Event::Stale => Some(Count::Stale),
            Event::Denied => Some(Count::Denied),
        }
    }
}

/// What has happened on a mount.
#[derive(Debug, Default)]
pub struct Events {
    /// How often.
    pub counts: Counts,
    said: Mutex<HashMap<(Event, String), Said>>,
}

/// When a line was last written, and how many were not since.
#[derive(Debug, Clone, Copy)]
struct Said {
    at: Duration,
    left_out: u64,
}

impl Events {
    /// It has happened to `file`: counts it, and says it, in a sentence about the file.
    pub fn happened(&self, event: Event, level: Level, file: &str, what: fmt::Arguments<'_>) {
        if let Some(count) = event.count() {
            self.counts.add(count, 1);
        }
        if !log::log_enabled!(level) {
            return;
        }
        let word = event.word();
        match self.may_say(event, file, boottime()) {
            None => {}
            Some(0) => log::log!(level, "{file}: {what} [event={word}]"),
            Some(more) => log::log!(level, "{file}: {what} [event={word} left_out={more}]"),
        }
    }

    /// Whether a line may be written now; gives how many were not since the last one.
    fn may_say(&self, event: Event, file: &str, now: Duration) -> Option<u64> {
        let mut said = self.said.lock();
        let is_recent = |said: &Said| now.saturating_sub(said.at) < QUIET;
        if said.len() >= MANY {
            // What was left out of them and is never told is in the totals.
            said.retain(|_, said| is_recent(said));
            if said.len() >= MANY {
                said.clear();
            }
        }
        let this = (event, file.to_owned());
        if let Some(before) = said.get_mut(&this).filter(|said| is_recent(said)) {
            before.left_out += 1;
            return None;
        }
        let now = Said {
            at: now,
            left_out: 0,
        };
        let before = said.insert(this, now);
        Some(before.map_or(0, |before| before.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_for_each_file_and_kind() {
        let events = Events::default();
        let at = |seconds| Duration::from_secs(seconds);
        let say = |event, file, now| events.may_say(event, file, at(now));
        assert_eq!(say(Event::Stale, "a", 0), Some(0));
        assert_eq!(say(Event::Stale, "a", 1), None);
        assert_eq!(say(Event::Stale, "a", 9), None);
        assert_eq!(say(Event::Stale, "b", 9), Some(0));
        assert_eq!(say(Event::Denied, "a", 9), Some(0));
        assert_eq!(say(Event::Stale, "a", 10), Some(2));
        assert_eq!(say(Event::Stale, "a", 19), None);
        assert_eq!(say(Event::Stale, "a", 20), Some(1));
        assert_eq!(say(Event::Stale, "a", 30), Some(0));
    }

    #[test]
    fn many_files_do_not_fill_the_memory() {
        let events = Events::default();
        for number in 0..10 * MANY {
            let said = events.may_say(Event::Stale, &number.to_string(), Duration::ZERO);
            assert_eq!(said, Some(0));
            assert!(events.said.lock().len() <= MANY);
        }
    }
}
