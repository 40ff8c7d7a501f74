//! A daemon that was killed is started again by the same command.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::talker::Talker;
use common::{
    ALICE, DEADLINE, Finished, Mount, Who, command, daemons, directory, dotlockfs, end_of, finish,
    home_of_a_user, is_mounted, python, require_root, send, shell, unmount_at, wait_until,
};

#[test]
fn programs_work_again_after_the_daemon_was_killed() {
    let (source, mountpoint) = (directory(), directory());
    fs::write(source.path().join("held"), "").expect("write");
    let mut mount = Mount::at(source.path(), mountpoint.path(), &[]);
    let held = mount.join("held");
    let mut holder = Talker::new(LOCKS_AND_WRITES, &[&held]);
    holder.hears("locked");
    let mut waiter = Talker::new(LOCKS_AND_WRITES, &[&held]);
    waiter.hears("opened");
    kill(&mount);
    // The one that waits is told at once, the other when it asks.
    waiter.hears("not connected");
    mount = started_again(mount, source.path());
    holder.says("write");
    holder.hears("not connected");

    append_and_check(&mount, source.path(), "after");
    assert_eq!(fs::read_to_string(&held).expect("read"), "");
    mount.unmount();
    assert!(nothing_left(mountpoint.path()));
}

#[test]
fn in_place_no_program_ever_reaches_the_bare_directory() {
    let source = directory();
    fs::write(source.path().join("file"), "content").expect("write");
    // Hidden by the mount, and so a sign of the bare directory.
    fs::write(source.path().join(".file.done.1"), "").expect("write");
    let bare = fs::metadata(source.path()).expect("stat").dev();
    let mut mount = Mount::at(source.path(), source.path(), &[]);
    let looker = Looker::new(source.path(), bare);
    for round in 1..=3 {
        looker.sees("ok");
        kill(&mount);
        looker.sees("dead");
        mount = started_again(mount, source.path());
        looker.sees("ok");
        append_and_check(&mount, Path::new("/nowhere"), &format!("log-{round}"));
        let mounts = mounts_at(source.path());
        assert_eq!(mounts, 2, "the new one, and one that is dead");
    }
    looker.end();
    mount.unmount();
    assert!(nothing_left(source.path()));
    assert_eq!(fs::metadata(source.path()).expect("stat").dev(), bare);
    for round in 1..=3 {
        let log = fs::read_to_string(source.path().join(format!("log-{round}")));
        assert_eq!(log.expect("read"), "one\ntwo\n");
    }
}

#[test]
fn in_place_over_the_root_of_a_shared_mount_with_another_mount_in_it() {
    let world = directory();
    let data = world.path().join("data");
    fs::create_dir(&data).expect("mkdir");
    let script = r#"
        mount -t tmpfs outer "$1"
        mount --make-shared "$1"
        mkdir "$1"/sub
        mount -t tmpfs inner "$1"/sub
        echo content > "$1"/sub/file
    "#;
    shell(Who::Root, script, &[&data]);
    let tmpfs = Detached(data.clone());
    let mut mount = Mount::at(&data, &data, &[]);
    for _ in 0..2 {
        kill(&mount);
        mount = started_again(mount, &data);
        let file = mount.join("sub/file");
        assert_eq!(fs::read_to_string(file).expect("read"), "content\n");
    }
    append_and_check(&mount, Path::new("/nowhere"), "log");
    unmount_at(&data);
    // At its end it would unmount the tmpfs too.
    std::mem::forget(mount);
    let left = wait_until(DEADLINE, || {
        mounts_at(&data) == 1 && daemons(&data).is_empty()
    });
    assert!(left, "the tmpfs is left: {} mounts", mounts_at(&data));
    let log = fs::read_to_string(data.join("log")).expect("read");
    assert_eq!(log, "one\ntwo\n");
    let file = fs::read_to_string(data.join("sub/file")).expect("read");
    assert_eq!(file, "content\n", "what is mounted in it is where it was");
    drop(tmpfs);
    assert_eq!(mounts_at(&data), 0);
}

#[test]
fn rule_files_in_the_directory_are_read_again() {
    let source = directory();
    let rules =
        |what: &str| format!("version = 1\n[[guard]]\nfiles = [\"{what}\"]\nupdate = \"deny\"\n");
    fs::write(source.path().join(".dotlockfs.toml"), rules("a")).expect("write");
    fs::write(source.path().join("other.toml"), rules("b")).expect("write");
    let refuses = |mount: &Mount, name: &str| {
        let written = fs::write(mount.join(name), "x");
        written.is_err_and(|error| error.raw_os_error() == Some(libc::EROFS))
    };
    for name in ["a", "b"] {
        fs::write(source.path().join(name), "").expect("write");
    }
    let other = source.path().join("other.toml");
    let other: [&str; 2] = ["--config", other.to_str().expect("UTF-8")];
    for (arguments, denied, allowed) in [(&[][..], "a", "b"), (&other[..], "b", "a")] {
        let mut mount = Mount::at(source.path(), source.path(), arguments);
        kill(&mount);
        std::mem::forget(mount);
        mount = Mount::at(source.path(), source.path(), arguments);
        assert!(refuses(&mount, denied), "{arguments:?}");
        assert!(!refuses(&mount, allowed), "{arguments:?}");
        mount.unmount();
        assert!(nothing_left(source.path()));
    }
}

#[test]
fn a_signal_takes_both_mounts_away() {
    for in_place in [false, true] {
        let (source, mountpoint) = (directory(), directory());
        let mountpoint = if in_place {
            source.path()
        } else {
            mountpoint.path()
        };
        let mut mount = Mount::at(source.path(), mountpoint, &[]);
        kill(&mount);
        mount = started_again(mount, source.path());
        append_and_check(&mount, source.path(), "log");
        send(mount.daemon(), libc::SIGTERM);
        assert!(nothing_left(mountpoint));
    }
}

#[test]
fn without_root_a_dead_mount_in_another_place_is_replaced() {
    let home = home_of_a_user();
    let path = |name: &str| home.path().join(name);
    let start = |source: &str, mountpoint: &str| {
        let mut command = command(ALICE, path("dotlockfs"));
        command.args([path(source), path(mountpoint)]);
        command
    };
    let mount = Mount::started_by(&mut start("source", "mountpoint"), &path("mountpoint"));
    kill(&mount);
    std::mem::forget(mount);
    let mount = Mount::started_by(&mut start("source", "mountpoint"), &path("mountpoint"));
    assert_eq!(mounts_at(mount.path()), 1);
    shell(
        ALICE,
        r#"cd "$1"; echo one > log; echo two >> log"#,
        &[mount.path()],
    );
    let log = fs::read_to_string(path("source/log")).expect("read");
    assert_eq!(log, "one\ntwo\n");
    shell(ALICE, r#"fusermount3 -u "$1""#, &[mount.path()]);
    assert!(nothing_left(mount.path()));

    // In place the bare directory would be seen for a moment.
    let mount = Mount::started_by(&mut start("source", "source"), &path("source"));
    kill(&mount);
    let said = refused(finish(&mut start("source", "source")));
    assert!(
        said.contains("only root") && said.contains("fusermount3 -u -z"),
        "{said}"
    );
    assert!(is_mounted(mount.path()));
}

#[test]
fn what_is_dead_and_not_a_mountpoint_of_ours_is_left_alone() {
    let (source, elsewhere) = (directory(), directory());
    // A FUSE file system of another program, which has ended.
    let program = "
import ctypes, os, sys
fuse = os.open('/dev/fuse', os.O_RDWR)
data = b'fd=%d,rootmode=40000,user_id=0,group_id=0' % fuse
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b'other', os.fsencode(sys.argv[1]), b'fuse.other', 0, data):
    raise OSError(ctypes.get_errno(), 'mount')
";
    require_root();
    python(Who::Root, program, &[elsewhere.path()]);
    let dead = Detached(elsewhere.path().to_owned());
    let mut start = command(Who::Root, dotlockfs());
    start.args([source.path(), elsewhere.path()]);
    let said = refused(finish(&mut start));
    assert!(
        said.contains("umount -l") && said.contains("not one of dotlockfs"),
        "{said}"
    );
    assert_eq!(mounts_at(elsewhere.path()), 1);
    drop(dead);

    // A source whose own mount has died is not guarded twice.
    let mount = Mount::at(source.path(), source.path(), &[]);
    kill(&mount);
    let mut start = command(Who::Root, dotlockfs());
    start.args([source.path(), elsewhere.path()]);
    let said = refused(finish(&mut start));
    assert!(said.contains("start that again first"), "{said}");
    assert_eq!(mounts_at(elsewhere.path()), 0);
}

/// Opens a file, locks it, and writes to it for each line that it reads.
const LOCKS_AND_WRITES: &str = "
import errno, fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
def attempt(action, done):
    try:
        action()
        print(done, flush=True)
    except OSError as error:
        # The others, of a request that was under way.
        gone = error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        print('not connected' if gone else error, flush=True)
print('opened', flush=True)
attempt(lambda: fcntl.flock(file, fcntl.LOCK_EX), 'locked')
for line in sys.stdin:
    attempt(lambda: os.write(file, line.encode()), 'written')
";

/// A program that opens a file and lists its directory all the time, and writes what it met: the
/// bare directory is never to be among it.
struct Looker {
    child: Child,
    notes: tempfile::TempDir,
}

impl Looker {
    fn new(shared: &Path, bare: u64) -> Looker {
        let notes = directory();
        let program = "
import errno, os, sys
folder, notes, bare = sys.argv[1], sys.argv[2], int(sys.argv[3])
# The kernel gives EIO where it was copying a request or an answer just then.
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
counts = {'ok': 0, 'dead': 0, 'bare': 0}
stop = os.path.join(notes, 'stop')
while not os.path.exists(stop):
    try:
        file = os.open(os.path.join(folder, 'file'), os.O_RDONLY)
        try:
            met = 'bare' if os.fstat(file).st_dev == bare else 'ok'
        finally:
            os.close(file)
        if '.file.done.1' in os.listdir(folder):
            met = 'bare'
    except OSError as error:
        if error.errno not in GONE:
            raise
        met = 'dead'
    counts[met] += 1
    with open(os.path.join(notes, 'new'), 'w') as new:
        for key, count in counts.items():
            print(key, count, file=new)
    os.rename(os.path.join(notes, 'new'), os.path.join(notes, 'counts'))
sys.exit(1 if counts['bare'] else 0)
";
        let child = command(Who::Root, "python3")
            .args(["-B", "-c", program])
            .args([shared, notes.path()])
            .arg(bare.to_string())
            .spawn()
            .expect("python3 starts");
        Looker { child, notes }
    }

    fn count(&self, what: &str) -> u64 {
        let counts = fs::read_to_string(self.notes.path().join("counts")).unwrap_or_default();
        let mut lines = counts.lines().filter_map(|line| line.split_once(' '));
        let count = lines.find(|(key, _)| *key == what);
        count.map_or(0, |(_, count)| count.parse().expect("a number"))
    }

    /// Waits until it has met this twice more: the second look began after this call.
    #[track_caller]
    fn sees(&self, what: &str) {
        let before = self.count(what);
        let seen = wait_until(DEADLINE, || self.count(what) >= before + 2);
        assert!(seen, "it never met {what:?} again");
        assert_eq!(self.count("bare"), 0, "it has met the bare directory");
    }

    #[track_caller]
    fn end(mut self) {
        File::create(self.notes.path().join("stop")).expect("create");
        let status = end_of(&mut self.child, "the looking program");
        assert!(status.success(), "it has met the bare directory: {status}");
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mount that is detached at the end, if it is there.
struct Detached(PathBuf);

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = command(Who::Root, "umount")
            .arg("--lazy")
            .arg(&self.0)
            .stderr(Stdio::null())
            .status();
    }
}

/// Kills the daemon of a mount, which stays.
#[track_caller]
fn kill(mount: &Mount) {
    send(mount.daemon(), libc::SIGKILL);
    let killed = wait_until(DEADLINE, || daemons(mount.path()).is_empty());
    assert!(killed, "it is killed");
    // Those of other users do not answer root in any case.
    let dead = wait_until(DEADLINE, || {
        !is_root_mount(mount.path())
            || fs::metadata(mount.path())
                .is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
    assert!(dead, "it does not answer");
    assert!(is_mounted(mount.path()), "the mount stays");
}

fn is_root_mount(path: &Path) -> bool {
    let table = fs::read("/proc/self/mountinfo").expect("mountinfo");
    let table = String::from_utf8_lossy(&table);
    let path = path.to_str().expect("UTF-8");
    let mut lines = table.lines().rev();
    let line = lines.find(|line| line.split(' ').nth(4) == Some(path));
    line.is_some_and(|line| line.contains("user_id=0"))
}

/// The same command again, in place of a mount whose daemon was killed.
#[track_caller]
fn started_again(dead: Mount, source: &Path) -> Mount {
    let mountpoint = dead.path().to_owned();
    // Its end would unmount, which is what must not be needed.
    std::mem::forget(dead);
    Mount::at(source, &mountpoint, &[])
}

/// How many mounts stand at a path, upon one another.
fn mounts_at(path: &Path) -> usize {
    let path = path.to_str().expect("UTF-8, and nothing to escape");
    let table = fs::read("/proc/self/mountinfo").expect("mountinfo");
    let table = String::from_utf8_lossy(&table);
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| *point == path).count()
}

/// Waits until no mount and no daemon are left.
fn nothing_left(mountpoint: &Path) -> bool {
    wait_until(DEADLINE, || {
        mounts_at(mountpoint) == 0 && daemons(mountpoint).is_empty()
    })
}

/// Ordinary work on a mount; and what has become of it in the bare directory, if that can be seen.
#[track_caller]
fn append_and_check(mount: &Mount, bare: &Path, name: &str) {
    let script = r#"echo one >> "$1"; echo two >> "$1"; flock "$1" cat "$1""#;
    let seen = shell(Who::Root, script, &[&mount.join(name)]);
    assert_eq!(seen, "one\ntwo\n");
    if bare.is_dir() {
        let below = fs::read_to_string(bare.join(name)).ok();
        let in_place = bare == mount.path();
        assert!(
            in_place || below.as_deref() == Some("one\ntwo\n"),
            "{below:?}"
        );
    }
}

/// The one line that a command says that must fail.
#[track_caller]
fn refused(finished: Finished) -> String {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    finished.stderr
}
