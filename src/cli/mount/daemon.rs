//! Going into the background, and where log messages go.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::LevelFilter;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::syslog;
use crate::sys::process::{self, Fork};

/// What the background process writes to its parent once the mount answers.
const READY: &[u8] = b"ready";

/// The exit status after SIGINT or SIGTERM, that of mount(8).
const INTERRUPTED: i32 = 8;

/// fuser says as an error that the kernel no longer waits for an answer, which is what happens
/// when a waiting program is killed.
pub(super) const QUIET: &str = "fuser::reply";

/// Logs to standard error; `RUST_LOG` overrides the level.
pub fn log_to_stderr(level: LevelFilter) {
    env_logger::Builder::new()
        .filter_level(level)
        .filter_module(QUIET, LevelFilter::Off)
        .parse_default_env()
        .init();
}

/// Logs to syslog; `RUST_LOG` overrides the level. Says whether somebody listens yet.
fn log_to_syslog(level: LevelFilter) -> Result<bool, log::SetLoggerError> {
    let level = std::env::var("RUST_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(level);
    syslog::start(level)
}

/// Runs `serve` in a process of its own, in the background. Returns there when it ends, and here
/// once `serve` calls what it is given, or fails.
///
/// # Errors
/// The error of `serve`, where it fails before that.
pub fn in_background(
    level: LevelFilter,
    serve: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> Result<(), Box<dyn Error>>,
) -> Result<ExitCode, Box<dyn Error>> {
    let (reader, writer) = process::pipe()?;
    if let Fork::Parent(child) = process::fork()? {
        drop(writer);
        return wait_until_ready(reader.into(), child);
    }
    drop(reader);
    let mut pipe = Some(fs::File::from(writer));
    process::new_session()?;
    std::env::set_current_dir("/")?;
    let warning = match log_to_syslog(level)? {
        true => "",
        false => {
            "dotlockfs: warning: no syslog here; messages wait until there is one; -f shows them\n"
        }
    };
    let mut ready = || {
        let Some(mut pipe) = pipe.take() else {
            return Ok(());
        };
        // The shell that started us may wait for the end of our output.
        let null = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        for number in 0..3 {
            process::redirect(&null, number)?;
        }
        pipe.write_all(warning.as_bytes())?;
        pipe.write_all(READY)
    };
    match serve(&mut ready) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            match &mut pipe {
                Some(pipe) => write!(pipe, "{error}")?,
                None => log::error!("{error}"),
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Waits until the mount of the background process answers. A signal ends that process as well;
/// a second one does not wait for it.
fn wait_until_ready(mut reader: fs::File, child: u32) -> Result<ExitCode, Box<dyn Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first only ends this process where the flag is set already.
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
        process::terminate_at(signal, child)?;
    }
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    if interrupted.load(Ordering::SeqCst) {
        return Ok(ExitCode::from(INTERRUPTED as u8));
    }
    match said.strip_suffix(READY) {
        Some(warning) => {
            io::stderr().write_all(warning)?;
            Ok(ExitCode::SUCCESS)
        }
        None if said.is_empty() => Err("the background process ended without a word".into()),
        None => Err(String::from_utf8_lossy(&said).into()),
    }
}
