//! System calls of a mount's daemon that fail, as they do when the directory below fails, or that
//! take long: by `strace`, which answers them in the kernel's place, or holds them up.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::{DEADLINE, Mount, Who, command, require_program, send, wait_until};

/// Which calls fail, and how.
#[derive(Debug, Clone)]
pub struct Fault<'a> {
    /// The system call's name; several with commas between.
    pub calls: &'a str,
    /// The name of the error.
    pub error: &'a str,
    /// Which of a thread's calls: `"1"` is the first, `"2+"` all but the first.
    pub when: &'a str,
    /// Only calls on one of these, if there are any: the path of a file or directory below that a
    /// descriptor is open on, or a name, as the daemon gives it relative to a directory.
    pub on: Vec<String>,
}

impl<'a> Fault<'a> {
    /// Each of these calls fails.
    pub fn of_each(calls: &'a str, error: &'a str, on: &[&str]) -> Fault<'a> {
        Fault {
            calls,
            error,
            when: "1+",
            on: on.iter().copied().map(str::to_owned).collect(),
        }
    }
}

/// A daemon some of whose calls fail, or take long, until this is dropped.
#[derive(Debug)]
pub struct Faults {
    strace: Child,
    log: NamedTempFile,
}

impl Faults {
    /// From now on calls of the mount's daemon fail.
    #[track_caller]
    pub fn of(mount: &Mount, fault: Fault<'_>) -> Faults {
        let what = format!("error={}:when={}", fault.error, fault.when);
        Faults::inject(mount, fault.calls, &what, &fault.on)
    }

    /// From now on these calls of the mount's daemon take longer.
    #[track_caller]
    pub fn delay(mount: &Mount, calls: &str, by: Duration, on: &[String]) -> Faults {
        let what = format!("delay_enter={}", by.as_micros());
        Faults::inject(mount, calls, &what, on)
    }

    /// From now on a thread of the mount's daemon that has got something to read, as the kernel's
    /// requests are, comes to it later.
    #[track_caller]
    pub fn delay_what_is_read(mount: &Mount, by: Duration) -> Faults {
        let what = format!("delay_exit={}", by.as_micros());
        Faults::inject(mount, "read", &what, &[])
    }

    #[track_caller]
    fn inject(mount: &Mount, calls: &str, what: &str, on: &[String]) -> Faults {
        require_program("strace", "strace");
        let daemon = mount.daemon();
        let log = NamedTempFile::new().expect("a temporary file");
        let mut strace = command(Who::Root, "strace");
        strace
            .args(["-f", "-qq", "-p", &daemon.to_string()])
            .arg("-o")
            .arg(log.path())
            .arg("-e")
            .arg(format!("trace={calls}"))
            .arg("-e")
            .arg(format!("inject={calls}:{what}"))
            .args(on.iter().flat_map(|on| ["-P", on.as_str()]))
            // Where no file has a name by which calls are chosen.
            .current_dir("/proc")
            .stderr(Stdio::null());
        let mut strace = strace.spawn().expect("strace starts");
        let tracer = format!("TracerPid:\t{}\n", strace.id());
        let attached = wait_until(DEADLINE, || {
            !matches!(strace.try_wait(), Ok(None)) || is_traced(daemon, &tracer)
        });
        assert!(
            attached && matches!(strace.try_wait(), Ok(None)),
            "strace does not get hold of the daemon (may this machine's root trace processes?)"
        );
        Faults { strace, log }
    }

    /// How many calls have failed, or taken long, so far.
    pub fn count(&self) -> usize {
        let log = fs::read_to_string(self.log.path()).expect("what strace saw");
        let was_changed = |line: &&str| line.contains("(INJECTED)") || line.contains("(DELAYED)");
        log.lines().filter(was_changed).count()
    }

    /// Calls do what they should again. At least one must have been changed.
    #[track_caller]
    pub fn end(mut self) {
        let changed = wait_until(DEADLINE, || self.count() > 0);
        let log = fs::read_to_string(self.log.path()).expect("what strace saw");
        self.detach();
        assert!(changed, "no call has failed, or taken long:\n{log}");
    }

    fn detach(&mut self) {
        send(self.strace.id(), libc::SIGTERM);
        // Where the daemon is killed, strace may wait for it for ever, and it for strace.
        let ended = wait_until(Duration::from_secs(5), || {
            !matches!(self.strace.try_wait(), Ok(None))
        });
        if !ended {
            let _ = self.strace.kill();
        }
        let _ = self.strace.wait();
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            self.detach();
        }
    }
}

/// Whether all threads of a process are traced by this.
fn is_traced(process: u32, tracer: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the daemon lives");
    threads.flatten().all(|thread| {
        // One that has just ended has no status.
        let status = fs::read_to_string(thread.path().join("status"));
        status.map_or(true, |status| status.contains(tracer))
    })
}
