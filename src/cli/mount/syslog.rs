//! Messages to syslog, which journald listens to as well.
//!
//! At boot dotlockfs may be there before the one who listens, and that one may be started anew. So
//! messages that nobody takes are kept, and sent as soon as the socket is there: a thread waits
//! for its name to appear (it sleeps until then), and each new message is another attempt.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::Mutex;
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use super::daemon::QUIET;
use crate::sys;
use crate::sys::watch::Watch;

/// How many messages wait for the socket at the most; the oldest go first.
const KEPT: usize = 1000;
/// A message that has waited for longer says so.
const LATE: Duration = Duration::from_secs(2);
/// The name of the socket; it may be a link.
const SOCKET: &str = "/dev/log";
/// How often, and how far apart, the socket is tried once its name is there: the one who makes it
/// listens a moment later.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// Sends all that is logged to syslog.
pub(super) struct Syslog(Arc<Mutex<Line>>);

/// The way to whoever listens.
struct Line {
    logger: Option<Logger<LoggerBackend, Formatter3164>>,
    waiting: VecDeque<Message>,
    /// How many messages did not fit in, or were too long.
    dropped: u64,
    /// Whether a thread waits for the socket.
    is_watched: bool,
}

struct Message {
    level: Level,
    text: String,
    since: Instant,
}

/// What became of a message.
enum Delivery {
    Done,
    /// No socket takes it; those behind it must not wait for it.
    TooLong,
    /// Nobody listens.
    Nobody,
}

/// Logs to syslog from now on. Says whether somebody listens yet.
///
/// # Errors
/// If this process logs already.
pub(super) fn start(level: LevelFilter) -> Result<bool, log::SetLoggerError> {
    let mut line = Line {
        logger: None,
        waiting: VecDeque::new(),
        dropped: 0,
        is_watched: false,
    };
    let heard = line.connect();
    log::set_boxed_logger(Box::new(Syslog(Arc::new(Mutex::new(line)))))?;
    log::set_max_level(level);
    Ok(heard)
}

impl log::Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() != QUIET && metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = self.0.lock();
        if line.waiting.len() == KEPT {
            line.waiting.pop_front();
            line.dropped += 1;
        }
        line.waiting.push_back(Message {
            level: record.level(),
            text: record.args().to_string(),
            since: Instant::now(),
        });
        if line.send() || line.is_watched {
            return;
        }
        let watched = Arc::clone(&self.0);
        line.is_watched = thread::Builder::new()
            .name("syslog".to_owned())
            .spawn(move || watch(&watched))
            .is_ok();
    }

    fn flush(&self) {
        self.0.lock().send();
    }
}

impl Line {
    fn connect(&mut self) -> bool {
        let formatter = Formatter3164 {
            facility: Facility::LOG_DAEMON,
            hostname: None,
            process: "dotlockfs".into(),
            pid: std::process::id(),
        };
        self.logger = syslog::unix(formatter).ok();
        self.logger.is_some()
    }

    /// Sends what waits, and says whether nothing is left.
    fn send(&mut self) -> bool {
        self.send_lost();
        while let Some(message) = self.waiting.pop_front() {
            let late = message.since.elapsed();
            let text = match late < LATE {
                true => message.text.clone(),
                false => format!("{} ({} s ago)", message.text, late.as_secs()),
            };
            match self.deliver(message.level, &text) {
                Delivery::Done => {}
                Delivery::TooLong => self.dropped += 1,
                Delivery::Nobody => {
                    self.waiting.push_front(message);
                    return false;
                }
            }
        }
        self.send_lost();
        true
    }

    /// Says how many messages are lost, where some are.
    fn send_lost(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let text = lost(self.dropped);
        if let Delivery::Done = self.deliver(Level::Warn, &text) {
            self.dropped = 0;
        }
    }

    /// Sends one message; by a new connection where the old one leads nowhere.
    fn deliver(&mut self, level: Level, text: &str) -> Delivery {
        for _ in 0..2 {
            if self.logger.is_none() && !self.connect() {
                return Delivery::Nobody;
            }
            let Some(logger) = &mut self.logger else {
                return Delivery::Nobody;
            };
            let sent = match level {
                Level::Error => logger.err(text),
                Level::Warn => logger.warning(text),
                Level::Info => logger.info(text),
                Level::Debug | Level::Trace => logger.debug(text),
            };
            match sent {
                Ok(()) => return Delivery::Done,
                Err(syslog::Error::Write(error) | syslog::Error::Io(error))
                    if error.raw_os_error() == Some(libc::EMSGSIZE) =>
                {
                    return Delivery::TooLong;
                }
                Err(_) => self.logger = None,
            }
        }
        Delivery::Nobody
    }
}

fn lost(messages: u64) -> String {
    format!("{messages} messages are lost: there was no syslog to take them, or they were too long")
}

/// Waits for the socket, and sends what waits for it. Where names cannot be watched, the next
/// message is the next attempt.
fn watch(line: &Mutex<Line>) {
    if wait_for_the_socket(line).is_err() {
        line.lock().is_watched = false;
    }
}

fn wait_for_the_socket(line: &Mutex<Line>) -> io::Result<()> {
    let watch = Watch::new()?;
    let socket = Path::new(SOCKET);
    loop {
        watch_way(&watch, socket)?;
        // With systemd it is a link to another directory.
        if let Ok(target) = std::fs::read_link(socket) {
            watch_way(&watch, &Path::new("/dev").join(target))?;
        }
        for _ in 0..TRIES {
            let mut line = line.lock();
            if line.send() {
                // Before another message can come, and fail.
                line.is_watched = false;
                return Ok(());
            }
            drop(line);
            if !socket.exists() {
                break;
            }
            thread::sleep(PAUSE);
        }
        watch.wait()?;
    }
}

/// Watches the nearest directory on the way to a name that is there.
fn watch_way(watch: &Watch, name: &Path) -> io::Result<()> {
    let mut watched = None;
    loop {
        let nearest = name.ancestors().skip(1).find(|above| above.is_dir());
        // Nothing has come nearer before the watch was there.
        if nearest == watched {
            return Ok(());
        }
        if let Some(nearest) = nearest {
            watch.add(&sys::c_name(nearest.as_os_str())?)?;
        }
        watched = nearest;
    }
}
