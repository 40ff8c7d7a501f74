//! Why a demo ends early: an interruption, or a failure in one sentence.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What ended the demo before its time.
#[derive(Debug)]
pub enum Failure {
    /// This signal arrived.
    Interrupted(u8),
    /// Something failed; the sentence is for the user.
    Failed(String),
}

impl Failure {
    /// "cannot DO PATH: ERROR".
    pub fn on(what: &str, path: &Path, error: impl Display) -> Failure {
        Failure::Failed(format!("cannot {what} {}: {error}", path.display()))
    }
}

/// Notes SIGINT, SIGTERM and SIGHUP instead of dying of them, so that every guard on the stack
/// is dropped: the writers ended, the mounts unmounted, the directory removed.
#[derive(Debug)]
pub struct Interrupts {
    arrived: Arc<AtomicUsize>,
}

impl Interrupts {
    /// Starts noting signals.
    pub fn watch() -> Result<Interrupts, Failure> {
        let arrived = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(signal, Arc::clone(&arrived), signal as usize)
                .map_err(|error| Failure::Failed(format!("cannot watch for signals: {error}")))?;
        }
        Ok(Interrupts { arrived })
    }

    /// Fails if a signal has arrived.
    pub fn check(&self) -> Result<(), Failure> {
        match self.arrived.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Interrupted(signal as u8)),
        }
    }
}
