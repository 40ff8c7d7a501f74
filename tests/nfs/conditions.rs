//! What must not matter: how each host has the NFS mounted, what its clock says, and that it was
//! asleep.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::asked::Asked;
use crate::lab::{BARE, Lab, VIEW};
use crate::on_both_versions;
use crate::updaters::{JSON, Task, Updaters};

/// All hosts, each of which has something odd about it.
const ALL: [&str; 3] = ["host1", "host2", BARE];

/// The time after which a lock can be broken.
const STALE: Duration = Duration::from_secs(10);

/// What all hosts do at the same time.
const TASKS: [Task; 3] = [
    Task {
        title: "appends",
        command: ("stubborn.py", ""),
        file: "log",
        kind: "records",
        make: "touch log",
    },
    Task {
        title: "a document that is replaced under its lock",
        command: ("replace.py", "lockf"),
        file: "state.json",
        kind: "json",
        make: JSON,
    },
    Task {
        title: "a counter",
        command: ("count.py", ""),
        file: "counter",
        kind: "count",
        make: "echo 0 >counter",
    },
];

/// Programs on all hosts append, replace and count, while `meanwhile` is done; nothing is lost.
fn all_is_kept(lab: &Lab, each: usize, meanwhile: impl FnOnce()) {
    let directory = lab.directory();
    for task in TASKS {
        lab.server(&format!("cd {} && {}", directory.server, task.make));
    }
    directory.rules(
        lab,
        "[[guard]]\nfiles = ['*']\nstale_after = '1h'\nlock_timeout = '100s'",
    );
    let view = lab.view(&directory, &ALL);
    let teams = TASKS.map(|task| {
        let mut updaters = Updaters::new(lab);
        for host in ALL {
            updaters.add(host, "a", &task, VIEW, each);
        }
        updaters.start();
        updaters
    });
    meanwhile();
    for (task, updaters) in TASKS.iter().zip(teams) {
        updaters.finish(task, &directory).assert_all();
    }
    drop(view);
}

/// Clocks that are wrong, and are set right when this is dropped.
struct Clocks<'a>(&'a Lab);

impl<'a> Clocks<'a> {
    /// Sets each machine's clock so many hours ahead, or behind.
    fn off(lab: &'a Lab, hours: &[(&str, i64)]) -> Clocks<'a> {
        let clocks = Clocks(lab);
        clocks.set(hours);
        clocks
    }

    fn set(&self, hours: &[(&str, i64)]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        for (machine, hours) in hours {
            let time = now.as_secs() as i64 + hours * 3600;
            self.0
                .cluster
                .run_ok(machine, &format!("date -s @{time} >/dev/null"));
        }
    }
}

impl Drop for Clocks<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.set(&[("server", 0), ("host1", 0), ("host2", 0), (BARE, 0)]);
        }
    }
}

on_both_versions! {
    /// One host keeps no attributes, one for ten minutes, and one does not look at a file anew when
    /// it opens it.
    fn mount_options_of_each_host(lab: &Lab) {
        lab.remount_each(&[("host1", "noac"), ("host2", "actimeo=600"), (BARE, "nocto")]);
        all_is_kept(lab, 20, || {});
    }

    /// Clocks are hours apart, and jump back and forth while programs are at work.
    fn clocks_that_are_wrong_and_jump(lab: &Lab) {
        let clocks = Clocks::off(lab, &[("server", -30), ("host1", 5), ("host2", -3), (BARE, 0)]);
        all_is_kept(lab, 15, || {
            for hours in [2, -7, 11] {
                clocks.set(&[("host1", hours), (BARE, -hours), ("server", -2 * hours)]);
            }
        });
    }

    /// Whose clock is hours off is neither taken for dead too early nor too late.
    fn locks_of_hosts_whose_clocks_are_wrong(lab: &Lab) {
        let clocks = Clocks::off(lab, &[("server", 20), ("host1", 5), ("host2", -3)]);
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']\nstale_after = '10s'\nlock_timeout = '100s'");
        lab.server(&format!("touch {}/log", directory.server));
        let view = lab.view(&directory, &["host1", "host2"]);
        let (mut holder, mut other) = (Asked::on(lab, "host1", 0), Asked::on(lab, "host2", 0));
        let fences = || lab.server(&format!("ls -A {} | grep -c log.fence; true", directory.server));
        let append = "with open('log', 'a') as out: out.write('other\\n')";

        // It lives, however long others wait, and whatever its clock does.
        holder.does("f = open('log', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)");
        other.begin(append);
        let began = Instant::now();
        for hours in [-9, 9].into_iter().cycle() {
            clocks.set(&[("host1", hours), ("host2", -hours), ("server", hours / 2)]);
            if began.elapsed() > 2 * STALE {
                break;
            }
            thread::sleep(Duration::from_millis(500));
        }
        assert!(other.is_busy(), "the lock of a host that lives was broken");
        holder.does("f.write('holder\\n'); f.flush(); f.close()");
        assert_eq!(other.answer(), "ok");
        assert_eq!(fences(), "0\n");

        // It sleeps, and is waited for as long as by anybody else.
        holder.does("f = open('log', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)");
        lab.cluster.pause("host1");
        let began = Instant::now();
        other.does(append);
        let took = began.elapsed();
        lab.cluster.resume("host1");
        assert!(took >= STALE, "broken after {took:?}");
        assert_eq!(fences(), "1\n");
        assert_eq!(holder.ask("f.write('late\\n'); f.flush()"), "EIO");
        let text = lab.server(&format!("cat {}/log", directory.server));
        assert_eq!(text, "holder\nother\nother\n");
        holder.end();
        other.end();
        drop(view);
    }
}
