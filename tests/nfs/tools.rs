//! Everyday tools in a tree in which every file is guarded, on two hosts at once.

use std::time::Duration;

use crate::lab::{BOTH, Directory, Lab, VIEW, program};
use crate::on_both_versions;
use crate::table::UPDATES;
use crate::updaters::{Scale, Tally, Task, compare};
use crate::writers::{Found, Program, Writers};

/// Whoever waits longest for a lock that is taken by chance may wait long.
const RULES: &str = "[[guard]]\nfiles = ['**']\nlock_timeout = '90s'";

/// A file to which the tools add lines.
const LINES: &str = "echo top >list.txt && chmod 666 list.txt";

/// An empty repository.
const REPOSITORY: &str = "git init -q -b main tree && git -C tree config gc.auto 0";

on_both_versions! {
    /// `sed -i` renames over the file that it has read; what comes too late is tried again.
    fn sed_in_place(lab: &Lab) {
        lines(lab, "sed -i, again when refused", "sed", Scale::of(lab, 40));
    }

    /// `sort -o FILE FILE -` opens the file for writing before it reads it.
    fn sort_into_the_same_file(lab: &Lab) {
        lines(lab, "sort -o FILE FILE", "sort", Scale::of(lab, 40));
    }

    /// An editor knows nothing of other hosts; `flock` around it does.
    fn vim_under_flock(lab: &Lab) {
        lines(lab, "flock FILE.guard vim FILE", "vim", Scale::of(lab, 12));
    }

    /// Two hosts commit in one working tree; who finds a lock of git's tries again.
    fn git_commits(lab: &Lab) {
        let task = Task {
            title: "git commit, again when locked",
            command: ("tool.sh", "git"),
            file: "tree",
            kind: "git",
            make: REPOSITORY,
        };
        let scale = Scale { writers: 1, each: Scale::of(lab, 6) };
        compare(lab, &task, scale, RULES).assert_all();
    }

    /// logrotate has the log open for writing while it copies and empties it, so nothing is
    /// appended in between.
    fn logrotate_with_copytruncate(lab: &Lab) {
        let found = rotate(lab, "copytruncate");
        found.assert_all();
    }

    /// logrotate renames the log and makes a new one.
    fn logrotate_with_create(lab: &Lab) {
        let found = rotate(lab, "create");
        assert_eq!((found.kept, found.torn, found.doubled), (found.expected, 0, 0), "{found}");
    }
}

/// One program on each host adds lines.
fn lines(lab: &Lab, title: &str, tool: &str, each: usize) -> Tally {
    let task = Task {
        title,
        command: ("tool.sh", tool),
        file: "list.txt",
        kind: "lines",
        make: LINES,
    };
    let all = compare(lab, &task, Scale { writers: 1, each }, RULES);
    all.assert_all();
    all
}

/// How often the log is rotated, if time permits.
const ROTATIONS: usize = 4;

/// What each of the writers appends meanwhile.
const RECORDS: usize = 100;

/// Writers on two hosts append while host1 rotates the log; what is in all the logs together.
fn rotate(lab: &Lab, how: &str) -> Found {
    let guarded = lab.directory();
    guarded.rules(lab, RULES);
    let view = lab.view(&guarded, &BOTH);
    let (found, took) = rotate_in(lab, VIEW, &guarded, how);
    drop(view);

    let directory = lab.directory();
    let (plain, plain_took) = rotate_in(lab, &directory.nfs, &directory, how);
    let title = format!("echo >>app.log; logrotate, {how}");
    let (cells, plain) = (found.update_cells(took), plain.update_cells(plain_took));
    UPDATES.print(lab, &title, found.expected, cells, plain);
    found
}

fn rotate_in(lab: &Lab, seen: &str, directory: &Directory, how: &str) -> (Found, Duration) {
    let file = format!("{seen}/app.log");
    let mut writers = Writers::two_on_each(lab, &BOTH, Program::ShellLoopAgain, &file, RECORDS);
    writers.start();
    let rotating = program("rotate.sh", &format!("{how} {file} {ROTATIONS}"));
    let rotating = lab.cluster.spawn("host1", &rotating);
    let (expected, took) = writers.finish();
    let rotated: usize = rotating.wait_ok().trim().parse().expect("a count");
    assert!(rotated > 0, "the log was never rotated");
    // The oldest first.
    let all = format!("{}.all", directory.server);
    lab.server(&format!(
        "cd {} && cat $(ls -rvd app.log app.log.*) >{all}",
        directory.server
    ));
    (Found::in_file(lab, &all, &expected), took)
}
