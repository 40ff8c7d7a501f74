//! What a record looks like, and the verdict on a file full of them.
//!
//! A record names its writer and its number at both ends, with a body in between that follows
//! from the two. So whatever a line claims to be, it can be written out anew and compared byte
//! by byte: nothing that was cut, mixed or filled with zeros passes for a record.

use std::collections::HashSet;
use std::fmt::Write as _;

/// The pattern that bodies are made of; the whole body of a [`Shape::Short`] record.
pub const PATTERN: &str = "abcdefghijklmnopqrstuvwxyz";

/// How long the records of a workload are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One pattern each, so that a shell can write it with `echo` alone.
    Short,
    /// Of many lengths, so that a buffer of fixed size ends at a different place of each record.
    Long,
    /// As long as [`EVEN`] says, with the newline.
    Even,
}

/// The length of a record of [`Shape::Even`], in bytes.
pub const EVEN: usize = 90;

/// Record `number` of `writer`, with its newline.
pub fn render(shape: Shape, writer: u32, number: u32) -> String {
    let mut line = format!("w{writer},{number},");
    match shape {
        Shape::Short => line.push_str(PATTERN),
        Shape::Long => {
            let length = 40 + (u64::from(number) * 37 + u64::from(writer) * 11) % 160;
            line.extend(PATTERN.chars().cycle().take(length as usize));
        }
        Shape::Even => {
            // Its ends are equally long: `w1,2,` and `,2,w1`.
            let length = EVEN.saturating_sub(2 * line.len() + 1);
            line.extend(PATTERN.chars().cycle().take(length));
        }
    }
    // Writing to a String cannot fail.
    let _ = writeln!(line, ",{number},w{writer}");
    line
}

/// What should be in the file.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// The form of the records.
    pub shape: Shape,
    /// How many records each writer has written, numbered from 1 on; so are the writers.
    pub records: &'a [u32],
}

impl Expectation<'_> {
    /// The number of records of all writers together.
    pub fn total(self) -> u64 {
        self.records.iter().copied().map(u64::from).sum()
    }

    /// The size of a file that holds every record once.
    pub fn bytes(self) -> u64 {
        (1..)
            .zip(self.records)
            .flat_map(|(writer, &records)| (1..=records).map(move |number| (writer, number)))
            .map(|(writer, number)| render(self.shape, writer, number).len() as u64)
            .sum()
    }

    /// The writer and number of the record that `line` (without its newline) is, if it is one.
    fn recognise(self, line: &[u8]) -> Option<(u32, u32)> {
        let mut fields = std::str::from_utf8(line).ok()?.split(',');
        let writer: u32 = fields.next()?.strip_prefix('w')?.parse().ok()?;
        let number = fields.next()?.parse().ok()?;
        let records = *self.records.get(writer.checked_sub(1)? as usize)?;
        let known = (1..=records).contains(&number);
        let whole = || render(self.shape, writer, number);
        (known && whole().strip_suffix('\n').map(str::as_bytes) == Some(line))
            .then_some((writer, number))
    }
}

/// The verdict on one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Records that should be there.
    pub expected: u64,
    /// Records that are there, whole; one that is there twice counts once.
    pub kept: u64,
    /// Lines that are no record: pieces, mixtures, zeros, an end without newline.
    pub torn: u64,
    /// Whole records beyond the first of their kind.
    pub doubled: u64,
    /// Whether each writer's records stand in the order in which it wrote them.
    pub in_order: bool,
}

impl Verdict {
    /// Whether every record is there, once, whole and in its place.
    pub fn is_perfect(&self) -> bool {
        self.kept == self.expected && self.torn == 0 && self.doubled == 0 && self.in_order
    }
}

/// Compares the content of a file with what should be there.
pub fn judge(content: &[u8], expectation: Expectation<'_>) -> Verdict {
    let mut verdict = Verdict {
        expected: expectation.total(),
        kept: 0,
        torn: 0,
        doubled: 0,
        in_order: true,
    };
    let mut seen = HashSet::new();
    let mut newest = vec![0; expectation.records.len() + 1];
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        let record = line
            .strip_suffix(b"\n")
            .and_then(|line| expectation.recognise(line));
        let Some((writer, number)) = record else {
            verdict.torn += 1;
            continue;
        };
        if !seen.insert((writer, number)) {
            // A second copy is out of order by nature; it is one fault, not two.
            verdict.doubled += 1;
            continue;
        }
        verdict.kept += 1;
        let newest = &mut newest[writer as usize];
        verdict.in_order &= number > *newest;
        *newest = number.max(*newest);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_BY_THREE: Expectation<'_> = Expectation {
        shape: Shape::Short,
        records: &[3, 3],
    };

    fn file(records: &[(u32, u32)]) -> Vec<u8> {
        let lines = records.iter().map(|&(w, n)| render(Shape::Short, w, n));
        lines.collect::<String>().into_bytes()
    }

    fn all() -> Vec<u8> {
        file(&[(1, 1), (2, 1), (2, 2), (1, 2), (1, 3), (2, 3)])
    }

    #[test]
    fn a_record_is_what_the_shell_loop_echoes() {
        assert_eq!(
            render(Shape::Short, 2, 17),
            "w2,17,abcdefghijklmnopqrstuvwxyz,17,w2\n"
        );
    }

    #[test]
    fn even_records_have_one_length() {
        for (writer, number) in [(1, 1), (9, 10), (16, 9_999_999)] {
            assert_eq!(render(Shape::Even, writer, number).len(), EVEN);
        }
    }

    #[test]
    fn long_records_have_many_lengths() {
        let lengths: HashSet<_> = (1..=100)
            .map(|number| render(Shape::Long, 1, number).len())
            .collect();
        assert!(lengths.len() > 50, "{lengths:?}");
    }

    #[test]
    fn a_whole_file_is_perfect_however_the_writers_took_turns() {
        let verdict = judge(&all(), TWO_BY_THREE);
        assert!(verdict.is_perfect(), "{verdict:?}");
        assert_eq!((verdict.expected, verdict.kept), (6, 6));
        assert_eq!(TWO_BY_THREE.bytes(), all().len() as u64);
    }

    #[test]
    fn an_empty_file_has_lost_everything_and_torn_nothing() {
        let verdict = judge(b"", TWO_BY_THREE);
        assert_eq!((verdict.kept, verdict.torn), (0, 0));
        assert!(!verdict.is_perfect());
    }

    #[test]
    fn a_lost_record_is_neither_torn_nor_out_of_order() {
        let verdict = judge(
            &file(&[(1, 1), (1, 3), (2, 1), (2, 2), (2, 3)]),
            TWO_BY_THREE,
        );
        assert_eq!((verdict.kept, verdict.torn, verdict.doubled), (5, 0, 0));
        assert!(verdict.in_order && !verdict.is_perfect());
    }

    #[test]
    fn two_records_that_ran_into_each_other_are_torn() {
        let (one, two) = (render(Shape::Short, 1, 1), render(Shape::Short, 2, 1));
        let mixed = [&one[..9], &two[..], &one[9..]].concat();
        let verdict = judge(mixed.as_bytes(), TWO_BY_THREE);
        assert_eq!((verdict.kept, verdict.torn), (0, 2));
    }

    #[test]
    fn a_last_line_without_its_newline_is_torn() {
        let mut content = all();
        content.pop();
        let verdict = judge(&content, TWO_BY_THREE);
        assert_eq!((verdict.kept, verdict.torn), (5, 1));
    }

    #[test]
    fn zeros_and_empty_lines_are_torn() {
        // NFS clients that write back stale pages leave runs of zeros.
        let content = [&b"\0\0\0\0"[..], &all()[..], b"\n"].concat();
        let verdict = judge(&content, TWO_BY_THREE);
        assert_eq!((verdict.kept, verdict.torn), (5, 2));
    }

    #[test]
    fn a_copy_is_doubled_and_does_not_make_up_for_a_lost_record() {
        let verdict = judge(
            &file(&[(1, 1), (1, 2), (1, 1), (2, 1), (2, 2), (2, 3)]),
            TWO_BY_THREE,
        );
        assert_eq!((verdict.kept, verdict.doubled), (5, 1));
        assert!(verdict.in_order);
    }

    #[test]
    fn a_record_before_an_older_one_of_its_writer_is_out_of_order() {
        let verdict = judge(
            &file(&[(1, 2), (1, 1), (1, 3), (2, 1), (2, 2), (2, 3)]),
            TWO_BY_THREE,
        );
        assert_eq!(verdict.kept, 6);
        assert!(!verdict.in_order && !verdict.is_perfect());
    }

    #[test]
    fn records_that_nobody_wrote_are_torn() {
        let verdict = judge(&file(&[(3, 1), (1, 4), (1, 0)]), TWO_BY_THREE);
        assert_eq!((verdict.kept, verdict.torn), (0, 3));
    }
}
