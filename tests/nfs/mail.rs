//! One mailbox for programs on two hosts that deliver to it through dotlockfs, and for a script on
//! a third host without it: all of them lock with `inbox.lock`.

use crate::lab::{BARE, BOTH, Lab};
use crate::on_both_versions;
use crate::updaters::{Task, compare_teams};

on_both_versions! {
    /// Every mail is there, once, and the mailbox is one that programs can read.
    fn procmail_and_dotlockfile(lab: &Lab) {
        deliver(lab, "procmail twice; dotlockfile elsewhere", ["procmail", "procmail"], 10);
    }

    /// dovecot opens the mailbox for reading and writing, under `inbox.lock`.
    fn dovecot_and_procmail_and_dotlockfile(lab: &Lab) {
        deliver(lab, "dovecot; procmail; dotlockfile elsewhere", ["dovecot", "procmail"], 6);
    }
}

/// The programs on the two hosts deliver through dotlockfs, and a third one without it. Each
/// delivers so many mails; whoever finds the mailbox locked sleeps for a second.
fn deliver(lab: &Lab, title: &str, programs: [&str; 2], mails: usize) {
    let [first, second] = programs.map(|program| task(title, program));
    let elsewhere = task(title, "dotlockfile");
    let rules = "[[guard]]\nfiles = ['inbox']\nlock_timeout = '90s'";
    // procmail and dotlockfile run with the rights of group mail, so they are other users.
    let all = compare_teams(
        lab,
        &first,
        (rules, "-o allow_other"),
        |updaters, seen, nfs| {
            for (host, task) in BOTH.into_iter().zip([&first, &second]) {
                updaters.add(host, "a", task, seen, mails);
            }
            updaters.add(BARE, "a", &elsewhere, nfs, mails);
        },
    );
    all.assert_all();
}

fn task<'a>(title: &'a str, program: &'a str) -> Task<'a> {
    Task {
        title,
        command: ("deliver.sh", program),
        file: "inbox",
        kind: "mbox",
        make: "install -m 666 -o 1000 -g 1000 /dev/null inbox",
    }
}
