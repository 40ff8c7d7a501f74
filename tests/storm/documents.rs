//! The check of a JSON document that was replaced again and again (`programs/replace.py`).

use std::collections::HashSet;

use crate::journal::{Journal, Outcome};
use crate::report::Found;

/// A document without any update.
pub const EMPTY: &str = r#"{"done": []}"#;

/// Compares the document with what its writers have tried.
pub fn check(text: &str, journals: &[&Journal]) -> Found {
    let mut found = Found::of(journals);
    let Some(done) = updates(text) else {
        found.fault("torn", format!("{} bytes: {text:.200?}", text.len()));
        return found;
    };
    let mut seen = HashSet::new();
    for name in &done {
        if !seen.insert(*name) {
            found.fault("doubled", (*name).into());
        }
    }
    for journal in journals {
        for (seq, of) in &journal.tries {
            let there = seen.remove(format!("{}.{seq}", journal.writer).as_str());
            match of.outcome {
                Outcome::Ok if !there => found.fault("lost", journal.tell(*seq)),
                Outcome::Failed(libc::EAGAIN | libc::ESTALE) if there => {
                    found.fault("refused, and yet there", journal.tell(*seq));
                }
                Outcome::Failed(_) | Outcome::NoAnswer if there => found.unacknowledged += 1,
                _ => (),
            }
        }
    }
    for name in seen {
        found.fault("strange", name.into());
    }
    found
}

/// The names in it, if it is such a document.
fn updates(text: &str) -> Option<Vec<&str>> {
    let list = text.strip_prefix(r#"{"done": ["#)?.strip_suffix("]}")?;
    let names = list.split(", ").filter(|_| !list.is_empty());
    names
        .map(|name| name.strip_prefix('"')?.strip_suffix('"'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a document: 1 ok, 2 failed (EIO), 3 refused (ESTALE), 4 ok.
    fn faults(text: &str) -> Vec<String> {
        let history = "try 1 0 0 .\nok 1 0 .\ntry 2 0 0 .\nfailed 2 5 0 .\ntry 3 0 0 .\n\
                       failed 3 116 0 .\ntry 4 0 0 .\nok 4 0 .\n";
        check(text, &[&Journal::parse("host1.e", history)]).faults
    }

    fn assert_fault(text: &str, kind: &str) {
        let faults = faults(text);
        assert!(
            faults.first().is_some_and(|first| first.starts_with(kind)),
            "{faults:?}"
        );
    }

    #[test]
    fn what_failed_may_be_there_or_not() {
        assert_eq!(faults(r#"{"done": ["host1.e.1", "host1.e.4"]}"#), [""; 0]);
        assert_eq!(
            faults(r#"{"done": ["host1.e.1", "host1.e.2", "host1.e.4"]}"#),
            [""; 0]
        );
        assert!(check(EMPTY, &[]).faults.is_empty());
    }

    #[test]
    fn faults_are_found() {
        assert_fault(r#"{"done": ["host1.e.4"]}"#, "lost: host1.e.1");
        assert_fault(
            r#"{"done": ["host1.e.1", "host1.e.1", "host1.e.4"]}"#,
            "doubled",
        );
        assert_fault(
            r#"{"done": ["host1.e.1", "host1.e.3", "host1.e.4"]}"#,
            "refused",
        );
        assert_fault(
            r#"{"done": ["host1.e.1", "host1.e.4", "host1.e.5"]}"#,
            "strange",
        );
        assert_fault(r#"{"done": ["host1.e.1", "host1.e.4""#, "torn");
        assert_fault("", "torn");
    }
}
