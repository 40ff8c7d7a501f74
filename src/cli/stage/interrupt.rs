//! Why a run ends early: an interruption, or a failure in one sentence.

use std::error::Error;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What ended a run before its time.
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

/// The exit status of a run that says whether all was well.
///
/// # Errors
/// The sentence of a failure.
pub fn exit_status(outcome: Result<bool, Failure>) -> Result<ExitCode, Box<dyn Error>> {
    match outcome {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(Failure::Interrupted(signal)) => {
            eprintln!("dotlockfs: interrupted before the end, so there are no figures");
            Ok(ExitCode::from(128 + signal))
        }
        Err(Failure::Failed(sentence)) => Err(sentence.into()),
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
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn watch() -> Result<Interrupts, Failure> {
        let arrived = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(signal, Arc::clone(&arrived), signal as usize)
                .map_err(|error| Failure::Failed(format!("cannot watch for signals: {error}")))?;
        }
        Ok(Interrupts { arrived })
    }

    /// Fails if a signal has arrived.
    ///
    /// # Errors
    /// [`Failure::Interrupted`], with the first of them.
    pub fn check(&self) -> Result<(), Failure> {
        match self.arrived.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure::Interrupted(signal as u8)),
        }
    }
}
