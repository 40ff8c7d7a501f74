//! What the demo says: the table, and what the figures mean.

use std::io::{self, Write};
use std::time::Duration;

use super::writers::{BUFFER, PAUSE, Program};
use crate::cli::stage::judge::Verdict;

/// The widest line that is written.
const WIDTH: usize = 80;

/// Where a run took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a directory as it is.
    Plain,
    /// Through two mounts of dotlockfs.
    Guarded,
}

impl Place {
    /// The name that the table uses.
    pub fn name(self) -> &'static str {
        match self {
            Place::Plain => "plain directory",
            Place::Guarded => "dotlockfs",
        }
    }
}

impl Program {
    /// The name that the table uses.
    pub fn name(self) -> &'static str {
        match self {
            Program::ShellLoop => "shell >> loop",
            Program::Buffered => "buffered lines",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What was run.
    pub program: Program,
    /// Where it was run.
    pub place: Place,
    /// What became of the records.
    pub verdict: Verdict,
    /// How long the writers took.
    pub time: Duration,
}

/// Whether nothing at all went wrong through dotlockfs.
pub fn all_kept(outcomes: &[Outcome]) -> bool {
    outcomes
        .iter()
        .filter(|outcome| outcome.place == Place::Guarded)
        .all(|outcome| outcome.verdict.is_perfect())
}

/// Writes the table.
pub fn write_table(output: &mut impl Write, outcomes: &[Outcome]) -> io::Result<()> {
    writeln!(
        output,
        "  {:<14}  {:<15} {:>8} {:>7} {:>6} {:>7}  {:<5} {:>7}",
        "workload", "where", "expected", "kept", "torn", "doubled", "order", "time"
    )?;
    for outcome in outcomes {
        let verdict = outcome.verdict;
        writeln!(
            output,
            "  {:<14}  {:<15} {:>8} {:>7} {:>6} {:>7}  {:<5} {:>5.*} s",
            outcome.program.name(),
            outcome.place.name(),
            verdict.expected,
            verdict.kept,
            verdict.torn,
            verdict.doubled,
            if verdict.in_order { "kept" } else { "LOST" },
            // A local shell loop is over in hundredths of a second.
            if outcome.time.as_secs() < 100 { 2 } else { 0 },
            outcome.time.as_secs_f64()
        )?;
    }
    Ok(())
}

/// Writes what the figures mean. `file_system` is the type of the plain directory's.
pub fn write_meaning(
    output: &mut impl Write,
    outcomes: &[Outcome],
    file_system: &str,
) -> io::Result<()> {
    let verdict_on = |program, place| {
        outcomes
            .iter()
            .find(|outcome| outcome.program == program && outcome.place == place)
            .map(|outcome| outcome.verdict)
    };
    let is_nfs = file_system.starts_with("nfs");

    let summary = if all_kept(outcomes) {
        "dotlockfs kept every record: none lost, torn or doubled, and each writer's in the \
         order in which it wrote them."
    } else {
        "dotlockfs did NOT keep everything. This is a fault: please report it, with this table \
         and the files that `dotlockfs demo --keep` leaves."
    };
    write_paragraph(output, summary)?;

    if let Some(plain) = verdict_on(Program::Buffered, Place::Plain) {
        let found = if plain.is_perfect() {
            "Buffered lines all came out whole in the plain directory this time.".to_owned()
        } else {
            format!(
                "Buffered lines: {} of {} came out whole in the plain directory.",
                plain.kept, plain.expected
            )
        };
        let paragraph = format!(
            "{found} A program that keeps its file open writes whenever its buffer is full (here \
             {BUFFER} bytes, every {} ms), mostly in the middle of a line, and what other \
             processes write lands in the gap. This happens on any file system. With `record = \"\\n\"` in its rules, \
             dotlockfs passes on whole lines only.",
            PAUSE.as_millis()
        );
        write_paragraph(output, &paragraph)?;
    }

    if let Some(plain) = verdict_on(Program::ShellLoop, Place::Plain) {
        let found = match (plain.is_perfect(), is_nfs) {
            (true, false) => format!(
                "Shell loops lose nothing in the plain directory, for it is local \
                 ({file_system}): one kernel puts all appends in order."
            ),
            (true, true) => format!(
                "Shell loops lost nothing in the plain directory, though it is on NFS \
                 ({file_system}): all four processes run on this one host, whose kernel puts \
                 their appends in order. Records are lost between hosts."
            ),
            (false, _) => format!(
                "Shell loops: {} of {} lines came out whole in the plain directory \
                 ({file_system}), from this one host alone.",
                plain.kept, plain.expected
            ),
        };
        let paragraph = format!(
            "{found} NFS has no append: each host writes where it believes the end to be, over \
             what others wrote. Measured with two hosts and four writers (O_APPEND, descriptor \
             held open, fsync after each record) on NFSv4.2, Linux 6.1: 1921 of 4000 records \
             intact."
        );
        write_paragraph(output, &paragraph)?;
    }
    Ok(())
}

/// Writes an empty line and then `text`, broken between words.
fn write_paragraph(output: &mut impl Write, text: &str) -> io::Result<()> {
    let mut line = String::new();
    writeln!(output)?;
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(output, "{line}")?;
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    writeln!(output, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(program: Program, place: Place, kept: u64, torn: u64) -> Outcome {
        Outcome {
            program,
            place,
            verdict: Verdict {
                expected: 4_000_000,
                kept,
                torn,
                doubled: 0,
                in_order: true,
            },
            time: Duration::from_secs(12_345),
        }
    }

    fn report(outcomes: &[Outcome], file_system: &str) -> String {
        let mut output = Vec::new();
        write_table(&mut output, outcomes).unwrap();
        write_meaning(&mut output, outcomes, file_system).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let outcomes = [
            outcome(Program::ShellLoop, Place::Plain, 4_000_000, 0),
            outcome(Program::Buffered, Place::Plain, 1_000_000, 999_999),
        ];
        for line in report(&outcomes, "ext4").lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn a_local_directory_that_lost_nothing_is_said_to_be_local() {
        let outcomes = [outcome(Program::ShellLoop, Place::Plain, 4_000_000, 0)];
        let text = report(&outcomes, "ext4").replace('\n', " ");
        assert!(text.contains("lose nothing in the plain directory, for it is local (ext4)"));
        assert!(text.contains("1921 of 4000"));
    }

    #[test]
    fn one_host_on_nfs_is_said_to_be_one_host() {
        let outcomes = [outcome(Program::ShellLoop, Place::Plain, 4_000_000, 0)];
        let text = report(&outcomes, "nfs4").replace('\n', " ");
        assert!(text.contains("all four processes run on this one host"));
    }

    #[test]
    fn only_the_guarded_runs_are_judged() {
        let plain = outcome(Program::Buffered, Place::Plain, 1, 1);
        let good = outcome(Program::Buffered, Place::Guarded, 4_000_000, 0);
        let bad = outcome(Program::Buffered, Place::Guarded, 4_000_000, 1);
        assert!(all_kept(&[plain, good]));
        assert!(!all_kept(&[plain, good, bad]));
        assert!(report(&[plain, bad], "ext4").contains("did NOT keep everything"));
    }
}
