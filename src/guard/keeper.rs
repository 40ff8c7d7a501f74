//! One thread for what must be done later: interrupting waiting programs, and cleaning up after
//! turns. It sleeps for as long as there is nothing to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Guard, holds, stuck};
use crate::sys::process::boottime;

/// How often waiting programs are looked at for signals. Ctrl-C must end a waiting program
/// within half a second.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(100);

/// The thread, and what it is to do.
#[derive(Debug)]
pub struct Keeper {
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    state: Mutex<State>,
    /// Processes that were seen to wait in the kernel; see [`stuck`].
    stuck: Mutex<stuck::Sleeps>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Guards with a worker, whose programs may be waiting, by address.
    at_work: BTreeMap<usize, Weak<Guard>>,
    /// Guards that must be run at a certain time; a number keeps equal times apart.
    due: BTreeMap<(Duration, u64), Weak<Guard>>,
    count: u64,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start() -> std::io::Result<Keeper> {
        let plan = Arc::new(Plan::default());
        let thread = Arc::downgrade(&plan);
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                while let Some(plan) = thread.upgrade() {
                    plan.work();
                }
            })?;
        Ok(Keeper { plan })
    }

    /// Waits until nobody has the plan locked.
    pub fn take_lock(&self) {
        drop(self.plan.state.lock());
    }

    /// The guard's programs are looked at for signals, until [`rests`](Self::rests).
    pub fn works(&self, guard: &Arc<Guard>) {
        let mut state = self.plan.state.lock();
        if state.at_work.is_empty() {
            self.plan.changed.notify_one();
        }
        state.at_work.insert(address(guard), Arc::downgrade(guard));
    }

    /// The guard has no work.
    pub fn rests(&self, guard: &Arc<Guard>) {
        self.plan.state.lock().at_work.remove(&address(guard));
    }

    /// The guard is to be run at `time`, on [`boottime`]'s clock, if it is not at work then.
    pub fn run_at(&self, time: Duration, guard: &Arc<Guard>) {
        let mut state = self.plan.state.lock();
        state.count += 1;
        let number = state.count;
        let first = state.due.first_key_value().map(|((first, _), _)| *first);
        state.due.insert((time, number), Arc::downgrade(guard));
        if first.is_none_or(|first| time < first) {
            self.plan.changed.notify_one();
        }
    }
}

fn address(guard: &Arc<Guard>) -> usize {
    Arc::as_ptr(guard) as usize
}

impl Plan {
    /// One round: waits until something is due, and does it.
    fn work(&self) {
        let mut due = Vec::new();
        let mut at_work = Vec::new();
        {
            let mut state = self.state.lock();
            let now = boottime();
            let next = state.due.first_key_value().map(|((time, _), _)| *time);
            if next.is_none_or(|time| time > now) {
                let until_due = next.map(|time| time - now);
                let wait = match (state.at_work.is_empty(), until_due) {
                    (true, None) => None,
                    (true, Some(time)) => Some(time),
                    (false, None) => Some(LOOK_FOR_SIGNALS),
                    (false, Some(time)) => Some(time.min(LOOK_FOR_SIGNALS)),
                };
                match wait {
                    None => self.changed.wait(&mut state),
                    Some(time) => drop(self.changed.wait_for(&mut state, time)),
                }
            }
            let now = boottime();
            while let Some(entry) = state.due.first_entry()
                && entry.key().0 <= now
            {
                due.push(entry.remove());
            }
            at_work.extend(state.at_work.values().filter_map(Weak::upgrade));
        }
        for guard in due.iter().filter_map(Weak::upgrade) {
            guard.wake();
        }
        for guard in &at_work {
            guard.interrupt_waiters();
            guard.end_waits_for_idle(boottime());
        }
        holds::end_circles(&at_work);
        stuck::free_holders(&at_work, &mut self.stuck.lock());
    }
}
