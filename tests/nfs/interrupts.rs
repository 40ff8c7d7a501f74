//! A program that waits for a lock can be ended.

use std::thread;
use std::time::Duration;

use crate::dotlocks::{lock, unlock};
use crate::lab::{Lab, VIEW, program};
use crate::on_both_versions;
use crate::writers::{Expected, Found};

/// Half a second is promised; the machines of the cluster are slow.
const LIMIT_MS: u64 = 10_000;

on_both_versions! {
    /// A signal that is about something else leaves the append alone: on NFS, as on any disk,
    /// `write` to a file never fails because a child has ended.
    fn a_child_that_ends_interrupts_nothing(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &["host1"]);
        lock(lab, &directory);
        let script = format!("trap : CHLD; sleep 1 & echo mine >>{VIEW}/log && wait");
        let writer = lab.cluster.spawn("host1", &script);
        // The child ends meanwhile; if it is late, the test is easier to pass.
        thread::sleep(Duration::from_secs(3));
        unlock(lab, &directory);
        writer.wait_ok();
        assert_eq!(lab.server(&format!("cat {}/log", directory.server)), "mine\n");
    }

    /// Ctrl-C and `kill -9`; a program that handles the signal, and one that does not.
    fn a_waiting_program_ends_on_a_signal(lab: &Lab) {
        let directory = lab.directory();
        let _view = lab.view(&directory, &["host1"]);
        lock(lab, &directory);
        let file = format!("{VIEW}/log");
        let handles = program("held.py", &format!("{file} host1.b 1"));
        let dies = program("shell-loop.sh", &format!("{file} host1.b 1"));
        for (signal, command) in [
            ("SIGINT", &handles),
            ("SIGKILL", &handles),
            ("SIGINT", &dies),
            ("SIGTERM", &dies),
        ] {
            let interrupted = program("interrupted.py", &format!("{signal} {command}"));
            let said = lab.cluster.run_ok("host1", &interrupted);
            let took: u64 = said.trim().parse().expect("milliseconds");
            assert!(took < LIMIT_MS, "{signal} for `{command}`: {took} ms");
        }
        // None of those was told that its record is in, and none is.
        unlock(lab, &directory);
        let append = program("held.py", &format!("{file} host1.a 1"));
        lab.cluster.run_ok("host1", &append);
        let only = Expected::exactly(&[("host1.a".into(), 1)]);
        Found::in_file(lab, &format!("{}/log", directory.server), &only).assert_all();
    }
}
