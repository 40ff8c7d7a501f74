//! The mount ends while programs append.

use crate::cluster::Output;
use crate::lab::{BOTH, Directory, Lab, VIEW};
use crate::on_both_versions;
use crate::writers::{Expected, Found, Program, Writers};

/// Waits until the daemon is gone.
const DAEMON_ENDS: &str = "for ((i = 0; i < 300; i++)); do
        pgrep -x dotlockfs >/dev/null || exit 0
        sleep 0.1
    done
    echo 'dotlockfs goes on after 30 s' >&2
    exit 1";

on_both_versions! {
    /// A mount in use stays, and its programs with it.
    fn umount_while_writers_write_is_refused(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let writers = at_work(lab);
        let refused = lab.run("host1", &format!("umount {VIEW}"));
        writers.stop();
        let (expected, outputs) = writers.finish_anyhow();
        assert_eq!(refused.status, 32, "{refused}");
        assert!(refused.stderr.contains("target is busy"), "{refused}");
        assert!(outputs.iter().all(Output::success), "{outputs:?}");
        found(lab, &directory, &expected).assert_all();
    }

    /// `umount -l`: nobody finds the mount any more, and those who have files open go on.
    fn a_lazy_umount_loses_nothing(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let writers = at_work(lab);
        lab.cluster.run_ok("host1", &format!("umount -l {VIEW}"));
        writers.stop();
        let (expected, outputs) = writers.finish_anyhow();
        assert!(outputs[2].success() && outputs[3].success(), "host2: {outputs:?}");
        lab.cluster.run_ok("host1", DAEMON_ENDS);
        found(lab, &directory, &expected).assert_all();
    }

    /// SIGTERM to the daemon: what `write` had accepted is there; the other host goes on.
    fn the_end_of_the_daemon_loses_nothing(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &BOTH);
        let writers = at_work(lab);
        lab.cluster.run_ok("host1", "pkill -TERM -x dotlockfs");
        lab.cluster.run_ok("host1", DAEMON_ENDS);
        writers.stop();
        let (expected, outputs) = writers.finish_anyhow();
        assert!(outputs[2].success() && outputs[3].success(), "host2: {outputs:?}");
        lab.cluster.run_ok("host1", &format!("! mountpoint -q {VIEW}"));
        found(lab, &directory, &expected).assert_all();
    }
}

/// Two writers on each host, all of which have written and go on.
fn at_work(lab: &Lab) -> Writers<'_> {
    let file = format!("{VIEW}/log");
    let mut writers = Writers::two_on_each(lab, &BOTH, Program::HeldUntilStopped, &file, 100_000);
    writers.start();
    writers.wait_until_all_write();
    writers
}

fn found(lab: &Lab, directory: &Directory, expected: &Expected) -> Found {
    Found::in_file(lab, &format!("{}/log", directory.server), expected)
}
