//! SQLite with its rollback journal, from two hosts at once.

use crate::lab::Lab;
use crate::on_both_versions;
use crate::updaters::{Scale, Task, compare};

/// Rows that each host inserts, each in a transaction of its own; a transaction is a dozen calls
/// that wait for the server's disk.
const ROWS: usize = 200;

/// The same where each row opens and closes the database.
const ROWS_WITH_A_CONNECTION_EACH: usize = 50;

/// An empty database.
const MAKE: &str = "/usr/bin/python3 -c '
import sqlite3
sqlite3.connect(\"app.db\").execute(\"CREATE TABLE rows (name TEXT NOT NULL)\")'";

on_both_versions! {
    /// SQLite's own locks are all that it needs, if they hold across hosts.
    fn sqlite_by_its_own_locks(lab: &Lab) {
        let rules = "update = 'off'\nreplace = 'off'";
        insert(lab, "sqlite, a connection held", "held", rules, ROWS);
    }

    /// Whoever has the database open for writing has it alone: a program that opens it, inserts
    /// and closes it again goes well with that.
    fn sqlite_by_the_opening_of_the_file(lab: &Lab) {
        let title = "sqlite, a connection for each row";
        // Whoever waits longest for a lock that is taken by chance may wait long.
        insert(lab, title, "each", "lock_timeout = '90s'", ROWS_WITH_A_CONNECTION_EACH);
    }
}

fn insert(lab: &Lab, title: &str, how: &str, rules: &str, rows: usize) {
    let task = Task {
        title,
        command: ("sqlite-rows.py", how),
        file: "app.db",
        kind: "sqlite",
        make: MAKE,
    };
    let scale = Scale {
        writers: 1,
        each: Scale::of(lab, rows),
    };
    // The database and its journal, `app.db-journal`.
    let rules = format!("[[guard]]\nfiles = ['app.db*']\n{rules}");
    compare(lab, &task, scale, &rules).assert_all();
}
