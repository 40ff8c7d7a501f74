//! A program that goes on while the test does, and talks with it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use super::{DEADLINE, Who, command, is_readable_within};

/// A Python program with which the test talks line by line.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talker {
    /// Starts it, with `sys.argv[1]` and so on.
    #[track_caller]
    pub fn new(program: &str, arguments: &[&Path]) -> Talker {
        let mut child = command(Who::Root, "python3")
            .args(["-B", "-c", program])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Talker {
            child,
            input,
            output,
        }
    }

    /// Gives it a line to read.
    pub fn says(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it listens");
    }

    /// Reads lines until this one comes.
    #[track_caller]
    pub fn hears(&mut self, expected: &str) {
        let mut heard = String::new();
        loop {
            let line = self.line();
            assert!(
                !line.is_empty(),
                "it ended without {expected:?}, after {heard:?}"
            );
            if line.trim_end() == expected {
                return;
            }
            heard.push_str(&line);
        }
    }

    /// Reads the next line, with its end; empty where the program has ended.
    #[track_caller]
    pub fn line(&mut self) -> String {
        assert!(self.has_said(DEADLINE), "it says nothing");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it talks");
        line
    }

    /// Whether there is something to read within a while.
    fn has_said(&self, time: Duration) -> bool {
        !self.output.buffer().is_empty() || is_readable_within(self.output.get_ref(), time)
    }
}

impl Talker {
    /// Whether this line comes within a while; no other is taken then.
    pub fn hears_within(&mut self, time: Duration, expected: &str) -> bool {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            if !self.has_said(left) {
                return false;
            }
            let mut line = String::new();
            let len = self.output.read_line(&mut line).expect("it talks");
            if len == 0 || line.trim_end() == expected {
                return len > 0;
            }
        }
        false
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
