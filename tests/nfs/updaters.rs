//! Programs that update a file by reading it and writing it again, started together, and the
//! check of what is left of their updates.

use std::fmt;
use std::time::Duration;

use crate::cluster::Output;
use crate::lab::{BOTH, Directory, Lab, VIEW, program};
use crate::table::{Cells, UPDATES};
use crate::team::Team;

/// A kind of program, its file, and what the file is at first.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The name in the table.
    pub title: &'a str,
    /// The program and the words before the file; after it come the writer and a count.
    pub command: (&'a str, &'a str),
    /// The name of the file.
    pub file: &'a str,
    /// What kind of file it is, for the checker.
    pub kind: &'a str,
    /// A shell command that makes it, in its directory, before anybody starts.
    pub make: &'a str,
}

/// The JSON document of `replace.py`.
pub const JSON: &str = "echo '{\"count\": 0, \"done\": []}' >state.json";

impl Task<'_> {
    /// What a writer runs, with the file in this directory.
    fn line(&self, directory: &str, writer: &str, count: usize) -> String {
        let (name, words) = self.command;
        program(
            name,
            &format!("{words} {directory}/{} {writer} {count}", self.file),
        )
    }
}

/// How many writers there are on each host, and how much each does.
#[derive(Clone, Copy)]
pub struct Scale {
    pub writers: usize,
    pub each: usize,
}

impl Scale {
    /// Two writers on each host, a hundred updates by each.
    pub fn usual(lab: &Lab) -> Scale {
        Scale {
            writers: 2,
            each: Scale::of(lab, 100),
        }
    }

    /// So many on NFSv4.2; NFSv3 gets by with a quarter, for the tests shall not take too long.
    pub fn of(lab: &Lab, count: usize) -> usize {
        match lab.vers_number().as_str() {
            "4.2" => count,
            _ => count / 4,
        }
    }
}

/// Runs the task on both hosts, through dotlockfs with these rules, then straight on NFS, and
/// prints both as a row of the table. Gives what came of it through dotlockfs.
pub fn compare(lab: &Lab, task: &Task, scale: Scale, rules: &str) -> Tally {
    compare_teams(lab, task, (rules, ""), |updaters, seen, _| {
        for host in BOTH {
            for name in ["a", "b"].into_iter().take(scale.writers) {
                updaters.add(host, name, task, seen, scale.each);
            }
        }
    })
}

/// The same with any programs, and with further words for dotlockfs's command line after the
/// rules: `add` gets the directory in which the programs work, and the one straight on NFS.
pub fn compare_teams(
    lab: &Lab,
    task: &Task,
    (rules, words): (&str, &str),
    add: impl Fn(&mut Updaters, &str, &str),
) -> Tally {
    let work_in = |directory: &Directory, seen: &str| {
        let mut updaters = Updaters::new(lab);
        add(&mut updaters, seen, &directory.nfs);
        updaters.start();
        updaters.finish(task, directory)
    };
    let make = |directory: &Directory| {
        lab.server(&format!("cd {} && {}", directory.server, task.make));
    };
    let guarded = lab.directory();
    guarded.rules(lab, rules);
    make(&guarded);
    let view = lab.view_of(&guarded.nfs, &BOTH, words);
    let through = work_in(&guarded, VIEW);
    drop(view);

    let (what, total) = (task.command, through.total);
    let plain = lab.once(&format!("{what:?} {total}"), || {
        let directory = lab.directory();
        make(&directory);
        let plain = work_in(&directory, &directory.nfs);
        plain.assert_adds_up();
        if let Some(failure) = plain.failures().next() {
            let failed = plain.failed;
            println!("straight on NFS {failed} failed, such as: {failure}");
        }
        plain.cells()
    });
    UPDATES.print(lab, task.title, total, through.cells(), plain);
    through.assert_adds_up();
    through
}

/// Programs at work on one file.
pub struct Updaters<'a> {
    team: Team<'a>,
    writers: Vec<String>,
    total: usize,
}

impl<'a> Updaters<'a> {
    /// No programs yet.
    pub fn new(lab: &'a Lab) -> Updaters<'a> {
        Updaters {
            team: Team::new(lab),
            writers: Vec::new(),
            total: 0,
        }
    }

    /// One more, which makes `count` updates; `name` is one letter, its own on that host.
    pub fn add(&mut self, host: &str, name: &str, task: &Task, directory: &str, count: usize) {
        let writer = format!("{host}.{name}");
        let script = format!("exec {}", task.line(directory, &writer, count));
        self.team.add(host, 0, &script);
        self.writers.push(writer);
        self.total += count;
    }

    /// One more, which makes updates until all are stopped.
    pub fn add_until_stopped(&mut self, host: &str, name: &str, task: &Task, directory: &str) {
        let writer = format!("{host}.{name}");
        let line = task.line(directory, &writer, usize::MAX >> 1);
        let script = format!("export UNTIL_STOPPED=1 TIME_LIMIT=400\nexec {line}");
        self.team.add(host, 0, &script);
        self.writers.push(writer);
    }

    /// Tells those that go on until they are stopped that it is enough.
    pub fn stop(&self) {
        self.team.stop();
    }

    /// Waits until each program of these hosts has `"failed"`, or `"recovered"` from that.
    pub fn wait_until_told(&self, what: &str, hosts: &[&str]) {
        self.team.wait_until_told(what, hosts);
    }

    /// Lets all of them begin, as soon as all are ready.
    pub fn start(&mut self) {
        self.team.start();
    }

    /// Waits for the end of all and looks at the file on the server's disk.
    pub fn finish(mut self, task: &Task, directory: &Directory) -> Tally {
        let ended = self.team.finish_anyhow();
        let outputs = ended.into_iter().map(|(_, output)| output).collect();
        let took = self.team.since_the_start();
        let mut tally = Tally::of(self.total, &self.writers, outputs, took);
        tally.check(
            self.team.lab,
            task.kind,
            &format!("{}/{}", directory.server, task.file),
        );
        tally
    }
}

/// What became of the updates.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many were to be made.
    pub total: usize,
    /// How many the programs took for done.
    pub done: usize,
    /// How many were refused with ESTALE. A program that tries again has more of them.
    pub refused: usize,
    /// How many failed with another error.
    pub failed: usize,
    /// How many of those that are done are in the file.
    pub kept: usize,
    /// How many are there more than once.
    pub doubled: usize,
    /// How many are there though their programs did not take them for done.
    pub strange: usize,
    /// Since all began, until the last one ended.
    pub took: Duration,
    words: Vec<String>,
    faults: Vec<String>,
    outputs: Vec<Output>,
}

/// Numbers that grow, as `0-5,7`: thousands must fit into a command line.
fn in_short(numbers: &[u64]) -> String {
    let rows = numbers.chunk_by(|one, next| one + 1 == *next);
    let rows = rows.map(|row| match row {
        [one] => one.to_string(),
        _ => format!("{}-{}", row[0], row[row.len() - 1]),
    });
    rows.collect::<Vec<_>>().join(",")
}

impl Tally {
    /// What the programs say; see `programs/attempts.py`.
    fn of(total: usize, writers: &[String], outputs: Vec<Output>, took: Duration) -> Tally {
        let mut tally = Tally {
            total,
            took,
            ..Tally::default()
        };
        for (writer, output) in writers.iter().zip(&outputs) {
            for line in output.stdout.lines() {
                let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
                match word {
                    "done" => {
                        let numbers: Vec<u64> = rest
                            .split(',')
                            .filter(|number| !number.is_empty())
                            .map(|number| number.parse().expect("a number"))
                            .collect();
                        tally.done += numbers.len();
                        tally.words.push(format!("{writer}={}", in_short(&numbers)));
                    }
                    "refused" => tally.refused += rest.parse::<usize>().expect("a count"),
                    "failed" => tally.failed += rest.parse::<usize>().expect("a count"),
                    _ => panic!("{writer} says: {line}"),
                }
            }
        }
        tally.outputs = outputs;
        tally
    }

    fn check(&mut self, lab: &Lab, kind: &str, file: &str) {
        let arguments = format!("{kind} {file} {}", self.words.join(" "));
        for line in lab.server(&program("check-updates.py", &arguments)).lines() {
            let (word, rest) = line.split_once(' ').expect("word and value");
            let number = || rest.parse().expect("a count");
            match word {
                "kept" => self.kept = number(),
                "doubled" => self.doubled = number(),
                "strange" => self.strange = number(),
                "!" => self.faults.push(rest.into()),
                _ => panic!("the checker says: {line}"),
            }
        }
    }

    fn cells(&self) -> Cells {
        Cells {
            counts: [self.done, self.kept, self.refused],
            took: self.took,
        }
    }

    /// The first few failures, in the programs' words.
    fn failures(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().flat_map(|output| output.stderr.lines())
    }

    /// All programs came to their end; nothing that was done is lost, doubled or damaged, and nothing is there that was not
    /// done; no program saw an error, except that somebody else was faster.
    pub fn assert_nothing_lost(&self) {
        assert!(self.outputs.iter().all(Output::success), "{self}");
        let wrong = self.failed + self.doubled + self.strange;
        assert!(wrong == 0 && self.faults.is_empty(), "{self}");
        assert!(self.kept == self.done && self.done > 0, "{self}");
    }

    /// The same, though programs may have failed with these errors. What has failed may be done or
    /// not, but not twice, and not by half.
    pub fn assert_nothing_lost_but(&self, errors: &[i32]) {
        assert!(self.outputs.iter().all(Output::success), "{self}");
        assert!(self.doubled == 0 && self.strange <= self.failed, "{self}");
        assert!(self.kept == self.done && self.done > 0, "{self}");
        let is_expected = |fault: &String| fault.starts_with("strange:");
        assert!(self.faults.iter().all(is_expected), "{self}");
        let mut failures = self.failures().filter(|line| line.contains(": update "));
        let is_expected = |line: &str| {
            let mut errors = errors.iter();
            errors.any(|errno| line.contains(&format!("[Errno {errno}]")))
        };
        assert!(failures.all(is_expected), "{self}");
    }

    /// And all were done.
    pub fn assert_all(&self) {
        self.assert_nothing_lost();
        assert_eq!(self.done, self.total, "{self}");
    }

    /// Nobody was even told that somebody else was faster.
    pub fn assert_none_refused(&self) {
        assert_eq!(self.refused, 0, "{self}");
    }

    /// The programs have told of each of their updates what became of it.
    fn assert_adds_up(&self) {
        let cut_short = self.outputs.iter().any(|output| !output.success());
        let told = self.done + self.failed;
        // Some programs try again what was refused.
        let adds_up = told == self.total || told + self.refused == self.total;
        assert!(adds_up || cut_short, "{self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tally {
            total,
            done,
            refused,
            failed,
            kept,
            doubled,
            strange,
            ..
        } = self;
        write!(
            f,
            "of {total} updates {done} were done, {refused} refused, {failed} failed; of those \
             that were done {kept} were kept; {doubled} doubled, {strange} from nowhere\n{}",
            self.faults.join("\n")
        )?;
        for output in &self.outputs {
            if !output.success() || !output.stderr.is_empty() {
                write!(f, "\nstatus {}: {}", output.status, output.stderr)?;
            }
        }
        Ok(())
    }
}
