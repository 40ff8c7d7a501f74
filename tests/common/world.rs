//! A file that two hosts guard, whose locks are broken after the shortest time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
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
        let source = directory();
        let rules =
            format!("version = 1\n[[guard]]\nfiles = [\"log\"]\nstale_after = \"4s\"\n{keys}\n");
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
        let daemon = self.one.daemon();
        send(daemon, libc::SIGSTOP);
        during();
        send(daemon, libc::SIGCONT);
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

/// A Python program that does what it is told, one expression or statement a line, and says what
/// came of it.
pub struct Program {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it in the mount.
    pub fn on(mount: &Mount) -> Program {
        let text = r#"
import errno, fcntl, os, sys
for line in sys.stdin:
    try:
        exec(line)
        print("ok", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"#;
        let mut python = command(Who::Root, "python3");
        python
            .args(["-Bc", text])
            .current_dir(mount.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 starts");
        Program {
            orders: child.stdin.take().expect("piped"),
            answers: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// Gives the order, and tells "ok" or the name of the error.
    #[track_caller]
    pub fn ask(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }

    /// Gives the order, which must succeed.
    #[track_caller]
    pub fn does(&mut self, order: &str) {
        assert_eq!(self.ask(order), "ok", "{order}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
