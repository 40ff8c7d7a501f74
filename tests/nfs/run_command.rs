//! `dotlockfs run` by an ordinary user on two hosts: nothing is lost, and nothing is left.

use std::time::Duration;

use crate::cluster::Output;
use crate::lab::{BOTH, Directory, Lab};
use crate::on_both_versions;

/// An ordinary user of all hosts.
const USER: u32 = 1000;

/// Records of each host.
const RECORDS: usize = 1000;

/// How long any of this may take.
const DEADLINE: Duration = Duration::from_secs(240);

/// The user's program holds a lock of a file, says so, and would go on for ever.
const HOLDER: &str = "exec 9>>held; flock 9; echo x >>log; touch ready; while :; do sleep 1; done";

on_both_versions! {
    /// Each run has a mount of its own, in its own namespaces; the locks are on the NFS.
    fn runs_on_two_hosts_lose_nothing(lab: &Lab) {
        let directory = lab.directory();
        let jobs: Vec<_> = BOTH
            .iter()
            .map(|host| {
                let script = format!(
                    "cd {} || exit
                    dotlockfs run -- sh -c 'i=0
                        while [ $i -lt {RECORDS} ]; do
                            i=$((i + 1)); echo {host} $i >>results.csv || exit
                        done'",
                    directory.nfs
                );
                lab.cluster.run_ok(host, "chmod 666 /dev/fuse");
                lab.cluster.spawn_as(host, USER, DEADLINE, &script)
            })
            .collect();
        for job in jobs {
            let output: Output = job.wait();
            assert!(output.success(), "{output}");
            assert_eq!(output.stdout + &output.stderr, "");
        }
        let found = lab.server(&format!("cat {}/results.csv", directory.server));
        for host in BOTH {
            let own: Vec<_> = found.lines().filter(|line| line.starts_with(host)).collect();
            let expected: Vec<_> = (1..=RECORDS).map(|i| format!("{host} {i}")).collect();
            assert_eq!(own, expected);
        }
        assert_eq!(found.lines().count(), BOTH.len() * RECORDS);
        nothing_is_left(lab, &directory);
    }
}

/// Whatever ends a run, the other host has the lock soon, and not by breaking it.
#[test]
fn a_run_that_is_ended_leaves_no_lock() {
    let lab = &Lab::on("4.2");
    for (number, signal, status) in [(0, "INT", 130), (1, "TERM", 143), (2, "KILL", 137)] {
        let directory = lab.directory();
        lab.cluster.run_ok("host1", "chmod 666 /dev/fuse");
        // With job control it has a process group of its own, as under a batch system.
        let script = format!(
            "set -m; cd {0}; dotlockfs run -- sh -c '{HOLDER}' & echo $! >{0}/pid; wait $!",
            directory.nfs
        );
        let job = lab.cluster.spawn_as("host1", USER, DEADLINE, &script);
        let is_ready = format!("if [ -s {0}/pid ]; then ls {0}; fi", directory.server);
        lab.wait_for("the run holds the lock", &is_ready, |names| {
            names.contains("ready")
        });
        // To `dotlockfs run` alone the first time, and to its group.
        let to = if number == 0 { "" } else { "-" };
        let kill = format!("kill -{signal} -- {to}$(cat {}/pid)", directory.nfs);
        lab.cluster.run_ok("host1", &kill);
        let ended = job.wait();
        assert_eq!(ended.status, status, "{ended}");
        lab.wait_for(
            "the lock is free",
            &format!("dotlockfs locks {}", directory.server),
            |said| said.starts_with("no lock is held"),
        );
        nothing_is_left(lab, &directory);
        // Nobody has to break anything: a break makes a fence.
        let names = lab.server(&format!("ls -A {}", directory.server));
        assert!(!names.contains("fence"), "{names}");
    }
}

/// No process, no mount and no lock, on either host.
fn nothing_is_left(lab: &Lab, directory: &Directory) {
    lab.on_each(
        &BOTH,
        &format!(
            "for ((i = 0; i < 400; i++)); do
                pgrep -x dotlockfs >/dev/null || break
                sleep 0.1
            done
            ! pgrep -ax dotlockfs || exit
            ! grep dotlockfs /proc/mounts || exit
            dotlockfs locks {} | grep 'no lock is held'",
            directory.nfs
        ),
    );
}
