//! A program that waits because another host has a file open for writing, or locked.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Job;
use crate::lab::{BOTH, Directory, Lab, VIEW, program};
use crate::on_both_versions;

/// Half a second is promised; the machines of the cluster are slow.
const LIMIT_MS: u64 = 10_000;

/// What `programs/open.py` can do that excludes others.
const WAYS: [&str; 3] = ["write", "lockf", "flock"];

on_both_versions! {
    /// Ctrl-C, which python handles, and `kill -9`; and who went on waiting gets what it wants
    /// when the other lets go.
    fn a_waiting_program_ends_on_a_signal(lab: &Lab) {
        let directory = log(lab, "");
        let _view = lab.view(&directory, &BOTH);
        for way in WAYS {
            let holder = Holder::on(lab, "host2", way);
            for signal in ["SIGINT", "SIGKILL"] {
                ends_by(lab, signal, &open(way));
            }
            let patient = lab.cluster.spawn("host1", &open(way));
            lab.cluster.run_ok("host1", &program("still.py", way));
            holder.let_go();
            assert_eq!(patient.wait_ok(), "got it\n", "{way}");
        }
    }

    /// The same for a shell, which dies of it.
    fn a_waiting_shell_ends_on_a_signal(lab: &Lab) {
        let directory = log(lab, "");
        let _view = lab.view(&directory, &BOTH);
        let _holder = Holder::on(lab, "host2", "write");
        for signal in ["SIGINT", "SIGTERM", "SIGKILL"] {
            ends_by(lab, signal, &format!("/bin/sh -c ': 3<>{VIEW}/log'"));
        }
    }

    /// A program that does not want to wait is told at once; and one of another kind at the
    /// end of lock_timeout.
    fn o_nonblock_does_not_wait(lab: &Lab) {
        let directory = log(lab, "");
        let _view = lab.view(&directory, &BOTH);
        let holder = Holder::on(lab, "host2", "write");
        let took = refused(lab, "nonblock");
        assert!(took < LIMIT_MS, "EAGAIN after {took} ms");
        holder.let_go();
        // Its end may be on its way.
        let script = format!("for ((i = 0; i < 100; i++)); do {} && exit; done; exit 1", open("nonblock"));
        assert!(lab.cluster.run_ok("host1", &script).ends_with("got it\n"));
    }

    /// At the end of lock_timeout.
    fn waiting_ends_with_an_error_after_lock_timeout(lab: &Lab) {
        let directory = log(lab, "lock_timeout = '2s'");
        let _view = lab.view(&directory, &BOTH);
        let holder = Holder::on(lab, "host2", "write");
        let took = refused(lab, "write");
        assert!((2000..20_000).contains(&took), "EAGAIN after {took} ms");
        holder.let_go();
        assert_eq!(lab.cluster.run_ok("host1", &open("write")), "got it\n");
    }

    /// Who only reads waits for nobody.
    fn reading_does_not_wait(lab: &Lab) {
        let directory = log(lab, "lock_timeout = '2s'");
        let _view = lab.view(&directory, &BOTH);
        let _holder = Holder::on(lab, "host2", "write");
        assert_eq!(lab.cluster.run_ok("host1", &open("read")), "got it\n");
    }
}

/// An empty guarded file `log`.
fn log(lab: &Lab, rules: &str) -> Directory {
    let directory = lab.directory();
    directory.rules(lab, &format!("[[guard]]\nfiles = ['log']\n{rules}"));
    lab.server(&format!(
        "install -m 666 /dev/null {}/log",
        directory.server
    ));
    directory
}

/// `programs/open.py` on the log.
fn open(way: &str) -> String {
    program("open.py", &format!("{way} {VIEW}/log"))
}

/// Runs a command on host1 that has to wait, and sends it a signal.
fn ends_by(lab: &Lab, signal: &str, command: &str) {
    let interrupted = program("interrupted.py", &format!("{signal} {command}"));
    let said = lab.cluster.run_ok("host1", &interrupted);
    let took: u64 = said.trim().parse().expect("milliseconds");
    assert!(took < LIMIT_MS, "{signal} for `{command}`: {took} ms");
}

/// Opens the log on host1, which must fail with EAGAIN; after how many milliseconds.
fn refused(lab: &Lab, way: &str) -> u64 {
    let output = lab.run("host1", &open(way));
    let took = output.stdout.trim().strip_prefix("EAGAIN ");
    let took = took.unwrap_or_else(|| panic!("{way}: {output}"));
    took.parse().expect("milliseconds")
}

/// A program that has got hold of the log and keeps it.
struct Holder {
    job: Option<Job>,
    until: PathBuf,
}

impl Holder {
    fn on(lab: &Lab, host: &str, way: &str) -> Holder {
        let barrier = lab.barrier();
        let (said, until) = (barrier.join("said"), barrier.join("until"));
        let script = format!("exec {} {} >{}", open(way), until.display(), said.display());
        let mut job = lab.cluster.spawn(host, &script);
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::fs::read_to_string(&said).unwrap_or_default() != "got it\n" {
            assert!(job.is_running(), "{way}: {}", job.wait());
            assert!(
                Instant::now() < deadline,
                "{way}: {host} does not get the file"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Holder {
            job: Some(job),
            until,
        }
    }

    /// Lets go of it, and ends.
    fn let_go(mut self) {
        self.end().wait_ok();
    }

    fn end(&mut self) -> Job {
        std::fs::write(&self.until, "").expect("cannot end the holder");
        self.job.take().expect("it is ended once")
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.job.is_some() {
            self.end().wait();
        }
    }
}
