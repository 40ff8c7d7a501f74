//! The check of a file that records were appended to (`programs/append.py`).

use std::collections::HashMap;

use crate::journal::{Journal, Outcome};
use crate::report::Found;

/// A larger write comes to dotlockfs in pieces of this size, or of a page less.
const PIECE: usize = 1 << 20;

/// The record with this header; every byte follows from it.
pub fn record(writer: &str, seq: u32, size: usize) -> Vec<u8> {
    use std::fmt::Write;
    let mut text = format!("@{writer} {seq:06} {size} ");
    let mut number = 0;
    while text.len() < size - 1 {
        write!(text, "{seq:06}.{number:06} ").expect("strings take all");
        number += 1;
    }
    text.truncate(size - 1);
    text.push('\n');
    text.into_bytes()
}

/// Compares a file with what its writers have tried. A record that needs more than one call of the
/// kernel may be cut off after one if its writer was told so: the disk was full. `pieces`: also if
/// it was told of another error, or of nothing; no rule says where a record ends.
pub fn check(data: &[u8], journals: &[&Journal], pieces: bool) -> Found {
    let mut found = Found::of(journals);
    let by_name: HashMap<_, _> = journals.iter().map(|j| (j.writer.as_str(), *j)).collect();
    let mut seen: HashMap<(&str, u32), usize> = HashMap::new();
    let mut latest: HashMap<&str, u32> = HashMap::new();
    for part in parts(data) {
        let begin = part.begin;
        let Some((writer, seq)) = part.whole else {
            match cut(data, &part, &by_name, pieces) {
                Some(what) => found.note(format!("cut off at byte {begin}: {what}")),
                None => found.fault("torn", torn(data, &part)),
            }
            continue;
        };
        let Some(journal) = by_name.get(writer) else {
            found.fault("strange", format!("byte {begin}: {writer}.{seq}"));
            continue;
        };
        let what = format!("{} at byte {begin}", journal.tell(seq));
        if let Some(first) = seen.get(&(writer, seq)) {
            found.fault("doubled", format!("{what} and at {first}"));
            continue;
        }
        seen.insert((&journal.writer, seq), begin);
        match journal.tries.get(&seq).map(|of| of.outcome) {
            None => found.fault("strange", what.clone()),
            Some(Outcome::Ok) => (),
            // "Nothing was written", says EAGAIN.
            Some(Outcome::Failed(libc::EAGAIN | libc::EDEADLK)) => {
                found.fault("refused, and yet there", what.clone());
            }
            Some(Outcome::Failed(_) | Outcome::NoAnswer) => found.unacknowledged += 1,
        }
        let before = latest.entry(&journal.writer).or_default();
        if seq < *before {
            found.fault("out of order", format!("{what}, after {before}"));
        }
        *before = seq;
    }
    for journal in journals {
        for seq in journal.acknowledged() {
            if !seen.contains_key(&(journal.writer.as_str(), seq)) {
                found.fault("lost", journal.tell(seq));
            }
        }
    }
    found
}

/// A part of the file: a whole record, or bytes that are none.
struct Part<'a> {
    begin: usize,
    end: usize,
    whole: Option<(&'a str, u32)>,
}

fn parts(data: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        if begin == data.len() {
            return None;
        }
        let rest = &data[begin..];
        let whole = header(rest)
            .map(|(writer, seq, size)| (writer, seq, record(writer, seq, size)))
            .filter(|(_, _, whole)| rest.starts_with(whole));
        let length = match &whole {
            Some((_, _, whole)) => whole.len(),
            // A record's body has no `@`.
            None => next(rest).unwrap_or(rest.len()),
        };
        let part = Part {
            begin,
            end: begin + length,
            whole: whole.map(|(writer, seq, _)| (writer, seq)),
        };
        begin += length;
        Some(part)
    })
}

/// Where the next header begins, after the first byte.
fn next(data: &[u8]) -> Option<usize> {
    data.iter()
        .skip(1)
        .position(|&byte| byte == b'@')
        .map(|at| at + 1)
}

/// Writer, number and size, if a record begins here.
fn header(data: &[u8]) -> Option<(&str, u32, usize)> {
    let head = &data[..data.len().min(60)];
    let mut words = head.strip_prefix(b"@")?.split(|&byte| byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (writer, seq, size) = (word()?, word()?.parse().ok()?, word()?.parse().ok()?);
    (60..16 << 20)
        .contains(&size)
        .then_some((writer, seq, size))
}

/// Is it the beginning of a record, cut off after a whole piece, that nobody was told to be whole?
/// Without `pieces`, only where its writer was told how much of it is written.
fn cut(
    data: &[u8],
    part: &Part,
    by_name: &HashMap<&str, &Journal>,
    pieces: bool,
) -> Option<String> {
    let bytes = &data[part.begin..part.end];
    let (writer, seq, size) = header(bytes)?;
    let journal = by_name.get(writer)?;
    let outcome = journal.tries.get(&seq)?.outcome;
    let acknowledged = outcome == Outcome::Ok;
    if !pieces && outcome != Outcome::Failed(0) {
        return None;
    }
    let after_a_piece = bytes.len().div_ceil(4096).is_multiple_of(PIECE / 4096);
    let fits = after_a_piece && !acknowledged && record(writer, seq, size).starts_with(bytes);
    fits.then(|| format!("{}, {} bytes", journal.tell(seq), bytes.len()))
}

fn torn(data: &[u8], part: &Part) -> String {
    let bytes = &data[part.begin..part.end];
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    let zeros = bytes.iter().filter(|&&byte| byte == 0).count();
    format!(
        "bytes {} to {} ({}, {zeros} of them zero): {shown:?}",
        part.begin,
        part.end,
        bytes.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two writers with records of 60 bytes: 1 ok, 2 failed (EIO), 3 ok, 4 without an answer,
    /// 5 refused (EAGAIN); and 6 of more than 1 MiB, which failed.
    fn history(writer: &str) -> Journal {
        let text = "try 1 60 0 .\nok 1 0 .\ntry 2 60 0 .\nfailed 2 5 0 .\ntry 3 60 0 .\nok 3 0 .\n\
                    try 4 60 0 .\ntry 5 60 0 .\nfailed 5 11 0 .\ntry 6 1500000 0 .\nfailed 6 5 0 .\n";
        Journal::parse(writer, text)
    }

    /// What is wrong with a file of these parts of writer host1.a, and whole records of host2.a.
    fn faults(parts: &[&[u8]]) -> Vec<String> {
        let (one, two) = (history("host1.a"), history("host2.a"));
        let mut data = record("host2.a", 1, 60);
        data.extend(parts.concat());
        data.extend(record("host2.a", 3, 60));
        let found = check(&data, &[&one, &two], true);
        found.faults
    }

    fn of(seq: u32) -> Vec<u8> {
        record("host1.a", seq, 60)
    }

    fn assert_fault(parts: &[&[u8]], kind: &str) {
        let faults = faults(parts);
        assert!(!faults.is_empty(), "nothing was found; {kind}");
        assert!(faults[0].starts_with(kind), "{faults:?}");
    }

    #[test]
    fn records_are_those_of_the_program() {
        let expected = b"@host1.a 000012 60 000012.000000 000012.000001 000012.00000\n";
        assert_eq!(record("host1.a", 12, 60), expected);
    }

    #[test]
    fn what_failed_may_be_there_or_not() {
        assert_eq!(faults(&[&of(1), &of(3)]), [""; 0]);
        assert_eq!(faults(&[&of(1), &of(2), &of(3), &of(4)]), [""; 0]);
    }

    #[test]
    fn lost_records_are_found() {
        assert_fault(&[&of(1)], "lost: host1.a.3");
    }

    #[test]
    fn doubled_records_are_found() {
        assert_fault(&[&of(1), &of(3), &of(3)], "doubled: host1.a.3");
        assert_fault(&[&of(1), &of(2), &of(2), &of(3)], "doubled: host1.a.2");
        assert_fault(&[&of(1), &of(2), &of(3), &of(2)], "doubled: host1.a.2");
    }

    #[test]
    fn torn_records_are_found() {
        let failed = of(2);
        assert_fault(&[&of(1), &failed[..40], &of(3)], "torn");
        assert_fault(&[&of(1), &failed[40..], &of(3)], "torn");
        assert_fault(&[&of(1), &[0; 60], &of(3)], "torn");
        assert_fault(&[&of(1), &of(3), &failed[..59]], "torn");
    }

    #[test]
    fn disorder_is_found() {
        assert_fault(&[&of(3), &of(1)], "out of order: host1.a.1");
        assert_fault(&[&of(1), &of(3), &of(2)], "out of order: host1.a.2");
    }

    #[test]
    fn records_from_nowhere_are_found() {
        assert_fault(&[&of(1), &of(3), &of(7)], "strange: host1.a.7");
        let foreign = record("host3.a", 1, 60);
        assert_fault(&[&of(1), &foreign, &of(3)], "strange");
    }

    #[test]
    fn what_was_refused_must_not_be_there() {
        assert_fault(
            &[&of(1), &of(3), &of(5)],
            "refused, and yet there: host1.a.5",
        );
    }

    #[test]
    fn only_a_large_record_may_be_cut_off_after_a_piece() {
        let large = record("host1.a", 6, 1_500_000);
        assert_eq!(faults(&[&of(1), &of(3), &large]), [""; 0]);
        assert_eq!(faults(&[&of(1), &of(3), &large[..PIECE]]), [""; 0]);
        assert_eq!(faults(&[&of(1), &of(3), &large[..PIECE - 100]]), [""; 0]);
        assert_fault(&[&of(1), &of(3), &large[..PIECE / 2]], "torn");
        assert_fault(&[&of(1), &of(3), &large[..PIECE + 1]], "torn");
    }
}
