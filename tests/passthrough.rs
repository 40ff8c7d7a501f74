//! Files that are not guarded are read and written by the kernel itself, where it can do that; and
//! no program can tell, but by the speed.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use common::talker::Talker;
use common::{
    ALICE, DEADLINE, Mount, Who, command, directory, dotlockfs, finish, home_of_a_user, is_mounted,
    python, require_program, require_root, send, shell, unmount_at, wait_until,
};
use tempfile::TempDir;

/// Rules by which of the files of these tests only `guarded` is guarded.
const RULES: &str = "version = 1\n\n[[guard]]\nfiles = [\"guarded\"]\n";

/// How long something must not come about that never should.
const WHILE: Duration = Duration::from_millis(300);

/// Opens a file as somebody, and reads and writes it at word.
const USES_A_FILE: &str = "
import os, sys
os.setuid(int(sys.argv[3].removeprefix('uid=')))
file = os.open(sys.argv[1], int(sys.argv[2].removeprefix('flags=')))
print('open', flush=True)
for line in sys.stdin:
    word, data = line.split()
    if word == 'write':
        os.pwrite(file, data.encode(), 0)
        print('written', flush=True)
    else:
        print(os.pread(file, 100, 0).decode(), flush=True)
";

#[test]
fn an_open_file_is_read_and_written_while_the_daemon_is_stopped() {
    if !kernel_can() {
        return;
    }
    for uid in [0, 1000] {
        let source = source();
        let file = source.path().join("file");
        fs::write(&file, "old").expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("chmod");
        let mount = Mount::with(source.path(), &["-o", "allow_other"]);
        let mut program = user_of_as(&mount.join("file"), libc::O_RDWR, uid);
        program.hears("open");
        // Before the first write the kernel asks whether that takes rights from the file.
        program.says("write o");
        program.hears("written");
        // What nobody has read yet, so that it is in no cache of the mount.
        fs::write(&file, "fresh").expect("write");
        let stopped = Stopped::new(mount.daemon());
        program.says("read -");
        program.hears("fresh");
        program.says("write FRE");
        program.hears("written");
        assert_eq!(fs::read_to_string(&file).expect("read"), "FREsh");
        drop(stopped);
        drop(program);
        assert_eq!(
            fs::read_to_string(mount.join("file")).expect("read"),
            "FREsh"
        );
    }
}

#[test]
fn a_file_that_is_made_is_passed_through_too() {
    if !kernel_can() {
        return;
    }
    let source = source();
    let mount = Mount::new(source.path());
    let mut program = user_of(&mount.join("new"), libc::O_RDWR | libc::O_CREAT);
    program.hears("open");
    // Before the first write the kernel asks whether that takes rights from the file.
    program.says("write CON");
    program.hears("written");
    let stopped = Stopped::new(mount.daemon());
    program.says("write content");
    program.hears("written");
    drop(stopped);
    let content = fs::read_to_string(source.path().join("new")).expect("read");
    assert_eq!(content, "content");
}

/// On a read-only mount too.
#[test]
fn a_read_only_mount_reads_by_itself() {
    if !kernel_can() {
        return;
    }
    let source = source();
    fs::write(source.path().join("file"), "content").expect("write");
    let mount = Mount::with(source.path(), &["-o", "ro"]);
    let mut program = user_of(&mount.join("file"), libc::O_RDONLY);
    program.hears("open");
    let stopped = Stopped::new(mount.daemon());
    program.says("read -");
    program.hears("content");
    drop(stopped);
}

/// With `nopassthrough`, and where a file is guarded, the daemon is asked.
#[test]
fn where_it_is_turned_off_or_the_file_is_guarded_the_daemon_is_asked() {
    let source = source();
    for (options, name) in [("nopassthrough", "file"), ("allow_other", "guarded")] {
        let file = source.path().join(name);
        fs::write(&file, "content").expect("write");
        let mount = Mount::with(source.path(), &["-o", options]);
        let mut program = user_of(&mount.join(name), libc::O_RDONLY);
        program.hears("open");
        let stopped = Stopped::new(mount.daemon());
        program.says("read -");
        let reader = thread::spawn(move || {
            program.hears("content");
            program
        });
        thread::sleep(WHILE);
        assert!(!reader.is_finished(), "{options}, {name}: nobody was asked");
        drop(stopped);
        reader.join().expect("it is read then");
    }
}

/// Flags that are changed after the open, set-user-ID bits, holes, copies within the kernel,
/// mappings, files without a name, running programs, limits.
#[test]
fn no_program_can_tell() {
    let traps = script("traps.py");
    let plain = source();
    let expected = python_script(&traps, plain.path());
    for options in ["allow_other", "allow_other,nopassthrough"] {
        let source = source();
        let mount = Mount::with(source.path(), &["-o", options]);
        assert_eq!(python_script(&traps, mount.path()), expected, "{options}");
        mount.unmount();
        let tree = |place: &Path| {
            let list = r#"cd "$1"; find . -type f -printf '%p %s %m ' -exec md5sum {} ';'"#;
            let mut lines: Vec<_> = shell(Who::Root, list, &[place])
                .lines()
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(tree(source.path()), tree(plain.path()), "{options}");
    }
}

/// While a file goes through, the kernel refuses a descriptor that does not (EIO), and the other
/// way round.
#[test]
fn a_crowd_opens_the_same_files_in_all_ways() {
    let source = source();
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    assert_eq!(python_script(&script("crowd.py"), mount.path()), "");
}

/// A file with two names, one of which is guarded.
#[test]
fn another_name_of_a_guarded_file_is_passed_through_beside_it() {
    let source = source();
    fs::write(source.path().join("guarded"), "one\n").expect("write");
    fs::hard_link(source.path().join("guarded"), source.path().join("file")).expect("link");
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let program = "
import os, sys
os.chdir(sys.argv[1])
plain = os.open('file', os.O_RDWR)
log = os.open('guarded', os.O_RDWR | os.O_APPEND)
reader = os.open('guarded', os.O_RDONLY)
for number in range(20):
    os.write(log, b'%04d\\n' % number)
    end = 4 + 5 * number
    assert os.pread(plain, 5, end) == b'%04d\\n' % number, (number, 'read by the plain name')
    os.pwrite(plain, b'P', end)
    assert os.pread(reader, 5, end)[:1] == b'P', (number, 'read by the guarded name')
    again = os.open('file', os.O_WRONLY | os.O_APPEND)
    os.close(again)
";
    python(Who::Root, program, &[mount.path()]);
    let content = fs::read_to_string(source.path().join("file")).expect("read");
    let expected: String = (0..20).map(|number| format!("P{number:03}\n")).collect();
    assert_eq!(content, format!("one\n{expected}"));
}

/// Locks go on to be the file's own below.
#[test]
fn advisory_locks_hold_beside_it() {
    let source = source();
    fs::write(source.path().join("file"), "content").expect("write");
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let program = "
import fcntl, os, sys
through, bare = (os.open(name + '/file', os.O_RDWR) for name in sys.argv[1:])
for take in (fcntl.flock, fcntl.lockf):
    take(through, fcntl.LOCK_EX)
    pid = os.fork()
    if pid == 0:
        try:
            take(os.open(sys.argv[2] + '/file', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
            os._exit(0)
        except BlockingIOError:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, take
    os.pwrite(through, b'C', 0)
    assert os.pread(bare, 1, 0) == b'C'
    take(through, fcntl.LOCK_UN)
";
    python(Who::Root, program, &[mount.path(), source.path()]);
}

/// What is changed directly below is seen by who has the file open: its data at once, its size by
/// a second later; and by who opens it then, at once.
#[test]
fn changes_directly_below_are_seen() {
    let source = source();
    let file = source.path().join("file");
    fs::write(&file, "old").expect("write");
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let mut program = user_of(&mount.join("file"), libc::O_RDONLY);
    program.hears("open");
    program.says("read -");
    program.hears("old");
    for round in 0..20 {
        let content = format!("round-{round}-{}", "x".repeat(round));
        fs::write(&file, &content).expect("write");
        program.says("read -");
        program.hears(&content);
        assert_eq!(
            fs::read_to_string(mount.join("file")).expect("read"),
            content
        );
    }
    let length = fs::metadata(&file).expect("stat").len();
    let seen = || fs::metadata(mount.join("file")).is_ok_and(|stat| stat.len() == length);
    assert!(wait_until(DEADLINE, seen));
}

/// What the kernel refuses to pass through is read and written by the daemon, without a word.
#[test]
fn what_cannot_be_passed_through_works_all_the_same() {
    let use_it = "
import os, sys
os.chdir(sys.argv[1])
file = os.open('file', os.O_RDWR | os.O_CREAT, 0o644)
os.pwrite(file, b'content', 0)
assert os.pread(file, 10, 0) == b'content'
assert open('file').read() == 'content'
open('file', 'a').write(' and more')
assert open('file').read() == 'content and more'
os.unlink('file')
";
    // Upon an overlay, where this machine can make one.
    let layers = directory();
    let overlay = directory();
    let make = r#"
        cd "$1"; mkdir lower upper work
        mount -t overlay overlay -o lowerdir="$1/lower",upperdir="$1/upper",workdir="$1/work" "$2"
    "#;
    let made = finish(command(Who::Root, "sh").args([
        "-euc".as_ref(),
        make.as_ref(),
        "sh".as_ref(),
        layers.path().as_os_str(),
        overlay.path().as_os_str(),
    ]));
    if made.status.success() {
        let _overlay = Unmounted(overlay.path().to_owned());
        fs::write(overlay.path().join(".dotlockfs.toml"), RULES).expect("write");
        let mount = Mount::with(overlay.path(), &["-o", "allow_other"]);
        python(Who::Root, use_it, &[mount.path()]);
        mount.unmount();
    }
}

#[test]
fn without_root_the_daemon_is_asked() {
    let home = home_of_a_user();
    let path = |name: &str| home.path().join(name);
    fs::write(path("source/.dotlockfs.toml"), RULES).expect("write the rules");
    let mut start = command(ALICE, path("dotlockfs"));
    start
        .args(["-f".into(), path("source"), path("mountpoint")])
        .env("HOME", home.path())
        .stderr(Stdio::piped());
    let daemon = start.spawn().expect("it starts");
    assert!(wait_until(DEADLINE, || is_mounted(&path("mountpoint"))));
    let script = r#"
        cd "$1"
        echo one > file; echo two >> file; cat file
    "#;
    let seen = shell(ALICE, script, &[&path("mountpoint")]);
    shell(ALICE, r#"fusermount3 -u "$1""#, &[&path("mountpoint")]);
    let output = daemon.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(seen, "one\ntwo\n");
    assert!(
        !said.contains("WARN") && !said.contains("ERROR"),
        "it complains: {said}"
    );
}

/// A file that is open costs the daemon one descriptor, as ever, and gives it back.
#[test]
fn thousands_of_files_are_open_at_once() {
    let source = source();
    let mountpoint = directory();
    let mut start = command(Who::Root, "sh");
    start
        .args(["-euc", r#"ulimit -Sn 1024; exec "$@""#, "sh"])
        .arg(dotlockfs())
        .args([source.path(), mountpoint.path()]);
    let mount = Mount::started_by(&mut start, mountpoint.path());
    let descriptors = || {
        let list = fs::read_dir(format!("/proc/{}/fd", mount.daemon()));
        list.expect("/proc").count()
    };
    let before = descriptors();
    let program = "
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
assert hard >= 3000, 'the test needs a hard limit of 3000 open files'
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.chdir(sys.argv[1])
files = [os.open(f'file-{n}', os.O_RDWR | os.O_CREAT) for n in range(2000)]
for n, file in enumerate(files):
    os.write(file, b'%d' % n)
for n, file in enumerate(files):
    assert os.pread(file, 10, 0) == b'%d' % n
";
    python(Who::Root, program, &[mount.path()]);
    assert!(wait_until(DEADLINE, || descriptors() <= before + 10));
}

/// A source directory in which only the file `guarded` is guarded.
fn source() -> TempDir {
    require_root();
    let source = directory();
    fs::write(source.path().join(".dotlockfs.toml"), RULES).expect("write the rules");
    source
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/passthrough")
        .join(name)
}

fn python_script(script: &Path, place: &Path) -> String {
    require_program("python3", "python3");
    let mut command = command(Who::Root, "python3");
    finish(command.arg("-B").arg(script).arg(place)).success()
}

fn user_of(file: &Path, flags: i32) -> Talker {
    user_of_as(file, flags, 0)
}

fn user_of_as(file: &Path, flags: i32, uid: u32) -> Talker {
    let (flags, uid) = (format!("flags={flags}"), format!("uid={uid}"));
    Talker::new(USES_A_FILE, &[file, Path::new(&flags), Path::new(&uid)])
}

/// Whether files are passed through on this machine at all: Linux 6.9, and tests that do not lie
/// on a file system that is stacked upon another.
fn kernel_can() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let place = directory();
    let kind = shell(Who::Root, r#"stat -f -c %T "$1""#, &[place.path()]);
    let can = version >= (6, 9) && kind.trim() != "overlayfs";
    if !can {
        println!("skipped: Linux {} on {}", release.trim(), kind.trim());
    }
    can
}

/// A process that is stopped, and goes on when this is dropped; or after a minute, so that a program
/// that waits for it makes the test fail, and not hang.
struct Stopped {
    pid: u32,
    watched: std::sync::mpsc::Sender<()>,
    rescued: Arc<AtomicBool>,
}

impl Stopped {
    fn new(pid: u32) -> Stopped {
        send(pid, libc::SIGSTOP);
        let is_stopped = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
            stat.rsplit(") ").next().expect("a state").starts_with('T')
        };
        let (watched, end) = std::sync::mpsc::channel::<()>();
        let rescued = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&rescued);
        thread::spawn(move || {
            if end.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                tells.store(true, Ordering::Release);
                send(pid, libc::SIGCONT);
            }
        });
        let stopped = Stopped {
            pid,
            watched,
            rescued,
        };
        assert!(wait_until(DEADLINE, is_stopped));
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.watched.send(());
        send(self.pid, libc::SIGCONT);
        let waited = self.rescued.load(Ordering::Acquire);
        assert!(
            !waited || thread::panicking(),
            "a program waited for the daemon that was stopped"
        );
    }
}

/// A mount that is taken away when this is dropped.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        if !thread::panicking() {
            unmount_at(&self.0);
        }
    }
}
