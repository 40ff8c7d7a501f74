//! What a daemon tells of its mount; as JSON between it and `dotlockfs status`, and for scripts.
//!
//! Names and meanings stay as they are; what comes anew is added. Times are seconds. Paths and names
//! are as in messages: control characters, backslashes and bytes that are not UTF-8 are escaped.

use serde::{Deserialize, Serialize};

/// The number of this form; another one would be needed if a name lost its meaning.
pub const FORMAT: u32 = 1;

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// The user it runs as.
    pub uid: u32,
    /// The daemon's host, as it stands in claims.
    pub host: String,
    /// The directory that is guarded.
    pub source: String,
    /// Where the guarded view is.
    pub mountpoint: String,
    /// The number of the mount's file system, as in `/proc/self/mountinfo`.
    pub device: String,
    /// The type of the file system that the source is on; none where that is not known.
    pub file_system: Option<String>,
    /// Since it was mounted.
    pub uptime_seconds: f64,
    /// What it was mounted with.
    pub options: Options,
    /// The rules in force.
    pub rules: Rules,
    /// How many files have a guard, at work or not.
    pub guards_total: usize,
    /// How many of them this mount holds.
    pub guards_held: usize,
    /// For how many of them calls wait that somebody else holds.
    pub guards_waiting: usize,
    /// Those at work, and then others, as many as are told.
    pub guards: Vec<Guard>,
    /// What has happened since it was mounted.
    pub totals: Totals,
    /// System calls of the daemon that cost a way to the server.
    pub calls: Calls,
}

impl Report {
    /// Replaces control characters, of which a daemon tells none: who answers may be somebody else, and a
    /// terminal would obey them.
    pub fn make_printable(&mut self) {
        let texts = [
            &mut self.version,
            &mut self.host,
            &mut self.source,
            &mut self.mountpoint,
            &mut self.device,
        ];
        let others = [
            &mut self.file_system,
            &mut self.options.metrics,
            &mut self.rules.file,
        ];
        for text in texts.into_iter().chain(others.into_iter().flatten()) {
            *text = printable(text);
        }
        for guard in &mut self.guards {
            guard.file = printable(&guard.file);
            if let Some(Holder::Other { host, .. }) = &mut guard.holder {
                *host = printable(host);
            }
        }
    }
}

/// A text without control characters. What is escaped in it stays as it is.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// What a mount was mounted with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// All users may use it.
    pub allow_other: bool,
    /// The kernel may read and write files by itself that are not guarded.
    pub passthrough: bool,
    /// Threads that read requests.
    pub threads: usize,
    /// Where metrics are served.
    pub metrics: Option<String>,
}

/// The rules in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// The rule file; none where the patterns came from `-o guard=`, or there are no rules.
    pub file: Option<String>,
    /// How many there are. 0: every file is guarded for appends and locks.
    pub count: usize,
}

/// The guard of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Its path below the root of the mount.
    pub file: String,
    /// Who has the lock, as far as this host knows.
    pub state: State,
    /// Who it is. None where the lock is free, or that is not known yet.
    pub holder: Option<Holder>,
    /// How many calls wait.
    pub queued: usize,
    /// How long the first of them has waited.
    pub waited_seconds: f64,
}

/// Who has a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody on this mount has it or wants it; another host may have it.
    Free,
    /// This mount.
    Held,
    /// Somebody else, and calls wait for it.
    Waiting,
}

/// The holder of a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Holder {
    /// This mount.
    Here {
        /// The programs that hold it; none where the daemon has it just for a moment's work.
        programs: Vec<u32>,
    },
    /// Another dotlockfs.
    Other {
        /// Its host.
        host: String,
        /// Its process there.
        pid: u32,
    },
    /// A program that has made `FILE.lock`.
    LockFile,
}

/// What has happened since it was mounted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// How long calls were queued before they were begun.
    pub waits: Waits,
    /// Turns taken.
    pub turns: u64,
    /// Pieces in which appends were written.
    pub batches: u64,
    /// Writes of programs that were appended.
    pub appends: u64,
    /// Their bytes.
    pub appended_bytes: u64,
    /// The most appends in one piece.
    pub largest_batch: u64,
    /// Turns of others that were broken here.
    pub breaks: u64,
    /// Turns of this mount that others have ended.
    pub turns_lost: u64,
    /// Files fenced here.
    pub fences: u64,
    /// Requests refused with ESTALE; of a call by a path the kernel makes two.
    pub refused_stale: u64,
    /// Opens for writing refused with EROFS by a rule.
    pub refused_denied: u64,
    /// Calls that failed with EAGAIN, after `lock_timeout` or since they would not wait.
    pub timeouts: u64,
    /// Calls that failed with EDEADLK.
    pub deadlocks: u64,
    /// Calls that a signal has ended while they waited.
    pub interrupted: u64,
    /// Appends that failed otherwise, and calls for which the lock could not be taken.
    pub errors: u64,
}

/// How long calls were queued before they were begun.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    /// How many calls.
    pub count: u64,
    /// Half of them no longer than this, within an eighth.
    pub median_seconds: f64,
    /// 99 of 100 no longer than this, within an eighth.
    pub p99_seconds: f64,
    /// The longest.
    pub max_seconds: f64,
    /// All of them together.
    pub sum_seconds: f64,
}

/// System calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// linkat: the steps of turns.
    pub link: u64,
    /// statx that must ask the server.
    pub getattr: u64,
    /// pwrite.
    pub write: u64,
    /// fsync and fdatasync.
    pub sync: u64,
}
