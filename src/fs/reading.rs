//! `replace = "hold"`: who opens a file to read it holds its lock until it has put a new file in
//! its place, or shows that it will not.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::guard::family::{Process, has_ended, related};
use crate::guard::{Hold, Key};
use crate::sys::process::boottime;

/// How long a process that has closed the file has to begin a new one. Most programs close what
/// they have read before they open what they write.
const TO_BEGIN: Duration = Duration::from_secs(1);
/// How long one that has begun a new file, after that: it may have been for something else.
const TO_END: Duration = Duration::from_secs(30);
/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Which of the locks that processes hold for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(u64);

/// The locks of processes that read.
#[derive(Debug, Default)]
pub struct Reading {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    held: Vec<Held>,
    /// How many there have been.
    begun: u64,
    /// A thread looks after them.
    watched: bool,
}

#[derive(Debug)]
struct Held {
    number: Number,
    key: Key,
    process: Process,
    /// Descriptors that are open.
    opens: usize,
    /// When the last was closed.
    closed: Duration,
    /// The process has made a new file since.
    began: bool,
    _hold: Hold,
}

impl Held {
    fn is_over(&self) -> bool {
        let patience = if self.began { TO_END } else { TO_BEGIN };
        let waited = boottime().saturating_sub(self.closed) >= patience;
        (self.opens == 0 && waited) || has_ended(self.process)
    }
}

impl Reading {
    /// The process has opened the file for reading, and holds the lock.
    pub fn begin(&self, key: Key, process: Process, hold: Hold) -> Number {
        let mut state = self.state.lock();
        state.begun += 1;
        let number = Number(state.begun);
        state.held.push(Held {
            number,
            key,
            process,
            opens: 1,
            closed: Duration::ZERO,
            began: false,
            _hold: hold,
        });
        if !state.watched {
            let shared = Arc::clone(&self.state);
            let thread = std::thread::Builder::new().name("readers".to_owned());
            state.watched = thread.spawn(move || watch(&shared)).is_ok();
        }
        number
    }

    /// Counts one more descriptor where the process, or one of its family, holds the lock
    /// already; gives which.
    pub fn opens(&self, key: &Key, pid: u32) -> Option<Number> {
        let mut state = self.state.lock();
        let held = state
            .held
            .iter_mut()
            .find(|held| held.key == *key && related(held.process.pid, pid));
        held.map(|held| {
            held.opens += 1;
            held.number
        })
    }

    /// A descriptor was closed that was counted for this lock. (That is told a while after the
    /// program went on: it may have replaced the file since, and hold another lock on the new one.)
    pub fn closed(&self, number: Number) {
        let mut state = self.state.lock();
        if let Some(held) = state.held.iter_mut().find(|held| held.number == number) {
            held.opens = held.opens.saturating_sub(1);
            held.closed = boottime();
        }
    }

    /// A process has made a new file.
    pub fn makes(&self, pid: impl FnOnce() -> u32) {
        let mut state = self.state.lock();
        if state.held.is_empty() {
            return;
        }
        let pid = pid();
        for held in &mut state.held {
            if related(held.process.pid, pid) {
                held.began = true;
            }
        }
    }

    /// A process has put a new file in its place.
    pub fn replaced(&self, key: &Key, pid: u32) {
        let mut over = Vec::new();
        let mut state = self.state.lock();
        let mut at = 0;
        while at < state.held.len() {
            if state.held[at].key == *key && related(state.held[at].process.pid, pid) {
                over.push(state.held.swap_remove(at));
            } else {
                at += 1;
            }
        }
        drop(state);
    }

    /// Gives all locks back.
    pub fn end(&self) {
        let held = std::mem::take(&mut self.state.lock().held);
        drop(held);
    }
}

/// Gives back the locks of those who will not replace the file; ends when none is held.
fn watch(shared: &Mutex<State>) {
    loop {
        std::thread::sleep(LOOK);
        let mut over = Vec::new();
        let mut state = shared.lock();
        let mut at = 0;
        while at < state.held.len() {
            if state.held[at].is_over() {
                over.push(state.held.swap_remove(at));
            } else {
                at += 1;
            }
        }
        if state.held.is_empty() {
            state.watched = false;
            return;
        }
        drop(state);
    }
}
