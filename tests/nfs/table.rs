//! The tables that the tests print: what programs come to through dotlockfs, and beside it what
//! the same programs come to straight on NFS. `tests/run` shows every line that begins with `|`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::lab::Lab;

/// What one run has come to: one number for each column of its table, and how long it took.
#[derive(Clone, Copy)]
pub struct Cells {
    pub counts: [usize; 3],
    pub took: Duration,
}

/// A table with the same columns for both runs; its head is printed before its first row, and
/// again after rows of another table.
pub struct Table {
    /// What the rows have in common.
    about: &'static str,
    /// What each program did so many times.
    what: &'static str,
    columns: [&'static str; 3],
}

/// What programs append.
pub static APPENDS: Table = Table::new(
    "2 hosts, 2 writers on each",
    "records",
    ["kept", "torn", "doubled"],
);

/// The table of the last row that was printed, by what its columns are called.
static LAST: Mutex<[&str; 3]> = Mutex::new([""; 3]);

/// What programs change by reading and writing again.
///
/// "done" is what a program took for done, "kept" what of it is there at the end. "refused" is
/// what it was told not to be done, because somebody else had been faster.
pub static UPDATES: Table = Table::new(
    "programs on 2 hosts",
    "updates",
    ["done", "kept", "refused"],
);

/// What programs read while others replace it: how often they opened it and had a whole document,
/// and how often they saw an error, or something else than a newer document.
pub static READS: Table = Table::new(
    "one reader, while another host replaces",
    "replaced",
    ["opens", "whole", "faults"],
);

impl Table {
    const fn new(about: &'static str, what: &'static str, columns: [&'static str; 3]) -> Table {
        Table {
            about,
            what,
            columns,
        }
    }

    /// One row: through dotlockfs, and straight on NFS.
    pub fn print(&self, lab: &Lab, title: &str, total: usize, guarded: Cells, plain: Cells) {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != self.columns {
            *last = self.columns;
            let [one, two, three] = self.columns;
            let columns = format!(" {one:>6} {two:>6} {three:>7} {:>8} |", "seconds");
            println!(
                "\n| {:<50} | {:>8} | {:^30} | {:^30} |",
                "", "", "through dotlockfs", "straight on NFS",
            );
            println!(
                "| {:<50} | {:>8} |{columns}{columns}",
                self.about, self.what
            );
        }
        let mut row = format!(
            "| {:<50} | {total:>8} |",
            format!("{}: {title}", lab.vers())
        );
        for Cells { counts, took } in [guarded, plain] {
            let [one, two, three] = counts;
            row += &format!(
                " {one:>6} {two:>6} {three:>7} {:>8.1} |",
                took.as_secs_f64()
            );
        }
        println!("\n{row}");
    }
}
