//! A file that is opened for reading and writing, read and written in place.

use crate::lab::Lab;
use crate::on_both_versions;
use crate::updaters::{Scale, Task, compare};

on_both_versions! {
    /// Whoever has it open for writing has it alone.
    fn a_counter(lab: &Lab) {
        count(lab, "counter, read and written in place", "");
    }

    /// The same on a copy that takes its place at the close.
    fn a_counter_replaced_at_the_close(lab: &Lab) {
        count(lab, "counter, the same, update = \"atomic\"", "update = 'atomic'");
    }
}

/// `programs/count.py` on both hosts; nothing that it counted is lost.
fn count(lab: &Lab, title: &str, rules: &str) {
    let task = Task {
        title,
        command: ("count.py", ""),
        file: "number",
        kind: "count",
        make: "echo 0 >number && chmod 666 number",
    };
    let rules = format!("[[guard]]\nfiles = ['number']\n{rules}");
    let all = compare(lab, &task, Scale::usual(lab), &rules);
    all.assert_all();
    all.assert_none_refused();
}
