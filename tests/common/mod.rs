//! A small world for a test: a source directory, its mount, and programs run in it by somebody.
//!
//! Nothing here waits for a fixed time: conditions are waited for, with deadlines that are far
//! longer than needed, so that a slow machine passes and a hanging mount fails.

#![allow(dead_code, reason = "each test crate uses its own part")]

pub mod debian;
pub mod faults;
pub mod leftovers;
pub mod machine;
pub mod program;
pub mod talker;
pub mod transcript;
pub mod world;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The search path of the programs that tests run, the same for everyone.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who runs a program.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    /// The superuser, as whom all tests run.
    Root,
    /// An ordinary user, with the group of the same number and some others.
    User {
        /// The user id, and the group id.
        id: u32,
        /// Supplementary groups.
        groups: &'static [u32],
    },
}

/// An ordinary user who is in a group that several directories belong to.
pub const ALICE: Who = Who::User {
    id: 1000,
    groups: &[2000],
};

/// An ordinary user without further groups.
pub const BOB: Who = Who::User {
    id: 1001,
    groups: &[],
};

/// What a finished program left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output of a program that must have succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}\n--- stdout\n{}--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// Fails, with a clear line, where the tests cannot run at all.
#[track_caller]
pub fn require_root() {
    // SAFETY: geteuid only returns a number.
    let uid = unsafe { libc::geteuid() };
    assert_eq!(
        uid, 0,
        "these tests mount and change users: run them as root"
    );
    assert!(
        Path::new("/dev/fuse").exists(),
        "these tests need /dev/fuse: load the kernel module fuse"
    );
}

/// Fails, with a clear line, if a program is not installed.
#[track_caller]
pub fn require_program(program: &str, package: &str) {
    let found = PATH
        .split(':')
        .any(|folder| Path::new(folder).join(program).exists());
    assert!(
        found,
        "these tests need {program}: install the package {package}"
    );
}

/// Looks again and again until the condition holds; false if it did not within the deadline.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A command that somebody runs, with a small, fixed environment.
pub fn command(who: Who, program: impl AsRef<OsStr>) -> Command {
    let mut command = match who {
        Who::Root => Command::new(program),
        Who::User { id, groups } => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={id}"))
                .arg(format!("--regid={id}"));
            if groups.is_empty() {
                command.arg("--clear-groups");
            } else {
                let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
                command.arg(format!("--groups={}", groups.join(",")));
            }
            command.arg("--").arg(program);
            command
        }
    };
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end, or kills it at the deadline and fails.
///
/// The output is taken up to its end, so a background process that keeps it open is a failure too.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_aside(child.stdout.take().expect("piped"));
    let stderr = read_aside(child.stderr.take().expect("piped"));
    let status = end_of(&mut child, &format!("{command:?}"));
    let closed = wait_until(DEADLINE, || stdout.is_finished() && stderr.is_finished());
    assert!(
        closed,
        "{command:?} has ended, but something keeps its output open"
    );
    Finished {
        status,
        stdout: stdout.join().expect("the reader does not panic"),
        stderr: stderr.join().expect("the reader does not panic"),
    }
}

/// Reads all that comes, in a thread.
pub fn read_aside(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what the test should see.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of a child; at the deadline it is killed, and the test fails.
#[track_caller]
pub fn end_of(child: &mut Child, what: &str) -> ExitStatus {
    let mut status = None;
    let ended = wait_until(10 * DEADLINE, || {
        status = child.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    if !ended {
        let _ = child.kill();
        panic!("{what} did not end");
    }
    status.expect("ended")
}

/// Runs a shell script as somebody, with `$1`, `$2` and so on; it must succeed. Gives its output.
#[track_caller]
pub fn shell(who: Who, script: &str, arguments: &[&Path]) -> String {
    finish(
        command(who, "sh")
            .args(["-euc", script, "sh"])
            .args(arguments),
    )
    .success()
}

/// Runs a Python program as somebody, with `sys.argv[1]` and so on; it must succeed.
#[track_caller]
pub fn python(who: Who, program: &str, arguments: &[&Path]) -> String {
    finish(
        command(who, "python3")
            .args(["-B", "-c", program])
            .args(arguments),
    )
    .success()
}

/// An empty directory that everybody may enter, removed at the end.
pub fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("dotlockfs-test-")
        .tempdir()
        .expect("a temporary directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    directory
}

/// What [`ALICE`] needs to mount: a directory with the command, and with directories of hers,
/// `source` and `mountpoint`.
#[track_caller]
pub fn home_of_a_user() -> TempDir {
    require_root();
    require_program("fusermount3", "fuse3");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set_mode(Path::new("/dev/fuse"), 0o666).expect("chmod /dev/fuse");
    let home = directory();
    let path = |name: &str| home.path().join(name);
    // The build directory may be closed to that user.
    copy_command(&path("dotlockfs"));
    for name in ["source", "mountpoint"] {
        fs::create_dir(path(name)).expect("mkdir");
        chown(path(name), Some(1000), Some(1000)).expect("chown");
    }
    home
}

/// Puts a copy of the command somewhere, for everybody. By another process: a child that another
/// thread starts just then would have it open for writing for a moment, and it could not be run.
#[track_caller]
pub fn copy_command(to: &Path) {
    shell(
        Who::Root,
        r#"cp "$1" "$2"; chmod 755 "$2""#,
        &[&dotlockfs(), to],
    );
}

/// Whether something can be read from a pipe within a while.
pub fn is_readable_within(pipe: &impl AsRawFd, time: Duration) -> bool {
    let mut fd = libc::pollfd {
        fd: pipe.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let time = i32::try_from(time.as_millis()).expect("a minute at the most");
    // SAFETY: `fd` is one pollfd, of a descriptor that stays open.
    unsafe { libc::poll(&raw mut fd, 1, time) == 1 }
}

/// The command under test.
pub fn dotlockfs() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_dotlockfs"))
}

/// A mount, unmounted at the end.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    _directory: Option<TempDir>,
    /// The daemon, if it is in the foreground.
    child: Option<Child>,
}

impl Mount {
    /// Mounts a directory in the background, at a new place.
    #[track_caller]
    pub fn new(source: &Path) -> Mount {
        Mount::with(source, &[])
    }

    /// The same with further arguments of the command.
    #[track_caller]
    pub fn with(source: &Path, arguments: &[&str]) -> Mount {
        let directory = directory();
        let mut mount = Mount::at(source, directory.path(), arguments);
        mount._directory = Some(directory);
        mount
    }

    /// Mounts a directory in the background at a given place.
    #[track_caller]
    pub fn at(source: &Path, mountpoint: &Path, arguments: &[&str]) -> Mount {
        require_root();
        let mut command = command(Who::Root, dotlockfs());
        command.arg(source).arg(mountpoint).args(arguments);
        Mount::started_by(&mut command, mountpoint)
    }

    /// Runs a command that mounts in the background and has to succeed.
    #[track_caller]
    pub fn started_by(command: &mut Command, mountpoint: &Path) -> Mount {
        let mount = Mount {
            mountpoint: mountpoint.to_owned(),
            _directory: None,
            child: None,
        };
        finish(command).success();
        assert!(
            is_mounted(mountpoint),
            "{command:?} returned, and nothing is mounted"
        );
        mount
    }

    /// Mounts a directory at a new place, as somebody, with a daemon in the foreground that logs to
    /// a file.
    #[track_caller]
    pub fn logging(who: Who, source: &Path, log: &Path) -> Mount {
        require_root();
        let directory = directory();
        if let Who::User { id, .. } = who {
            std::os::unix::fs::chown(directory.path(), Some(id), Some(id)).expect("chown");
        }
        let log = fs::File::create(log).expect("make the log");
        let mut command = command(who, dotlockfs());
        command.args([source, directory.path()]).arg("-f");
        let child = command.stderr(log).spawn().expect("the command starts");
        let mountpoint = directory.path().to_owned();
        let mut mount = Mount {
            mountpoint,
            _directory: Some(directory),
            child: Some(child),
        };
        let ended = |mount: &mut Mount| {
            let child = mount.child.as_mut().expect("started");
            child.try_wait().expect("wait").is_some()
        };
        let mounted = wait_until(DEADLINE, || {
            is_mounted(&mount.mountpoint) || ended(&mut mount)
        });
        assert!(
            mounted && is_mounted(&mount.mountpoint),
            "nothing is mounted"
        );
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// A path in the mount.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// The process that serves the mount.
    #[track_caller]
    pub fn daemon(&self) -> u32 {
        let found = daemons(&self.mountpoint);
        assert_eq!(
            found.len(),
            1,
            "one daemon serves {}: {found:?}",
            self.mountpoint.display()
        );
        found[0]
    }

    /// Unmounts and waits for the daemon's end.
    #[track_caller]
    pub fn unmount(self) {
        self.end();
    }

    /// The same; the place can be used again.
    #[track_caller]
    pub fn end(&self) {
        unmount_at(&self.mountpoint);
        let ended = wait_until(DEADLINE, || daemons(&self.mountpoint).is_empty());
        assert!(ended, "the daemon goes on after umount");
    }
}

/// Unmounts. What has it open goes a moment after it is seen to have ended: the descriptors of a
/// program with its last thread.
#[track_caller]
pub fn unmount_at(path: &Path) {
    let unmounted = || {
        let mut umount = command(Who::Root, "umount");
        finish(umount.arg(path)).status.success()
    };
    assert!(
        wait_until(DEADLINE, unmounted),
        "{} is busy",
        path.display()
    );
}

impl Drop for Mount {
    fn drop(&mut self) {
        let umount = |option: &str| {
            let mut command = command(Who::Root, "umount");
            let _ = command
                .arg(option)
                .arg(&self.mountpoint)
                .stderr(Stdio::null())
                .status();
        };
        let clean = wait_until(DEADLINE, || {
            if is_mounted(&self.mountpoint) {
                umount("--no-canonicalize");
            }
            !is_mounted(&self.mountpoint)
        });
        if !clean {
            umount("--lazy");
        }
        let ended = wait_until(DEADLINE, || daemons(&self.mountpoint).is_empty());
        for pid in daemons(&self.mountpoint) {
            send(pid, libc::SIGKILL);
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        if !(thread::panicking() || clean && ended) {
            panic!(
                "{}: {}",
                self.mountpoint.display(),
                if clean {
                    "the daemon did not end"
                } else {
                    "could not be unmounted"
                }
            );
        }
    }
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: i32) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    // SAFETY: kill takes two numbers and touches no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// The processes of the command under test that name this path among their arguments.
pub fn daemons(mountpoint: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        let ours = arguments
            .next()
            .is_some_and(|program| program.ends_with(b"dotlockfs"));
        if ours && arguments.any(|argument| argument == mountpoint.as_os_str().as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// A line of /proc/self/mountinfo.
#[derive(Debug)]
pub struct MountLine {
    /// Options of this mount: ro, nosuid and so on.
    pub options: String,
    /// The file system type.
    pub kind: String,
    /// What is mounted.
    pub source: PathBuf,
}

/// The topmost mount at a path.
pub fn mount_line(mountpoint: &Path) -> Option<MountLine> {
    // The kernel escapes white space and backslashes only; other tests mount at any bytes.
    let table: String = fs::read("/proc/self/mountinfo")
        .expect("mountinfo")
        .iter()
        .map(|&byte| match byte {
            0x80.. => format!("\\{byte:03o}"),
            _ => char::from(byte).to_string(),
        })
        .collect();
    table.lines().rev().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        (unescape(left[4]) == mountpoint).then(|| MountLine {
            options: left[5].to_owned(),
            kind: right[0].to_owned(),
            source: unescape(right[1]),
        })
    })
}

/// Whether anything is mounted exactly there.
pub fn is_mounted(mountpoint: &Path) -> bool {
    mount_line(mountpoint).is_some()
}

/// Undoes the octal escapes of the mount table.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let octal = (bytes[at] == b'\\')
            .then(|| field.get(at + 1..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsStr::from_bytes(&plain))
}
