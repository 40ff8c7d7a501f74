//! Faults in a rule file or in the mount options, told to a person: where, what, and what
//! would be right.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The longest piece of a line that a message shows, in characters: with the line number
/// before it, it fits 80 columns.
const SNIPPET: usize = 68;

/// Why a rule file or a set of mount options cannot be used.
///
/// For a fault in a rule file the message has several lines: `FILE:LINE:COLUMN: what is
/// wrong`, the line with a caret under the fault, and what would be right.
#[derive(Debug)]
pub struct ConfigError(Box<Kind>);

#[derive(Debug)]
enum Kind {
    Unreadable { path: PathBuf, error: io::Error },
    Unusable { path: PathBuf, message: String },
    Fault(Fault),
    Option(String),
}

/// A fault at a place in the text of a rule file.
#[derive(Debug)]
struct Fault {
    path: PathBuf,
    message: String,
    help: String,
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// The line, or the piece of it around the fault, free of control characters.
    snippet: String,
    /// Where the carets start below `snippet`, in characters, and how many there are.
    carets: Range<usize>,
}

impl ConfigError {
    /// The file could not be opened or read.
    pub(super) fn unreadable(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self(Box::new(Kind::Unreadable { path, error }))
    }

    /// The file as a whole cannot serve: `message` says why.
    pub(super) fn unusable(path: &Path, message: impl Into<String>) -> Self {
        let (path, message) = (path.to_owned(), message.into());
        Self(Box::new(Kind::Unusable { path, message }))
    }

    /// A fault at the bytes `span` of `text`. An empty `help` is left out of the message.
    pub(super) fn at(
        path: &Path,
        text: &str,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let start = boundary(text, span.start);
        let end = boundary(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before = text[line_start..start].chars().count();
        let width = text[start..end.min(line_end).max(start)].chars().count();
        let (snippet, carets) = cut(&text[line_start..line_end], before..before + width.max(1));
        Self(Box::new(Kind::Fault(Fault {
            path: path.to_owned(),
            message: message.into(),
            help: help.into(),
            line: text[..start].matches('\n').count() + 1,
            column: before + 1,
            snippet,
            carets,
        })))
    }

    /// A fault in the mount options.
    pub(super) fn option(message: impl Into<String>) -> Self {
        Self(Box::new(Kind::Option(message.into())))
    }

    /// Whether the rule file does not exist. At the root of the guarded directory that is no
    /// fault: [`Rules::everything`](super::Rules::everything) holds then.
    pub fn is_not_found(&self) -> bool {
        matches!(&*self.0, Kind::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Unreadable { path, error } => {
                write!(f, "cannot read the rule file {}: {error}", shown(path))
            }
            Kind::Unusable { path, message } => write!(f, "{}: {message}", shown(path)),
            Kind::Fault(fault) => fault.fmt(f),
            Kind::Option(message) => f.write_str(message),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, line, column) = (shown(&self.path), self.line, self.column);
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{path}:{line}:{column}: {}", self.message)?;
        writeln!(f, "  {number} | {}", self.snippet)?;
        let blank = " ".repeat(self.carets.start);
        write!(f, "  {gutter} | {blank}{}", "^".repeat(self.carets.len()))?;
        if !self.help.is_empty() {
            write!(f, "\n  {}", self.help.replace('\n', "\n  "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &*self.0 {
            Kind::Unreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// The last place up to `at` where the text can be cut.
fn boundary(text: &str, at: usize) -> usize {
    let found = (0..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    found.unwrap_or(0)
}

/// Cuts the piece around `fault` (in characters) out of a long line. Control characters
/// become one visible character each, so that a file cannot write to the terminal and the
/// carets stay below their text.
fn cut(line: &str, fault: Range<usize>) -> (String, Range<usize>) {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let all: Vec<char> = line.chars().map(visible).collect();
    let from = if all.len() <= SNIPPET {
        0
    } else {
        // A quarter of the piece stands before the fault, where there is that much.
        let before = fault.start.saturating_sub(SNIPPET / 4);
        before.min(all.len() - SNIPPET)
    };
    let until = all.len().min(from + SNIPPET);
    let mut piece: String = all[from..until].iter().collect();
    let mut start = fault.start - from;
    let end = fault.end.min(until.max(fault.start + 1)) - from;
    let width = end - start;
    if from > 0 {
        piece.insert_str(0, "...");
        start += 3;
    }
    if until < all.len() {
        piece.push_str("...");
    }
    (piece, start..start + width)
}

fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// A path for a message: bytes that are not UTF-8, control characters and backslashes are
/// escaped, so that it stays on one line and two different paths never look alike.
pub(crate) fn shown(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut out = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        out.push_str(&shown_text(chunk.valid()));
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a String does not fail");
        }
    }
    out
}

/// A text for a message, with control characters and backslashes escaped.
pub(crate) fn shown_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_control() || c == '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn message(text: &str, span: Range<usize>) -> String {
        ConfigError::at(Path::new("f"), text, span, "wrong", "right").to_string()
    }

    #[test]
    fn carets_stand_below_the_fault() {
        let expected = "f:2:3: wrong\n  2 | cd = 1\n    |   ^\n  right";
        assert_eq!(message("ab\ncd = 1\n", 5..6), expected);
    }

    #[test]
    fn a_fault_of_several_lines_is_marked_to_the_end_of_the_first() {
        let expected = "f:1:3: wrong\n  1 | a [\n    |   ^\n  right";
        assert_eq!(message("a [\nb\n]", 2..7), expected);
    }

    #[test]
    fn columns_count_characters_and_tabs_take_one() {
        let expected = "f:1:4: wrong\n  1 |  äö= x\n    |    ^\n  right";
        assert_eq!(message("\täö= x", 5..6), expected);
    }

    #[test]
    fn any_span_of_any_text_has_a_message() {
        let text = "ä\n\u{1b}[31m\r\n\n ö";
        for start in 0..text.len() + 3 {
            for end in 0..text.len() + 3 {
                let message = message(text, start..end);
                assert!(message.ends_with("right"));
                assert!(!message.contains('\u{1b}'));
            }
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let line = format!("{}!{}", "a".repeat(500), "b".repeat(500));
        let message = message(&line, 500..501);
        let lines: Vec<&str> = message.lines().collect();
        assert!(lines[1].chars().count() <= 80, "{message}");
        assert_eq!(lines[1].find('!'), lines[2].find('^'), "{message}");
    }

    #[test]
    fn odd_paths_are_shown_on_one_line() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"a\nb\xff\\c \xc3\xa4"));
        assert_eq!(shown(path), "a\\nb\\xff\\\\c ä");
    }
}
