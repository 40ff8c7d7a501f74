//! The check of a file of numbers that were changed in place (`programs/count.py`).
//!
//! An update in place that a crash cuts off may by its nature have been made in part: here, the
//! writer's own line but not the line `all`. A line, though, is far smaller than whatever a
//! machine writes in one piece, so none may ever be torn.

use crate::journal::{Journal, Outcome};
use crate::report::Found;

/// Bytes of a line.
const WIDTH: usize = 32;

/// The line that all writers count in.
const ALL: &str = "all";

/// The line of that name; `programs/count.py` makes the same.
pub fn line(name: &str, value: u32) -> String {
    let text = format!("{name:<11} {value:010} ");
    let sum = crc32(text.as_bytes());
    format!("{text}{sum:08x}\n")
}

/// A file in which nobody has counted.
pub fn zeros(writers: &[String]) -> String {
    let names = std::iter::once(ALL).chain(writers.iter().map(String::as_str));
    names.map(|name| line(name, 0)).collect()
}

/// Compares the file with what its writers have tried.
pub fn check(data: &[u8], journals: &[&Journal]) -> Found {
    let mut found = Found::of(journals);
    let mut values = Vec::new();
    for (number, bytes) in data.chunks(WIDTH).enumerate() {
        match parse(bytes) {
            Some(known) => values.push(known),
            None => found.fault("torn", format!("line {number}: {bytes:02x?}")),
        }
    }
    let value = |name: &str| {
        values
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| *value)
    };

    let (mut least, mut most) = (0, 0);
    for journal in journals {
        let last = journal.acknowledged().last().unwrap_or(0);
        least += journal.acknowledged().count();
        most += journal.tries.len();
        match value(&journal.writer) {
            None => found.fault("lost", format!("the line of {}", journal.writer)),
            Some(value) if value < last => {
                let told = journal.tell(last);
                found.fault("lost", format!("{told}: its line says {value}"));
            }
            Some(value) if value > 0 && !journal.tries.contains_key(&value) => {
                found.fault("strange", journal.tell(value));
            }
            Some(value) => {
                let ok = |of: &crate::journal::Try| of.outcome == Outcome::Ok;
                let known = journal.tries.get(&value).is_none_or(ok);
                found.unacknowledged += usize::from(!known);
            }
        }
    }
    match value(ALL).map(|value| value as usize) {
        None => found.fault("lost", "the line of all".into()),
        Some(all) if all < least => {
            found.fault("lost", format!("all: {all}, and {least} were acknowledged"));
        }
        Some(all) if all > most => {
            found.fault("doubled", format!("all: {all}, and {most} were tried"));
        }
        Some(all) => found.note(format!("all: {all}; {least} acknowledged, {most} tried")),
    }
    found
}

fn parse(bytes: &[u8]) -> Option<(String, u32)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split_whitespace();
    let (name, value) = (words.next()?, words.next()?.parse().ok()?);
    (text == line(name, value)).then(|| (name.into(), value))
}

/// The checksum of zlib.
fn crc32(data: &[u8]) -> u32 {
    let fold = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    let all = data.iter();
    !all.fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 ok, 2 failed, 3 ok, 4 without an answer.
    fn history() -> Journal {
        let text = "try 1 0 0 .\nok 1 0 .\ntry 2 0 0 .\nfailed 2 5 0 .\ntry 3 0 0 .\nok 3 0 .\n\
                    try 4 0 0 .\n";
        Journal::parse("host1.g", text)
    }

    fn faults(all: u32, own: u32) -> Vec<String> {
        let text = line(ALL, all) + &line("host1.g", own);
        check(text.as_bytes(), &[&history()]).faults
    }

    #[test]
    fn lines_are_those_of_the_program() {
        assert_eq!(line("host1.g", 12), "host1.g     0000000012 d0a93108\n");
        assert_eq!(line(ALL, 0).len(), WIDTH);
        assert!(check(zeros(&[]).as_bytes(), &[]).faults.is_empty());
    }

    #[test]
    fn what_failed_may_count_or_not() {
        for all in 2..=4 {
            assert_eq!(faults(all, 3), [""; 0]);
            assert_eq!(faults(all, 4), [""; 0]);
        }
    }

    #[test]
    fn faults_are_found() {
        assert!(faults(1, 3)[0].starts_with("lost: all"));
        assert!(faults(5, 3)[0].starts_with("doubled: all"));
        assert!(faults(3, 2)[0].starts_with("lost: host1.g.3"));
        assert!(faults(3, 5)[0].starts_with("strange: host1.g.5"));
        let torn = line(ALL, 3).replace('3', "4") + &line("host1.g", 3);
        let found = check(torn.as_bytes(), &[&history()]);
        assert!(
            found.faults[0].starts_with("torn: line 0"),
            "{:?}",
            found.faults
        );
        let short = check(line(ALL, 3).as_bytes(), &[&history()]);
        assert!(short.faults[0].starts_with("lost: the line of host1.g"));
    }
}
