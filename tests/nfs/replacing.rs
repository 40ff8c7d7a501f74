//! A document that is read, changed and renamed over: by several programs on two hosts at once,
//! and no change is lost.

use crate::lab::Lab;
use crate::on_both_versions;
use crate::updaters::{JSON, Scale, Tally, Task, compare};

on_both_versions! {
    /// The usual program: it locks the document that it replaces. On any file system without
    /// our help those who wait get the lock of a file that is no longer the document.
    fn a_locked_document(lab: &Lab) {
        let all = replace(lab, "JSON, lockf of itself", "lockf", "");
        all.assert_all();
        all.assert_none_refused();
    }

    /// Nothing but its lock keeps others out: who gets it is given the document of that moment.
    fn a_lock_leads_to_the_newest_document(lab: &Lab) {
        let rules = "update = 'off'\nreplace = 'off'";
        let all = replace(lab, "JSON, lockf of itself, only that guarded", "lockf", rules);
        all.assert_all();
        let all = replace(lab, "JSON, flock of itself, only that guarded", "flock", rules);
        all.assert_all();
    }

    /// The lock is a file of its own.
    fn a_lock_file_beside_it(lab: &Lab) {
        let all = replace(lab, "JSON, lockf of a file beside it", "guard-lockf", "");
        all.assert_all();
        all.assert_none_refused();
        let all = replace_some(lab, "JSON, flock of a file beside it", "guard-flock", "");
        all.assert_all();
        all.assert_none_refused();
    }

    /// No lock at all, and a rule that takes one from the opening to the renaming.
    fn no_lock_but_held_from_the_opening(lab: &Lab) {
        let most = replace(lab, "JSON, no lock, replace = \"hold\"", "nothing", "replace = 'hold'");
        most.assert_nothing_lost();
        assert_eq!(most.done + most.refused, most.total, "{most}");
        // Who has closed the file, and does not go on within a second, loses the lock.
        assert!(most.refused * 20 <= most.total, "{most}");
        let title = "JSON, the same, open until replaced";
        let all = replace(lab, title, "nothing-open", "replace = 'hold'");
        all.assert_all();
        all.assert_none_refused();
    }

    /// No lock at all: whoever comes too late is told so.
    fn no_lock_and_told_when_late(lab: &Lab) {
        let title = "JSON, no lock, replace = \"check\"";
        let some = replace(lab, title, "nothing", "replace = 'check'");
        some.assert_nothing_lost();
        assert_eq!(some.done + some.refused, some.total, "{some}");
    }
}

/// `programs/replace.py` on both hosts.
fn replace(lab: &Lab, title: &str, how: &str, rules: &str) -> Tally {
    replace_so_often(lab, title, how, rules, Scale::usual(lab))
}

/// The same, a quarter as often.
fn replace_some(lab: &Lab, title: &str, how: &str, rules: &str) -> Tally {
    let usual = Scale::usual(lab);
    let each = usual.each.div_ceil(4);
    replace_so_often(lab, title, how, rules, Scale { each, ..usual })
}

fn replace_so_often(lab: &Lab, title: &str, how: &str, rules: &str, scale: Scale) -> Tally {
    let task = Task {
        title,
        command: ("replace.py", how),
        file: "state.json",
        kind: "json",
        make: JSON,
    };
    let rules = format!("[[guard]]\nfiles = ['state.json', 'state.guard']\n{rules}");
    compare(lab, &task, scale, &rules)
}
