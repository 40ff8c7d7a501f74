//! A program that does what the test tells it, and says what came of it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::{DEADLINE, Mount, Who, command, is_readable_within};

/// A Python program that does what it is told, one expression or statement a line, and says what
/// came of it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it as the superuser, at the root of the mount.
    #[track_caller]
    pub fn on(mount: &Mount) -> Program {
        Program::of(Who::Root, mount)
    }

    /// Starts it as somebody, at the root of the mount.
    #[track_caller]
    pub fn of(who: Who, mount: &Mount) -> Program {
        let text = r#"
import errno, fcntl, os, sys
for line in sys.stdin:
    try:
        exec(line)
        print("ok", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"#;
        let mut python = command(who, "python3");
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

    /// Has something done; `"ok"`, or the name of the error.
    #[track_caller]
    pub fn ask(&mut self, order: &str) -> String {
        self.begin(order);
        self.answer(order)
    }

    /// Has something begun, the answer to which is asked for later.
    #[track_caller]
    pub fn begin(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("it listens");
    }

    /// Whether there is an answer to the last order within a while.
    pub fn answers_within(&self, time: Duration) -> bool {
        is_readable_within(self.answers.get_ref(), time)
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What came of the last order.
    #[track_caller]
    pub fn answer(&mut self, order: &str) -> String {
        let in_time = self.answers_within(DEADLINE);
        assert!(in_time, "no answer within {DEADLINE:?}: {order}");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        answer.trim_end().to_owned()
    }

    /// Has something done that must succeed.
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
