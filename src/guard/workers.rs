//! Threads for guards that have work. A guard may have to wait long for its lock, or for a
//! server that does not answer, so each guard at work has a thread to itself; idle threads are
//! used again, and end after a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Guard;

/// How long an idle thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);
/// So many guards can be at work; with more, their calls fail with `EAGAIN`.
const MAX_THREADS: usize = 4096;
/// The calls below need little; with thousands of guards waiting, it adds up.
const STACK: usize = 256 * 1024;

/// The threads.
#[derive(Debug, Default)]
pub struct Workers {
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Guard>>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// Lets a thread call `Guard::run`.
    pub fn submit(&self, guard: Arc<Guard>) {
        let mut state = self.pool.state.lock();
        if state.threads >= MAX_THREADS && state.idle <= state.queue.len() {
            // Each may be kept busy by a file that is open for a day.
            drop(state);
            log::error!(
                "{}: cannot be locked, since {MAX_THREADS} files of this mount are; calls fail \
                 with EAGAIN",
                guard.label()
            );
            return guard.give_up();
        }
        state.queue.push_back(guard);
        if state.idle >= state.queue.len() {
            self.pool.work.notify_one();
            return;
        }
        let pool = Arc::clone(&self.pool);
        let started = std::thread::Builder::new()
            .name("guard".to_owned())
            .stack_size(STACK)
            .spawn(move || pool.serve());
        match started {
            Ok(_) => state.threads += 1,
            Err(error) => {
                log::error!(
                    "could not start a thread that takes locks, so programs wait longer or fail: \
                     {error}; raise the limit of threads (ulimit -u; systemd: TasksMax=)"
                );
                // The threads that there are will come to it.
                if state.threads == 0 {
                    let stranded = std::mem::take(&mut state.queue);
                    drop(state);
                    for guard in stranded {
                        guard.give_up();
                    }
                }
            }
        }
    }
}

impl Pool {
    fn serve(&self) {
        loop {
            let mut state = self.state.lock();
            while state.queue.is_empty() {
                state.idle += 1;
                let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
                state.idle -= 1;
                if timed_out && state.queue.is_empty() {
                    state.threads -= 1;
                    return;
                }
            }
            let guard = state.queue.pop_front();
            drop(state);
            if let Some(guard) = guard {
                // A fault in one guard's work must not strand the others that wait for a thread.
                let run = std::panic::AssertUnwindSafe(|| guard.run());
                if std::panic::catch_unwind(run).is_err() {
                    log::error!("a fault in dotlockfs; the calls that waited fail");
                    guard.give_up();
                }
            }
        }
    }
}
