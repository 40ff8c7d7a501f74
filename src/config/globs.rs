//! The patterns that choose files.
//!
//! A pattern is matched against the whole path of a file, relative to the root of the mount,
//! byte by byte and with regard to case:
//!
//! | pattern | matches |
//! | --- | --- |
//! | `*` | any run of bytes within one name, a leading dot included |
//! | `**/`, `/**`, `/**/` | any number of directories |
//! | `?` | one byte, but not `/` (a letter beyond ASCII takes several) |
//! | `[a-z]`, `[!a-z]` | one byte of the class, or not of it; a negated class can match `/` |
//! | `{a,b}` | either; may be empty, as in `log{,.1}` |
//! | `\*` | the character itself |
//!
//! As in `.gitignore`, a pattern without a `/`, such as `*.log`, matches the name of a file in
//! any directory; one with a `/` is relative to the root, so `/*.log` and `./*.log` match at
//! the root only.

use std::path::Path;

use globset::{Candidate, Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// The longest pattern, in bytes. No path is longer, and nested braces stay shallow enough
/// for the recursion in the matcher's compiler.
const MAX_LENGTH: usize = 1024;

/// What is wrong with a pattern, and what would be right.
#[derive(Debug, PartialEq)]
pub(super) struct BadGlob {
    pub(super) message: String,
    pub(super) help: &'static str,
}

impl BadGlob {
    fn new(message: impl Into<String>, help: &'static str) -> Self {
        let message = message.into();
        Self { message, help }
    }
}

/// Checks a pattern and makes its matcher.
pub(super) fn compile(pattern: &str) -> Result<Glob, BadGlob> {
    let anchored = anchor(pattern)?;
    GlobBuilder::new(&anchored)
        .literal_separator(true)
        .empty_alternates(true)
        .build()
        .map_err(|error| {
            BadGlob::new(
                format!("not a pattern: {}", error.kind()),
                "put a backslash before [, ], {, }, * or ? to mean the character itself",
            )
        })
}

/// The pattern relative to the root: without the leading `/` or `./` that anchors it there,
/// or with the `**/` that a pattern without any slash stands for.
fn anchor(pattern: &str) -> Result<String, BadGlob> {
    if pattern.is_empty() {
        return Err(BadGlob::new(
            "an empty pattern matches no file",
            "for every file, write \"**\"",
        ));
    }
    if pattern.len() > MAX_LENGTH {
        return Err(BadGlob::new(
            format!("a pattern may have {MAX_LENGTH} bytes at most"),
            "split it into several",
        ));
    }
    if pattern.contains('\0') {
        return Err(BadGlob::new("no file name holds a NUL byte", ""));
    }
    if has_wide_class(pattern) {
        return Err(BadGlob::new(
            "only ASCII characters can stand in [...]; names are matched byte by byte",
            "write {ä,ö} in place of [äö]",
        ));
    }
    if !pattern.contains('/') {
        check_part(pattern)?;
        return Ok(format!("**/{pattern}"));
    }
    let relative = pattern
        .strip_prefix('/')
        .or_else(|| pattern.strip_prefix("./"))
        .unwrap_or(pattern);
    if relative.ends_with('/') || relative.is_empty() {
        return Err(BadGlob::new(
            "a pattern that ends in / matches no file",
            "for the files in a directory and all below it, write \"directory/**\"",
        ));
    }
    relative.split('/').try_for_each(check_part)?;
    Ok(relative.to_owned())
}

/// Refuses what can never match a part of a path.
fn check_part(part: &str) -> Result<(), BadGlob> {
    match part {
        ".." => Err(BadGlob::new(
            "a pattern may not hold \"..\"",
            "patterns are relative to the root of the mount, and match nothing outside it",
        )),
        "." => Err(BadGlob::new(
            "\".\" within a pattern matches no file",
            "leave it out",
        )),
        "" => Err(BadGlob::new(
            "two slashes in a row match no file",
            "write one slash; for any number of directories, write \"/**/\"",
        )),
        _ => Ok(()),
    }
}

/// Whether a `[...]` holds a character beyond ASCII. The matcher would take its bytes as
/// members of their own, and silently leave the file unguarded.
fn has_wide_class(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            '[' => {
                _ = chars.next_if(|c| matches!(c, '!' | '^'));
                // A bracket that comes first is a member of the class.
                _ = chars.next_if_eq(&']');
                for member in chars.by_ref().take_while(|c| *c != ']') {
                    if !member.is_ascii() {
                        return true;
                    }
                }
            }
            _ => {}
        }
    }
    false
}

/// The patterns of all rules, matched in one go.
#[derive(Debug)]
pub(super) struct Patterns {
    set: GlobSet,
    /// For each pattern of the set, in the order of the file: its rule, and its place in that
    /// rule's `files`.
    places: Vec<(usize, usize)>,
}

impl Patterns {
    /// Joins the compiled patterns of each rule, in order. Fails when they are too many or
    /// too large for the matcher.
    pub(super) fn new<'a>(rules: impl Iterator<Item = &'a [Glob]>) -> Result<Self, String> {
        let mut builder = GlobSetBuilder::new();
        let mut places = Vec::new();
        for (rule, globs) in rules.enumerate() {
            for (index, glob) in globs.iter().enumerate() {
                builder.add(glob.clone());
                places.push((rule, index));
            }
        }
        let set = builder.build().map_err(|error| match error.glob() {
            Some(glob) => format!("the pattern {glob:?} is too large: {}", error.kind()),
            None => format!("the patterns are too many: {}", error.kind()),
        })?;
        Ok(Self { set, places })
    }

    /// The first pattern that matches, as (rule, place in its `files`), from 0.
    pub(super) fn first(&self, path: &Path) -> Option<(usize, usize)> {
        let matches = self.set.matches_candidate(&Candidate::new(path));
        matches.into_iter().min().map(|at| self.places[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn matches(pattern: &str, path: &[u8]) -> bool {
        let globs = [compile(pattern).unwrap()];
        let patterns = Patterns::new([&globs[..]].into_iter()).unwrap();
        patterns.first(Path::new(OsStr::from_bytes(path))).is_some()
    }

    #[test]
    fn patterns_match_as_documented() {
        let table: &[(&str, &[u8], bool)] = &[
            ("*.log", b"a.log", true),
            ("*.log", b"x/y/a.log", true),
            ("*.log", b"x/.log", true),
            ("*.log", b"a.LOG", false),
            ("*.log", b"a.log/b", false),
            ("/*.log", b"a.log", true),
            ("/*.log", b"x/a.log", false),
            ("./*.log", b"x/a.log", false),
            ("./x/*.log", b"x/a.log", true),
            ("x/*", b"x/a", true),
            ("x/*", b"x/y/a", false),
            ("x/*", b"w/x/a", false),
            ("x/**", b"x/y/a", true),
            ("x/**/*.log", b"x/a.log", true),
            ("x/**/*.log", b"x/y/z/a.log", true),
            ("**/x/*", b"v/w/x/a", true),
            ("**", b"any/thing", true),
            ("*", b"any/thing", true),
            ("?.csv", b"1.csv", true),
            ("?.csv", b"12.csv", false),
            ("[a-c][!0-9]", b"bx", true),
            ("[a-c][!0-9]", b"b1", false),
            ("log{,.1}", b"log", true),
            ("log{,.1}", b"x/log.1", true),
            ("log{,.1}", b"log.2", false),
            ("\\*", b"*", true),
            ("\\*", b"a", false),
            ("ends.", b"x/ends.", true),
            ("größe*", "größer".as_bytes(), true),
            ("{ä,ö}", "ö".as_bytes(), true),
            // Names are bytes: Latin-1, a newline, blanks.
            ("*.log", b"x/\xff\xfe.log", true),
            ("a*b", b"a\n\xe4 b", true),
            ("x/**/b", b"x/\xff/\n/b", true),
        ];
        for (pattern, path, expected) in table {
            let shown = String::from_utf8_lossy(path);
            assert_eq!(matches(pattern, path), *expected, "{pattern} on {shown}");
        }
    }

    #[test]
    fn patterns_that_match_nothing_are_refused() {
        let table = [
            ("", "empty"),
            ("/", "ends in /"),
            ("./", "ends in /"),
            ("logs/", "ends in /"),
            ("..", "\"..\""),
            ("a/../b", "\"..\""),
            ("/../b", "\"..\""),
            (".", "\".\""),
            ("a/./b", "\".\""),
            ("a//b", "two slashes"),
            ("//b", "two slashes"),
            ("a\0", "NUL"),
            ("[äö]", "ASCII"),
            ("[]ä]", "ASCII"),
            ("[a", "unclosed"),
            ("{a", "unclosed"),
            ("a}", "unopened"),
            ("[b-a]", "invalid range"),
            ("a\\", "dangling"),
        ];
        for (pattern, expected) in table {
            let error = compile(pattern).unwrap_err();
            assert!(error.message.contains(expected), "{pattern}: {error:?}");
        }
        let long = "a".repeat(MAX_LENGTH + 1);
        assert!(compile(&long).unwrap_err().message.contains("1024 bytes"));
    }

    #[test]
    fn deeply_nested_and_very_many_patterns_give_an_error_at_most() {
        let deep = format!("{}a{}", "{".repeat(500), "}".repeat(500));
        if let Ok(glob) = compile(&deep) {
            _ = Patterns::new([&[glob][..]].into_iter());
        }
        let many = vec![compile("*a*b*").unwrap(); 10_000];
        _ = Patterns::new([&many[..]].into_iter());
    }

    #[test]
    fn the_first_pattern_wins() {
        let first = [compile("*.tmp").unwrap(), compile("*.log").unwrap()];
        let second = [compile("**").unwrap()];
        let patterns = Patterns::new([&first[..], &second[..]].into_iter()).unwrap();
        assert_eq!(patterns.first(Path::new("a/b.log")), Some((0, 1)));
        assert_eq!(patterns.first(Path::new("a/b.csv")), Some((1, 0)));
    }
}
