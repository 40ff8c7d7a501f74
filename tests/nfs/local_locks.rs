//! NFS mounts on which `flock` and `fcntl` lock on the host alone, as many a NFSv3 mount is:
//! through dotlockfs they hold across hosts all the same.

use crate::lab::Lab;
use crate::updaters::{JSON, Scale, Task, compare};

/// Nothing but the program's own lock keeps others out.
const RULES: &str = "[[guard]]\nfiles = ['state.*']\nupdate = 'off'\nreplace = 'off'";

fn lock_by(how: &str, title: &str) {
    let lab = Lab::on("3");
    lab.remount("local_lock=all");
    let task = Task {
        title,
        command: ("replace.py", how),
        file: "state.json",
        kind: "json",
        make: JSON,
    };
    let scale = Scale {
        writers: 2,
        each: 15,
    };
    let all = compare(&lab, &task, scale, RULES);
    all.assert_all();
    all.assert_none_refused();
}

#[test]
fn fcntl_locks_hold_across_hosts() {
    lock_by("guard-lockf", "local_lock=all, lockf of another file");
}

#[test]
fn flock_locks_hold_across_hosts() {
    lock_by("guard-flock", "local_lock=all, flock of another file");
}

#[test]
fn the_lock_of_a_file_that_is_replaced_holds_across_hosts() {
    lock_by("lockf", "local_lock=all, lockf of itself");
}
