//! A small NFS cluster for tests: one server and a few hosts, each a machine
//! with a kernel of its own (User-mode Linux), driven by the script `cluster`
//! beside this file (`cluster help` tells all about the machines).
//!
//! ```no_run
//! mod cluster;
//! use cluster::{Cluster, NFS};
//!
//! let c = Cluster::up(2, "4.2");
//! c.run_ok("host1", &format!("echo hello >{NFS}/file"));
//! let read = c.spawn("host2", &format!("cat {NFS}/file"));
//! assert_eq!(read.wait().stdout, "hello\n");
//! ```
//!
//! Whatever is missing (root, a package) is a panic with one line that says what
//! to install; nothing is skipped.

#![allow(dead_code)] // each test uses another part of it

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Where every host has the NFS mounted.
pub const NFS: &str = "/mnt/nfs";

/// Where the server has the exported files themselves.
pub const SERVER_DATA: &str = "/mnt/exports/data";

/// Status of a command that was killed because its time was up.
pub const TIMED_OUT: i32 = 124;

/// Status of a command whose machine is not up, or went down meanwhile.
pub const MACHINE_DOWN: i32 = 125;

/// How long a command may take when nothing else is said.
const DEADLINE: Duration = Duration::from_secs(300);

/// A running cluster; dropping it takes all machines down.  When the test
/// process is killed, the script's watcher does that a second later.
///
/// Only one exists at a time in a process: `up` waits for its turn, for more
/// machines than processors only make each other slow.
pub struct Cluster {
    hosts: usize,
    // Dropped in this order, after `Drop::drop` took the machines down.
    dir: tempfile::TempDir,
    _turn: Turn,
}

impl Cluster {
    /// Boots a server and `hosts` hosts (`host1`, `host2`, ...), which mount the
    /// NFS with version `vers` ("4.2" or "3"); takes about 5 seconds.
    pub fn up(hosts: usize, vers: &str) -> Cluster {
        Cluster::up_with(hosts, vers, &[])
    }

    /// Like [`Cluster::up`], with further options of `cluster up`, such as
    /// `["--mount-opts", "noac"]` or `["--export-opts", "rw,async"]`.
    pub fn up_with(hosts: usize, vers: &str, options: &[&str]) -> Cluster {
        let turn = Turn::take();
        let dir = tempfile::Builder::new()
            .prefix("cl")
            .tempdir_in("/tmp") // a short path: it holds unix sockets
            .expect("no state directory in /tmp");
        let cluster = Cluster {
            hosts,
            dir,
            _turn: turn,
        };
        let (count, owner) = (hosts.to_string(), std::process::id().to_string());
        let mut args = vec!["--hosts", &count, "--vers", vers, "--owner", &owner];
        args.extend_from_slice(options);
        cluster.must("up", &args);
        cluster
    }

    /// Names of the hosts: `host1`, `host2`, ...
    pub fn hosts(&self) -> Vec<String> {
        (1..=self.hosts).map(|n| format!("host{n}")).collect()
    }

    /// The state directory; each machine sees it under the same path.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a bash script as root on `machine` (`server`, `host1`, ...) and waits
    /// for its end, at most 300 seconds.
    pub fn run(&self, machine: &str, script: &str) -> Output {
        self.spawn(machine, script).wait()
    }

    /// Like [`Cluster::run`], and panics with all output when the script fails.
    /// Returns its standard output.
    pub fn run_ok(&self, machine: &str, script: &str) -> String {
        self.run(machine, script).expect_ok(machine, script)
    }

    /// Like [`Cluster::run`], as the ordinary user with number `uid` and with a
    /// deadline: a script that is still running then is killed, and its status
    /// is [`TIMED_OUT`].
    pub fn run_as(&self, machine: &str, uid: u32, deadline: Duration, script: &str) -> Output {
        self.spawn_as(machine, uid, deadline, script).wait()
    }

    /// Starts a script as root, to run beside others.
    pub fn spawn(&self, machine: &str, script: &str) -> Job {
        self.spawn_as(machine, 0, DEADLINE, script)
    }

    /// Starts a script as user `uid`, with a deadline.
    pub fn spawn_as(&self, machine: &str, uid: u32, deadline: Duration, script: &str) -> Job {
        // Whole seconds, rounded up: 0 would kill at once.
        let seconds = (deadline.as_millis().div_ceil(1000)).to_string();
        let uid = uid.to_string();
        let mut child = self
            .command("run", &[machine, "--timeout", &seconds, "--user", &uid])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot start the cluster script");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // It may have ended already, with its reason on standard error.
        let _ = stdin.write_all(script.as_bytes());
        Job {
            child: Some(child),
            machine: machine.into(),
            script: script.into(),
        }
    }

    /// Copies a program into `/run/bin` (first in PATH) of `machine` or "all".
    /// A program that is in use on a machine is seen there in its old state when
    /// it changes outside; this is the way to bring the new one.
    pub fn install(&self, machine: &str, program: impl AsRef<Path>) {
        let program = program.as_ref().to_str().expect("path in UTF-8");
        self.must("install", &[machine, program]);
    }

    /// Unmounts the NFS on `machine` or "all" and mounts it with another version
    /// and further options, such as "noac,timeo=50".
    pub fn remount(&self, machine: &str, vers: &str, options: Option<&str>) {
        self.must(
            "remount",
            &[machine, "--vers", vers, "--opts", options.unwrap_or("none")],
        );
    }

    /// Stops a machine as it stands, like a host that is suspended; its clock
    /// goes on.  Scripts on it go on when it is resumed.
    pub fn pause(&self, machine: &str) {
        self.must("pause", &[machine]);
    }

    /// Lets a paused machine go on.
    pub fn resume(&self, machine: &str) {
        self.must("resume", &[machine]);
    }

    /// Power cut: the machine is gone at once, with all that it had not written.
    pub fn kill(&self, machine: &str) {
        self.must("kill", &[machine]);
    }

    /// Boots a killed machine again and waits until it is ready.
    pub fn boot(&self, machine: &str) {
        self.must("boot", &[machine]);
    }

    /// Whether it runs: a machine with a system of its own may end by itself.
    pub fn is_up(&self, machine: &str) -> bool {
        let line = format!("{machine} up");
        self.must("status", &[]).lines().any(|said| said == line)
    }

    /// Cuts a machine off the network, silently and in both directions.
    pub fn cut(&self, machine: &str) {
        self.must("cut", &[machine]);
    }

    /// Delays whatever the machine sends.
    pub fn slow(&self, machine: &str, delay: Duration) {
        self.must("slow", &[machine, &delay.as_millis().to_string()]);
    }

    /// Undoes `cut` and `slow`.
    pub fn heal(&self, machine: &str) {
        self.must("heal", &[machine]);
    }

    /// Stops and starts the server's nfsd; up to 10 seconds of grace follow.
    pub fn restart_nfsd(&self) {
        self.must("restart-nfsd", &[]);
    }

    /// What a machine has said on its console.
    pub fn console(&self, machine: &str) -> String {
        self.must("console", &[machine])
    }

    fn command(&self, command: &str, args: &[&str]) -> Command {
        let mut c = Command::new(script());
        c.arg(command)
            .arg(self.dir.path())
            .args(args)
            .stdin(Stdio::null());
        c
    }

    fn must(&self, command: &str, args: &[&str]) -> String {
        let output = self.command(command, args).output();
        let output: Output = output.expect("cannot start the cluster script").into();
        output.expect_ok("cluster", &format!("{command} {}", args.join(" ")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            // The last words of the machines may tell why.
            let mut machines = self.hosts();
            machines.push("server".into());
            for machine in machines {
                let console = self.dir.path().join("m").join(&machine).join("console");
                let text = std::fs::read(console).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<_> = text.lines().collect();
                for line in &lines[lines.len().saturating_sub(10)..] {
                    eprintln!("{machine}| {line}");
                }
            }
        }
        let down = self.command("down", &[]).status();
        if !matches!(down, Ok(status) if status.success()) && !thread::panicking() {
            panic!("cluster down failed: {down:?}");
        }
    }
}

/// What a script has said and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    /// Exit status; 128 and the signal's number when a signal ended it.
    pub status: i32,
}

impl Output {
    pub fn success(&self) -> bool {
        self.status == 0
    }

    fn expect_ok(self, machine: &str, script: &str) -> String {
        assert!(self.success(), "failed on {machine}:\n{script}\n{self}");
        self.stdout
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Output {
            stdout,
            stderr,
            status,
        } = self;
        write!(f, "status: {status}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        }
    }
}

/// A script at work on a machine; dropping it kills the script.
pub struct Job {
    child: Option<Child>,
    machine: String,
    script: String,
}

impl Job {
    /// Waits for the script's end.
    pub fn wait(mut self) -> Output {
        let child = self.child.take().expect("only wait takes it");
        child
            .wait_with_output()
            .expect("cannot wait for a script")
            .into()
    }

    /// Waits, and panics with all output when the script failed.  Returns its
    /// standard output.
    pub fn wait_ok(self) -> String {
        let (machine, script) = (self.machine.clone(), self.script.clone());
        self.wait().expect_ok(&machine, &script)
    }

    /// Is it still at work?
    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut().expect("only wait takes it");
        matches!(child.try_wait(), Ok(None))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Ok(None) = child.try_wait() {
            // SIGTERM, which std cannot send: the script then kills the job on
            // its machine, too.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

/// The right to have a cluster in this process.
struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn take() -> Turn {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            taken = GIVEN_BACK
                .wait(taken)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *taken = true;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        GIVEN_BACK.notify_one();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster")
}

/// A shell loop that appends records to the log of a directory, numbered from 1.
pub fn append(directory: &str, who: &str, records: usize) -> String {
    format!("for ((n = 1; n <= {records}; n++)); do echo {who} $n >>{directory}/log || exit; done")
}
