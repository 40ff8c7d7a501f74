//! A file that two hosts guard, whose locks are broken after the shortest time.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Mount, Who, command, directory, finish, send};

/// The shortest time after which a lock can be broken.
pub const STALE: Duration = Duration::from_secs(4);

/// A directory with a guarded file `log`, mounted twice, as on two hosts.
pub struct World {
    /// The first mount.
    pub one: Mount,
    /// The second.
    pub two: Mount,
    /// The directory.
    pub source: TempDir,
}

impl World {
    /// The shortest `stale_after`, and further keys of the rule.
    pub fn new(keys: &str) -> World {
        World::whose_locks_last("4s", keys)
    }

    /// Another `stale_after`.
    pub fn whose_locks_last(stale_after: &str, keys: &str) -> World {
        let source = directory();
        let rules = "version = 1\n[[guard]]\nfiles = [\"log\"]";
        let rules = format!("{rules}\nstale_after = \"{stale_after}\"\n{keys}\n");
        fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
        fs::write(source.path().join("log"), "").expect("write the log");
        World {
            one: Mount::new(source.path()),
            two: Mount::new(source.path()),
            source,
        }
    }

    /// What the file holds, past dotlockfs.
    pub fn text(&self) -> String {
        fs::read_to_string(self.source.path().join("log")).expect("read the log")
    }

    /// Which file it is.
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.source.path().join("log"))
            .expect("stat")
            .ino()
    }

    /// The lock's own names of a kind.
    pub fn names(&self, step: &str) -> Vec<String> {
        let entries = fs::read_dir(self.source.path()).expect("list");
        entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .filter(|name| name.starts_with(&format!(".log.{step}.")))
            .collect()
    }

    /// Stops the daemon of the first mount for so long that its lock can be broken.
    pub fn stop_one(&self, during: impl FnOnce()) {
        let _stopped = Stopped::new(self.one.daemon());
        during();
    }
}

/// A daemon that is stopped until this is dropped.
#[must_use]
pub struct Stopped(u32);

impl Stopped {
    /// Stops it.
    pub fn new(daemon: u32) -> Stopped {
        send(daemon, libc::SIGSTOP);
        Stopped(daemon)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send(self.0, libc::SIGCONT);
    }
}

/// Appends a line by a shell, which must succeed, and says how long it took.
#[track_caller]
pub fn append(mount: &Mount, line: &str) -> Duration {
    let began = Instant::now();
    let script = r#"printf '%s\n' "$2" >> "$1""#;
    let mut shell = command(Who::Root, "sh");
    shell
        .args(["-euc", script, "sh"])
        .arg(mount.join("log"))
        .arg(line);
    finish(&mut shell).success();
    began.elapsed()
}
