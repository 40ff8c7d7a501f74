//! Whole records only: what a program has written of a record that is not finished yet.
//!
//! A program that writes through a buffer cuts its lines where the buffer ends. With `record`
//! set, what follows the last terminator is held back until its end arrives, or until the program
//! closes the file or asks for it to be on disk.

/// What is held back at the most; beyond it, bytes are written though their record is unfinished.
pub const HELD_BACK_MAX: usize = 64 * 1024 * 1024;

/// A write, taken apart at the end of its last whole record.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    /// Whole records: what was held back before, and what completes it.
    pub whole: Vec<u8>,
    /// The beginning of the next record.
    pub rest: Vec<u8>,
    /// The length of an unfinished record that is in `whole`, since it is too long to be held
    /// back; 0 where there is none.
    pub too_long: usize,
}

/// Joins what was held back with what is written now, and cuts behind the last `terminator`.
pub fn split(held_back: &[u8], data: &[u8], terminator: &[u8]) -> Split {
    let mut whole = [held_back, data].concat();
    // The terminator may begin in what was held back; it cannot lie within it whole.
    let from = (held_back.len() + 1).saturating_sub(terminator.len());
    let end = whole[from..]
        .windows(terminator.len())
        .rposition(|window| window == terminator)
        .map_or(0, |at| from + at + terminator.len());
    let mut rest = whole.split_off(end);
    let mut too_long = 0;
    if rest.len() > HELD_BACK_MAX {
        too_long = rest.len();
        whole.append(&mut rest);
    }
    Split {
        whole,
        rest,
        too_long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(held: &str, data: &str, terminator: &str) -> (String, String) {
        let split = split(held.as_bytes(), data.as_bytes(), terminator.as_bytes());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(split.whole), text(split.rest))
    }

    #[test]
    fn cuts_behind_the_last_terminator() {
        let expect = |whole: &str, rest: &str| (whole.to_owned(), rest.to_owned());
        assert_eq!(parts("", "a\nb\nc", "\n"), expect("a\nb\n", "c"));
        assert_eq!(parts("a", "b\n", "\n"), expect("ab\n", ""));
        assert_eq!(parts("a", "b", "\n"), expect("", "ab"));
        assert_eq!(parts("", "", "\n"), expect("", ""));
        assert_eq!(parts("a\r", "\nb", "\r\n"), expect("a\r\n", "b"));
        assert_eq!(parts("a-", "-", "---"), expect("", "a--"));
        assert_eq!(parts("a--", "-b", "---"), expect("a---", "b"));
    }
}
