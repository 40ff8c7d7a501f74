//! What a check has found, and the tables of a round.

use std::collections::BTreeMap;

use crate::journal::{Journal, Outcome};

/// What has become of all that was tried on one file.
#[derive(Debug, Default)]
pub struct Found {
    pub tried: usize,
    pub acknowledged: usize,
    /// How many attempts ended how, other than well.
    pub failed: BTreeMap<String, usize>,
    /// In the file, though nobody was told so.
    pub unacknowledged: usize,
    /// What must not be, in words; the first word says what kind of fault it is.
    pub faults: Vec<String>,
    /// What is odd, but may be.
    pub notes: Vec<String>,
}

impl Found {
    /// Counts what the writers say, and takes over what they have seen themselves.
    pub fn of(journals: &[&Journal]) -> Found {
        let mut found = Found::default();
        for journal in journals {
            for of in journal.tries.values() {
                found.tried += 1;
                match of.outcome {
                    Outcome::Ok => found.acknowledged += 1,
                    outcome => *found.failed.entry(outcome.to_string()).or_default() += 1,
                }
            }
            for fault in &journal.faults {
                found.fault("seen", fault.clone());
            }
        }
        found
    }

    pub fn fault(&mut self, kind: &str, what: String) {
        self.faults.push(format!("{kind}: {what}"));
    }

    pub fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// Its row of the table, and its faults and notes below it.
    pub fn print(&self, title: &str) {
        let failed: usize = self.failed.values().sum();
        let errors: Vec<_> = self
            .failed
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        println!(
            "| {title:<34} | {:>6} | {:>12} | {failed:>6} | {:>14} | {:>6} | {}",
            self.tried,
            self.acknowledged,
            self.unacknowledged,
            self.faults.len(),
            errors.join(", ")
        );
    }

    /// The first faults and notes in words.
    pub fn explain(&self, title: &str) {
        for (mark, said) in [("FAULT", &self.faults), ("note", &self.notes)] {
            for what in said.iter().take(20) {
                println!("{mark} in {title}: {what}");
            }
            if said.len() > 20 {
                println!("{mark} in {title}: ... {} in all", said.len());
            }
        }
    }
}

/// The head of the table of files.
pub fn print_head(title: &str) {
    println!(
        "| {title:<34} | {:>6} | {:>12} | {:>6} | {:>14} | {:>6} | which failures",
        "tried", "acknowledged", "failed", "there even so", "FAULTS"
    );
}
