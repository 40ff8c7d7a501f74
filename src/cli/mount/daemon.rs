//! Going into the background, and where log messages go.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::syslog;
use crate::sys::process::{self, Fork, Mask};

/// What the background process writes to its parent once the mount answers. No error ends so: no
/// path holds this byte.
const READY: &[u8] = b"\0";

/// The signals that ask for the end before the mount answers.
const ENDS: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

/// The exit status after one of them, that of mount(8).
const INTERRUPTED: i32 = 8;

/// How long the background process may take to end then, and how often that is looked for.
const ENDING: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

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

/// Logs warnings and errors to standard error, each as a line with the command's name. `RUST_LOG`
/// is not heeded: it is meant for the job that a user runs.
pub fn log_plainly() {
    env_logger::Builder::new()
        .filter_level(LevelFilter::Warn)
        .filter_module(QUIET, LevelFilter::Off)
        .format(|line, record| writeln!(line, "dotlockfs: {}", record.args()))
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
    let (reader, writer) = process::pipe().map_err(no_background)?;
    // One that comes before the parent has its handlers waits for them.
    let unblocked = process::block(&ENDS).map_err(no_background)?;
    let forked = process::fork();
    if let Ok(Fork::Parent(child)) = forked {
        drop(writer);
        return wait_until_ready(reader.into(), child, unblocked);
    }
    unblocked.restore();
    forked.map_err(no_background)?;
    drop(reader);
    let mut pipe = Some(fs::File::from(writer));
    std::env::set_current_dir("/").map_err(no_background)?;
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
        // Not before the mount: who has called mount(8) because somebody waits for the mountpoint
        // (autofs) knows by the process group who must not wait for it, too.
        process::new_session()?;
        // The shell that started us may wait for the end of our output.
        let null = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        for number in 0..3 {
            process::redirect(&null, number)?;
        }
        pipe.write_all(&[warning.as_bytes(), READY].concat())
    };
    match serve(&mut ready) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let told = match &mut pipe {
                Some(pipe) => write!(pipe, "{error}").is_ok(),
                None => false,
            };
            if !told {
                log::error!("{error}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn no_background(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot go on in the background: {error}"),
    )
}

/// Waits until the mount of the background process answers. A signal ends that process as well;
/// a second one does not wait for it. `unblocked` is for the time after the handlers are there.
fn wait_until_ready(
    mut reader: fs::File,
    child: u32,
    unblocked: Mask,
) -> Result<ExitCode, Box<dyn Error>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    process::end_with(&ENDS, child, &interrupted, INTERRUPTED)?;
    unblocked.restore();
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    // From here on it is decided: a signal would end a mount that is reported as made.
    let blocked = process::block(&ENDS)?;
    if interrupted.load(Ordering::SeqCst) {
        blocked.restore();
        wait_for_the_end(child)?;
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

/// Waits for the end of a process that was asked to end, so that its mount is gone.
fn wait_for_the_end(child: u32) -> io::Result<()> {
    let began = Instant::now();
    while !process::has_ended(child)? {
        if began.elapsed() > ENDING {
            eprintln!("dotlockfs: the background process {child} has not ended yet");
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
