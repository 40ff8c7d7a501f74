//! Going into the background, and where log messages go.

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use log::LevelFilter;

use crate::sys::process::{self, Fork};

/// What the background process writes to its parent once the mount answers.
const READY: &[u8] = b"ready";

/// fuser says as an error that the kernel no longer waits for an answer, which is what happens
/// when a waiting program is killed.
const QUIET: &str = "fuser::reply";

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

/// Logs to syslog, which journald listens to as well; `RUST_LOG` overrides the level.
fn log_to_syslog(level: LevelFilter) -> Result<(), Box<dyn Error>> {
    let level = std::env::var("RUST_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(level);
    let formatter = syslog::Formatter3164 {
        facility: syslog::Facility::LOG_DAEMON,
        hostname: None,
        process: "dotlockfs".into(),
        pid: std::process::id(),
    };
    let logger = syslog::BasicLogger::new(syslog::unix(formatter)?);
    log::set_boxed_logger(Box::new(Syslog(logger)))?;
    log::set_max_level(level);
    Ok(())
}

/// syslog, without what is noise.
struct Syslog(syslog::BasicLogger);

impl log::Log for Syslog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() != QUIET && self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
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
    if process::fork()? == Fork::Parent {
        drop(writer);
        let mut said = Vec::new();
        fs::File::from(reader).read_to_end(&mut said)?;
        return match said.strip_suffix(READY) {
            Some(warning) => {
                io::stderr().write_all(warning)?;
                Ok(ExitCode::SUCCESS)
            }
            None if said.is_empty() => Err("the background process ended without a word".into()),
            None => Err(String::from_utf8_lossy(&said).into()),
        };
    }
    drop(reader);
    let mut pipe = Some(fs::File::from(writer));
    process::new_session()?;
    std::env::set_current_dir("/")?;
    let warning = match log_to_syslog(level) {
        Ok(()) => "",
        Err(_) => "dotlockfs: warning: no syslog here, so messages are lost; -f shows them\n",
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
