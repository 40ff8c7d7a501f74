//! What the writers say that they have tried, and what came of it (`programs/journal.py`).

use std::collections::BTreeMap;
use std::fmt;

/// How an attempt has ended, as far as its writer knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// Not at all: the writer has ended in it.
    NoAnswer,
    /// All calls returned without an error.
    Ok,
    /// With this error number; 0: only a part was written.
    Failed(i32),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Outcome::NoAnswer => f.write_str("no answer"),
            Outcome::Ok => f.write_str("ok"),
            Outcome::Failed(0) => f.write_str("a part only"),
            Outcome::Failed(number) => f.write_str(&error_name(*number)),
        }
    }
}

/// The name of an error number that storms are known to bring.
pub fn error_name(number: i32) -> String {
    let name = match number {
        libc::EIO => "EIO",
        libc::EAGAIN => "EAGAIN",
        libc::ENOENT => "ENOENT",
        libc::EROFS => "EROFS",
        libc::ENOSPC => "ENOSPC",
        libc::ESTALE => "ESTALE",
        libc::EINTR => "EINTR",
        libc::EDEADLK => "EDEADLK",
        libc::ENOTCONN => "ENOTCONN",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNABORTED => "ECONNABORTED",
        _ => return format!("errno {number}"),
    };
    name.into()
}

/// One attempt: a record, a replacement, an increment.
#[derive(Clone, Debug)]
pub struct Try {
    /// Size of the record.
    pub size: usize,
    /// When it began, in seconds since 1970, as the journal has it.
    pub began: String,
    /// When it ended; empty where there was no answer.
    pub ended: String,
    pub outcome: Outcome,
}

/// All that one writer has tried.
#[derive(Clone, Debug)]
pub struct Journal {
    pub writer: String,
    pub tries: BTreeMap<u32, Try>,
    /// What the writer itself has seen that must not be.
    pub faults: Vec<String>,
}

impl Journal {
    /// Reads a journal; a line that was cut off says nothing.
    pub fn parse(writer: &str, text: &str) -> Journal {
        let mut journal = Journal {
            writer: writer.into(),
            tries: BTreeMap::new(),
            faults: Vec::new(),
        };
        for line in text.split_inclusive('\n') {
            if let Some(said) = line.strip_suffix(" .\n") {
                journal
                    .note(said)
                    .unwrap_or_else(|| panic!("the journal of {writer} says: {line}"));
            }
        }
        journal
    }

    fn note(&mut self, said: &str) -> Option<()> {
        let words: Vec<_> = said.split(' ').collect();
        match words[..] {
            ["try", seq, size, time] => {
                let new = Try {
                    size: size.parse().ok()?,
                    began: time.into(),
                    ended: String::new(),
                    outcome: Outcome::NoAnswer,
                };
                let old = self.tries.insert(seq.parse().ok()?, new);
                old.is_none().then_some(())
            }
            ["ok", seq, time] => self.end(seq, Outcome::Ok, time),
            ["failed", seq, number, time] => {
                self.end(seq, Outcome::Failed(number.parse().ok()?), time)
            }
            ["fault", time, ..] => {
                let text = said.splitn(3, ' ').nth(2).unwrap_or_default();
                let fault = format!("{} saw at {time}: {text}", self.writer);
                self.faults.push(fault);
                Some(())
            }
            _ => None,
        }
    }

    fn end(&mut self, seq: &str, outcome: Outcome, time: &str) -> Option<()> {
        let of = self.tries.get_mut(&seq.parse().ok()?)?;
        of.outcome = outcome;
        of.ended = time.into();
        Some(())
    }

    /// The numbers of the attempts that the writer was told to be done.
    pub fn acknowledged(&self) -> impl Iterator<Item = u32> {
        let ok = |(seq, of): (&u32, &Try)| (of.outcome == Outcome::Ok).then_some(*seq);
        self.tries.iter().filter_map(ok)
    }

    /// An attempt in words, for a fault.
    pub fn tell(&self, seq: u32) -> String {
        match self.tries.get(&seq) {
            None => format!("{}.{seq}, which was never tried", self.writer),
            Some(of) => format!(
                "{}.{seq} ({} bytes, tried at {}, {} at {})",
                self.writer, of.size, of.began, of.outcome, of.ended
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_says_what_became_of_each_attempt() {
        let text = "try 1 60 10.5 .\nok 1 10.6 .\ntry 2 70 11.0 .\nfailed 2 5 12.0 .\n\
                    try 3 80 13.0 .\nok 3 1\nfault 14.0 something odd .\n";
        let journal = Journal::parse("host1.a", text);
        let outcomes: Vec<_> = journal.tries.values().map(|of| of.outcome).collect();
        let expected = [Outcome::Ok, Outcome::Failed(5), Outcome::NoAnswer];
        assert_eq!(outcomes, expected, "the line that was cut off counts");
        assert_eq!(journal.acknowledged().collect::<Vec<_>>(), [1]);
        assert_eq!(journal.faults, ["host1.a saw at 14.0: something odd"]);
    }
}
