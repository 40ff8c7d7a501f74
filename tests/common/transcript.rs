//! Transcripts of programs that do a list of cases, and what differs between two.
//!
//! A case begins with a line `== NAME`.

use std::collections::BTreeMap;

/// The lines of each case, by its first.
pub type Cases<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// Reads a transcript.
pub fn cases(transcript: &str) -> Cases<'_> {
    let mut cases = Cases::new();
    let mut lines = transcript.lines().peekable();
    while let Some(line) = lines.next() {
        let mut body = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with("== ")) {
            body.push(line);
        }
        cases.insert(line, body);
    }
    cases
}

/// The cases that differ, with the lines that only one side has; empty if there are none.
pub fn differences(plain: &Cases, mount: &Cases) -> String {
    let mut report = String::new();
    for name in plain
        .keys()
        .chain(mount.keys().filter(|name| !plain.contains_key(*name)))
    {
        let left = plain.get(name).map_or(&[][..], Vec::as_slice);
        let right = mount.get(name).map_or(&[][..], Vec::as_slice);
        if left != right {
            report += &format!("{name}\n{}", line_differences(left, right));
        }
    }
    report
}

/// A line-by-line difference by the longest common subsequence, each with the line before it.
fn line_differences(left: &[&str], right: &[&str]) -> String {
    let mut common = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            common[i][j] = if left[i] == right[j] {
                common[i + 1][j + 1] + 1
            } else {
                usize::max(common[i + 1][j], common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut report = String::new();
    let mut before = None;
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            before = Some(left[i]);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        if let Some(line) = before.take() {
            report += &format!("    {line}\n");
        }
        if i < left.len() && (j == right.len() || common[i + 1][j] >= common[i][j + 1]) {
            report += &format!("  - {}\n", left[i]);
            i += 1;
        } else {
            report += &format!("  + {}\n", right[j]);
            j += 1;
        }
    }
    report
}
