//! Programs that append records, started together, and the check of what they left.

use std::fmt;
use std::time::Duration;

use crate::cluster::{Job, Output};
use crate::lab::{Lab, program};
use crate::table::Cells;
use crate::team::Team;

/// A program that appends records to a file.
#[derive(Clone, Copy)]
pub enum Program {
    /// `echo ... >>FILE` in a loop.
    ShellLoop,
    /// The same; a line that is refused is tried again.
    ShellLoopAgain,
    /// A process for each `>>FILE`.
    ShortLived,
    /// python's `open(FILE, "a")` with its default buffer.
    Buffered,
    /// A descriptor that stays open, one `write` for each line.
    Held,
    /// The same, until [`Writers::stop`].
    HeldUntilStopped,
    /// The same, with records of this size.
    Blocks(usize),
    /// Opens, appends and closes under a lock file of its own making.
    Dotlocking,
    /// Empties the file again and again; appends nothing.
    Truncating,
}

impl Program {
    fn command(self, file: &str, writer: &str, count: usize) -> String {
        let arguments = format!("{file} {writer} {count}");
        match self {
            Program::ShellLoop => program("shell-loop.sh", &arguments),
            Program::ShellLoopAgain => {
                format!("env AGAIN=1 {}", program("shell-loop.sh", &arguments))
            }
            Program::ShortLived => program("short-lived.sh", &arguments),
            Program::Buffered => program("buffered.py", &arguments),
            Program::Held => program("held.py", &arguments),
            Program::HeldUntilStopped => {
                format!("env UNTIL_STOPPED=1 {}", program("held.py", &arguments))
            }
            Program::Blocks(size) => program("held.py", &format!("{arguments} {size}")),
            Program::Dotlocking => program("dotlocking.py", &arguments),
            Program::Truncating => program("truncating.sh", &arguments),
        }
    }
}

/// Writers that are about to start, or at work.
pub struct Writers<'a> {
    team: Team<'a>,
    expected: Vec<(String, usize)>,
}

impl<'a> Writers<'a> {
    /// No writers yet.
    pub fn new(lab: &'a Lab) -> Writers<'a> {
        Writers {
            team: Team::new(lab),
            expected: Vec::new(),
        }
    }

    /// Two writers on each host, with `count` records each.
    pub fn two_on_each(
        lab: &'a Lab,
        hosts: &[&str],
        program: Program,
        file: &str,
        count: usize,
    ) -> Writers<'a> {
        let mut writers = Writers::new(lab);
        for host in hosts {
            for name in ["a", "b"] {
                writers.add(host, name, program, file, count);
            }
        }
        writers
    }

    /// One more writer: `name` is one letter, its own on that host.
    pub fn add(&mut self, host: &str, name: &str, program: Program, file: &str, count: usize) {
        self.add_as(host, 0, name, program, file, count);
    }

    /// One more writer, as an ordinary user.
    pub fn add_as(
        &mut self,
        host: &str,
        uid: u32,
        name: &str,
        program: Program,
        file: &str,
        count: usize,
    ) {
        // The server's own programs count as a host, too.
        let writer = format!("{}.{name}", host.replace("server", "host0"));
        // Each tells on its own machine how many records were accepted.
        let script = format!(
            "export ACKNOWLEDGED={}
            exec {}",
            self.acknowledged(&writer),
            program.command(file, &writer, count)
        );
        self.team.add(host, uid, &script);
        if !matches!(program, Program::Truncating) {
            self.expected.push((writer, count));
        }
    }

    /// Lets all of them begin, as soon as all are ready.
    pub fn start(&mut self) -> &mut Self {
        self.team.start();
        self
    }

    /// Tells those that write until they are stopped that it is enough.
    pub fn stop(&self) {
        self.team.stop();
    }

    /// Waits for the end of all; each must have succeeded. Gives what they were to append, and
    /// how long it took.
    pub fn finish(mut self) -> (Expected, Duration) {
        let took = self.team.finish();
        (Expected::exactly(&self.expected), took)
    }

    /// Waits for the writers of one host; each must have succeeded.
    pub fn finish_on(&mut self, host: &str) {
        self.team.finish_on(host);
    }

    /// Waits for the end of all, however they end. Gives what they know to be appended: each
    /// record that `write` accepted, and perhaps the one after it, where a writer failed.
    pub fn finish_anyhow(mut self) -> (Expected, Vec<Output>) {
        let ended = self.team.finish_anyhow();
        let mut words = Vec::new();
        for ((host, output), (writer, _)) in ended.iter().zip(&self.expected) {
            let said = self.team.lab.cluster.run_ok(
                host,
                &format!("cat {} 2>/dev/null || echo 0", self.acknowledged(writer)),
            );
            let acknowledged: usize = said.trim().parse().expect("a number");
            assert!(acknowledged > 0, "{writer} has written nothing: {output}");
            let more = usize::from(!output.success());
            words.push(format!("{writer}={acknowledged}+{more}"));
        }
        let outputs = ended.into_iter().map(|(_, output)| output).collect();
        (Expected(words), outputs)
    }

    /// Is any of them still at work?
    pub fn are_running(&mut self) -> bool {
        self.team.are_running()
    }

    /// Waits until each writer has had some records accepted.
    pub fn wait_until_all_write(&self) {
        let scripts = self.expected.iter().map(|(writer, _)| {
            let (host, _) = writer.split_once('.').expect("HOST.NAME");
            let script = format!(
                "until [[ -s {} ]]; do sleep 0.02; done",
                self.acknowledged(writer)
            );
            self.team.lab.cluster.spawn(host, &script)
        });
        let jobs: Vec<Job> = scripts.collect();
        for job in jobs {
            job.wait_ok();
        }
    }

    /// The file on the writer's host that says how many of its records were accepted.
    fn acknowledged(&self, writer: &str) -> String {
        let run = self.team.barrier().file_name().expect("a name of its own");
        format!("/tmp/acknowledged.{}.{writer}", run.display())
    }
}

/// What should be in a file.
pub struct Expected(Vec<String>);

impl Expected {
    /// Records 0 to count-1 of each writer.
    pub fn exactly(writers: &[(String, usize)]) -> Expected {
        let words = writers
            .iter()
            .map(|(name, count)| format!("{name}={count}"));
        Expected(words.collect())
    }

    /// The part of the writers with this letter.
    pub fn of(mut self, name: &str) -> Expected {
        self.0
            .retain(|word| word.split(['.', '=']).nth(1) == Some(name));
        self
    }

    /// This and more.
    pub fn and(mut self, more: Expected) -> Expected {
        self.0.extend(more.0);
        self
    }
}

/// What the checker found in a file, read on the server's disk.
#[derive(Debug, Default)]
pub struct Found {
    pub expected: usize,
    pub kept: usize,
    pub torn: usize,
    pub doubled: usize,
    pub disordered: usize,
    pub strange: usize,
    faults: Vec<String>,
}

impl Found {
    /// Compares a file on the server's disk with what was appended to it.
    pub fn in_file(lab: &Lab, file: &str, expected: &Expected) -> Found {
        let arguments = format!("{file} {}", expected.0.join(" "));
        let said = lab.server(&program("check.py", &arguments));
        let mut found = Found::default();
        for line in said.lines() {
            let (word, rest) = line.split_once(' ').expect("word and value");
            let number = || rest.parse().expect("a count");
            match word {
                "expected" => found.expected = number(),
                "kept" => found.kept = number(),
                "torn" => found.torn = number(),
                "doubled" => found.doubled = number(),
                "disordered" => found.disordered = number(),
                "strange" => found.strange = number(),
                "!" => found.faults.push(rest.into()),
                _ => panic!("the checker says: {line}"),
            }
        }
        found
    }

    /// Every record once, none torn, each writer's order kept, nothing else in the file.
    pub fn assert_all(&self) {
        assert!(self.is_clean() && self.kept == self.expected, "{self}");
    }

    /// Some records may be missing; otherwise the same.
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "{self}");
    }

    /// A row's part of the table of appends.
    pub fn cells(&self, took: Duration) -> Cells {
        Cells {
            counts: [self.kept, self.torn, self.doubled],
            took,
        }
    }

    /// A row's part of the table of updates: all was done, as far as the programs know.
    pub fn update_cells(&self, took: Duration) -> Cells {
        Cells {
            counts: [self.expected, self.kept, 0],
            took,
        }
    }

    fn is_clean(&self) -> bool {
        self.torn + self.doubled + self.disordered + self.strange == 0
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Found {
            expected,
            kept,
            torn,
            doubled,
            disordered,
            strange,
            faults,
        } = self;
        write!(
            f,
            "of {expected} records {kept} were kept; {torn} torn, {doubled} doubled, \
             {disordered} out of order, {strange} from nowhere\n{}",
            faults.join("\n")
        )
    }
}
