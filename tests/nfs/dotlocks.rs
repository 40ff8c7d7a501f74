//! `X.lock`, the lock file of other programs, keeps us out, and ours keeps them out.

use std::time::{Duration, Instant};

use crate::lab::{BARE, BOTH, Directory, Lab, VIEW, program};
use crate::on_both_versions;
use crate::writers::{Expected, Found, Program, Writers};

/// Makes the lock file as another program would, straight on the NFS's disk.
pub fn lock(lab: &Lab, directory: &Directory) {
    lab.server(&format!("echo 4711 >{}/log.lock", directory.server));
}

/// Removes it again.
pub fn unlock(lab: &Lab, directory: &Directory) {
    lab.server(&format!("rm {}/log.lock", directory.server));
}

/// Waits until somebody has a turn at `log`, and gives the host's name.
pub fn holder(lab: &Lab, directory: &Directory) -> String {
    // The newest turn that is not over; its claim has a line `host NAME`.
    let script = format!(
        "cd {} && for turn in .log.turn.*; do
            [[ ! -e $turn || -e ${{turn/turn/done}} ]] || sed -n 's/^host //p' $turn
        done",
        directory.server
    );
    let said = lab.wait_for("somebody has a turn", &script, |said| !said.is_empty());
    said.trim().to_owned()
}

on_both_versions! {
    /// While the lock file stands, appends wait; when it is gone, they go through.
    fn a_foreign_lock_file_is_waited_for(lab: &Lab) {
        let directory = lab.directory();
        // Longer than all of this takes.
        directory.rules(lab, "[[guard]]\nfiles = ['**']\nlock_timeout = '5min'");
        let _view = lab.view(&directory, &BOTH);
        lock(lab, &directory);
        let mut writers = Writers::two_on_each(lab, &BOTH, Program::Held, &log(), 20);
        writers.start();
        for host in BOTH {
            lab.cluster.run_ok(host, &program("still.py", &log()));
        }
        let size = lab.server(&format!("stat -c %s {}/log 2>/dev/null || echo 0", directory.server));
        assert_eq!(size, "0\n", "appended in spite of the lock file");
        assert!(writers.are_running());
        unlock(lab, &directory);
        let (expected, _) = writers.finish();
        found(lab, &directory, &expected).assert_all();
    }

    /// With a lock_timeout the append fails after that time, and a later one is fine.
    fn waiting_ends_with_an_error_after_lock_timeout(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['**']\nlock_timeout = '3s'");
        let _view = lab.view(&directory, &["host1"]);
        lock(lab, &directory);
        let append = program("held.py", &format!("{} host1.a 1", log()));
        let began = Instant::now();
        let refused = lab.run("host1", &append);
        let took = began.elapsed();
        assert!(refused.stderr.contains("BlockingIOError: [Errno 11]"), "{refused}");
        assert!(
            took >= Duration::from_secs(3) && took < Duration::from_secs(15),
            "EAGAIN after {took:?}"
        );
        unlock(lab, &directory);
        lab.cluster.run_ok("host1", &append);
        found(lab, &directory, &Expected::exactly(&[("host1.a".into(), 1)])).assert_all();
    }

    /// A program on a host without dotlockfs locks with `log.lock`; nobody loses anything.
    fn programs_with_lock_files_elsewhere(lab: &Lab) {
        let directory = lab.directory();
        // Whoever waits longest for a lock that is taken by chance may wait long.
        directory.rules(lab, "[[guard]]\nfiles = ['**']\nlock_timeout = '2min'");
        let _view = lab.view(&directory, &BOTH);
        let mut writers = Writers::two_on_each(lab, &BOTH, Program::Held, &log(), 100);
        writers.add(BARE, "a", Program::Dotlocking, &format!("{}/log", directory.nfs), 40);
        writers.add("server", "a", Program::Dotlocking, &format!("{}/log", directory.server), 40);
        writers.start();
        let (expected, _) = writers.finish();
        found(lab, &directory, &expected).assert_all();
    }

    /// Programs that lock with `log.lock` on the hosts that have dotlockfs, too.
    fn programs_with_lock_files_here(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']\nlock_timeout = '2min'");
        let _view = lab.view(&directory, &BOTH);
        let mut writers = Writers::new(lab);
        for host in BOTH {
            writers.add(host, "a", Program::Dotlocking, &log(), 40);
            writers.add(host, "b", Program::Held, &log(), 40);
        }
        writers.add(BARE, "a", Program::Dotlocking, &format!("{}/log", directory.nfs), 40);
        writers.start();
        let (expected, _) = writers.finish();
        found(lab, &directory, &expected).assert_all();
    }

    /// A host that waits is paused: the other, whose turn it is, is not held up.
    fn a_paused_waiter_harms_nobody(lab: &Lab) {
        one_host_is_out(
            lab,
            |host| lab.cluster.pause(host),
            |host| lab.cluster.resume(host),
        );
    }

    /// The same with a host that is cut off the network while it waits.
    fn a_waiter_that_is_cut_off_harms_nobody(lab: &Lab) {
        one_host_is_out(
            lab,
            |host| lab.cluster.cut(host),
            |host| lab.cluster.heal(host),
        );
    }
}

/// Both hosts want to append, and a lock file keeps both waiting; then the one whose turn it is
/// not is out for a while.
fn one_host_is_out(lab: &Lab, out: impl Fn(&str), back: impl Fn(&str)) {
    let directory = lab.directory();
    directory.rules(lab, "[[guard]]\nfiles = ['**']\nlock_timeout = '2min'");
    let _view = lab.view(&directory, &BOTH);
    lock(lab, &directory);
    let mut writers = Writers::two_on_each(lab, &BOTH, Program::Held, &log(), 50);
    writers.start();
    for host in BOTH {
        lab.cluster.run_ok(host, &program("still.py", &log()));
    }
    let (other, holder) = put_out_one_that_waits(lab, &directory, &out, &back);
    unlock(lab, &directory);
    writers.finish_on(&holder);
    back(&other);
    let (_, took) = writers.finish();
    assert!(took < Duration::from_secs(110), "it took {took:?}");
    let all = BOTH.map(|host| [format!("{host}.a"), format!("{host}.b")]);
    let all: Vec<_> = all
        .into_iter()
        .flatten()
        .map(|writer| (writer, 50))
        .collect();
    found(lab, &directory, &Expected::exactly(&all)).assert_all();
}

/// Puts one host out and gives its name and the other's. Whose turn it is may change at any
/// moment until the one that is put out is really out.
fn put_out_one_that_waits(
    lab: &Lab,
    directory: &Directory,
    out: impl Fn(&str),
    back: impl Fn(&str),
) -> (String, String) {
    for _ in 0..20 {
        let holding = holder(lab, directory);
        let waiting = BOTH.into_iter().find(|host| *host != holding);
        let waiting = waiting.expect("two hosts");
        out(waiting);
        // What it had sent is on the server by now, or never.
        std::thread::sleep(Duration::from_millis(300));
        if holder(lab, directory) == holding {
            return (waiting.into(), holding);
        }
        back(waiting);
    }
    panic!("the turn changes all the time though nobody can use it");
}

fn log() -> String {
    format!("{VIEW}/log")
}

fn found(lab: &Lab, directory: &Directory, expected: &Expected) -> Found {
    Found::in_file(lab, &format!("{}/log", directory.server), expected)
}
