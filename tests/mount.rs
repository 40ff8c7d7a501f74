//! The command itself: where it mounts, what it refuses, how it starts and ends.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use common::world::Stopped;
use common::{
    ALICE, DEADLINE, Mount, Who, command, daemons, directory, dotlockfs, end_of, finish,
    home_of_a_user, is_mounted, mount_line, python, require_program, require_root, send, shell,
    unmount_at, wait_until,
};

#[test]
fn a_directory_mounted_over_itself() {
    let source = directory();
    fs::write(source.path().join("before"), "was there").expect("write");
    let mount = Mount::at(source.path(), source.path(), &[]);
    assert_eq!(
        mount_line(source.path()).expect("mounted").kind,
        "fuse.dotlockfs"
    );
    assert_eq!(
        fs::read_to_string(mount.join("before")).expect("read"),
        "was there"
    );
    shell(
        Who::Root,
        r#"echo one > "$1"/log; echo two >> "$1"/log; mkdir "$1"/sub"#,
        &[mount.path()],
    );
    mount.unmount();
    assert!(!is_mounted(source.path()));
    assert_eq!(
        fs::read_to_string(source.path().join("log")).expect("read"),
        "one\ntwo\n"
    );
    assert!(source.path().join("sub").is_dir());
}

#[test]
fn a_mount_below_the_source_is_seen() {
    let source = directory();
    let below = source.path().join("below");
    fs::create_dir(&below).expect("mkdir");
    shell(Who::Root, r#"mount -t tmpfs none "$1""#, &[&below]);
    let _below = MountedElsewhere(below.clone());
    fs::write(below.join("file"), "on the tmpfs").expect("write");

    let mount = Mount::new(source.path());
    assert_eq!(
        fs::read_to_string(mount.join("below/file")).expect("read"),
        "on the tmpfs"
    );
    fs::write(mount.join("below/new"), "through the mount").expect("write");
    assert_eq!(
        fs::read_to_string(below.join("new")).expect("read"),
        "through the mount"
    );
    shell(Who::Root, r#"echo line >> "$1"/below/new"#, &[mount.path()]);
    assert_eq!(
        fs::read_to_string(below.join("new")).expect("read"),
        "through the mountline\n"
    );

    // Two file systems count their inodes separately, yet two files are never taken for one.
    let mut inodes = Vec::new();
    for number in 0..50 {
        for place in ["", "below/"] {
            let path = mount.join(format!("{place}{number}"));
            fs::write(&path, format!("{place}{number}")).expect("write");
            let status = fs::metadata(&path).expect("stat");
            inodes.push((status.dev(), status.ino()));
        }
    }
    for number in 0..50 {
        for place in ["", "below/"] {
            let path = mount.join(format!("{place}{number}"));
            assert_eq!(
                fs::read_to_string(&path).expect("read"),
                format!("{place}{number}")
            );
        }
    }
    inodes.sort_unstable();
    inodes.dedup();
    assert_eq!(inodes.len(), 100, "different files have different numbers");
    let across = fs::hard_link(mount.join("0"), mount.join("below/linked"));
    assert_eq!(
        across.expect_err("across file systems").raw_os_error(),
        Some(libc::EXDEV)
    );
    let across = fs::rename(mount.join("0"), mount.join("below/moved"));
    assert_eq!(
        across.expect_err("across file systems").raw_os_error(),
        Some(libc::EXDEV)
    );
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line() {
    let world = Refusals::new();
    for (source, mountpoint, names) in [
        ("source", "missing", "missing"),
        ("source", "file", "file"),
        ("missing", "mountpoint", "missing"),
        ("file", "mountpoint", "file"),
        ("source", "source/inside", "source/inside"),
    ] {
        for foreground in [false, true] {
            let mut command = world.command(source, mountpoint);
            command.args(foreground.then_some("-f"));
            assert_refused(&mut command, &world.name(names));
            world.assert_nothing_mounted();
        }
    }
    let mut command = world.command("source", "mountpoint");
    command.arg("--config").arg(world.name("no-rules"));
    assert_refused(&mut command, &world.name("no-rules"));
    world.assert_nothing_mounted();
}

#[test]
fn a_rule_file_or_an_option_with_a_fault_is_explained() {
    let world = Refusals::new();
    for (source, rules) in [
        ("bad-key", "version = 1\nnonsense = true\n"),
        ("bad-glob", "version = 1\n[[guard]]\nfiles = [\"a[\"]\n"),
        (
            "bad-duration",
            "version = 1\n[[guard]]\nfiles = [\"a\"]\nlock_timeout = \"soon\"\n",
        ),
        ("no-toml", "version = = 1\n"),
    ] {
        let file = format!("{source}/.dotlockfs.toml");
        fs::create_dir(world.name(source)).expect("mkdir");
        fs::write(world.name(&file), rules).expect("write");
        assert_explained(&mut world.command(source, "mountpoint"), &world.name(&file));
        world.assert_nothing_mounted();
    }
    for options in ["nonsense", "ro,nonsense=3", "alow_nonsense"] {
        let mut command = world.command("source", "mountpoint");
        assert_explained(command.args(["-o", options]), "nonsense");
        world.assert_nothing_mounted();
    }
}

/// What a mount is tried with that must not succeed.
struct Refusals {
    directory: TempDir,
}

impl Refusals {
    fn new() -> Refusals {
        require_root();
        let world = Refusals {
            directory: directory(),
        };
        for name in ["source", "source/inside", "mountpoint"] {
            fs::create_dir(world.name(name)).expect("mkdir");
        }
        fs::write(world.name("file"), "").expect("write");
        world
    }

    fn name(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .expect("UTF-8")
            .to_owned()
    }

    fn command(&self, source: &str, mountpoint: &str) -> Command {
        let mut command = command(Who::Root, dotlockfs());
        command.args([self.name(source), self.name(mountpoint)]);
        command
    }

    fn assert_nothing_mounted(&self) {
        for name in ["mountpoint", "missing", "file", "source/inside"] {
            let path = PathBuf::from(self.name(name));
            assert!(!is_mounted(&path), "{} is mounted", path.display());
            assert_eq!(
                daemons(&path),
                [],
                "a process for {} is left",
                path.display()
            );
        }
    }
}

#[test]
fn a_missing_dev_fuse_is_named() {
    require_root();
    require_program("unshare", "util-linux");
    let source = directory();
    let mountpoint = directory();
    let mut command = command(Who::Root, "unshare");
    command
        .args([
            "--mount",
            "sh",
            "-euc",
            r#"mount -t tmpfs none /dev; exec "$@""#,
            "sh",
        ])
        .arg(dotlockfs())
        .args([source.path(), mountpoint.path()]);
    assert_refused(&mut command, "/dev/fuse");
}

#[test]
fn the_mount_answers_when_the_command_returns() {
    let source = directory();
    fs::write(source.path().join("file"), "content").expect("write");
    for _ in 0..10 {
        let mount = Mount::new(source.path());
        assert_eq!(
            fs::read_to_string(mount.join("file")).expect("read"),
            "content"
        );
        mount.unmount();
    }
}

#[test]
fn the_daemon_leaves_the_terminal_and_the_directory() {
    let source = directory();
    let elsewhere = directory();
    let mountpoint = directory();
    let mut command = command(Who::Root, dotlockfs());
    command
        .args([source.path(), mountpoint.path()])
        .current_dir(elsewhere.path());
    let mount = Mount::started_by(&mut command, mountpoint.path());
    let process = PathBuf::from(format!("/proc/{}", mount.daemon()));
    assert_eq!(
        fs::read_link(process.join("cwd")).expect("cwd"),
        Path::new("/")
    );
    for descriptor in ["0", "1", "2"] {
        let target =
            fs::read_link(process.join("fd").join(descriptor)).expect("an open descriptor");
        assert!(
            !target.starts_with("/dev/pts"),
            "{descriptor} is {}",
            target.display()
        );
    }
    let session = |process: &Path| {
        let stat = fs::read_to_string(process.join("stat")).expect("stat");
        stat.rsplit(')')
            .next()
            .and_then(|rest| rest.split(' ').nth(4))
            .map(str::to_owned)
    };
    assert_ne!(
        session(&process),
        session(Path::new("/proc/self")),
        "it has a session of its own"
    );
}

#[test]
fn in_the_foreground_a_signal_unmounts() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let source = directory();
        let mountpoint = directory();
        fs::write(source.path().join("file"), "content").expect("write");
        let mut daemon = in_the_foreground(source.path(), mountpoint.path());
        assert_eq!(
            fs::read_to_string(mountpoint.path().join("file")).expect("read"),
            "content"
        );
        shell(Who::Root, r#"echo line >> "$1"/file"#, &[mountpoint.path()]);
        assert!(
            daemon.0.try_wait().expect("wait").is_none(),
            "it stays in the foreground"
        );

        send(daemon.0.id(), signal);
        let status = end_of(&mut daemon.0, "the daemon after a signal");
        assert_eq!(status.code(), Some(0), "after signal {signal}: {status}");
        assert!(
            !is_mounted(mountpoint.path()),
            "signal {signal} leaves it mounted"
        );
        assert_eq!(
            fs::read_to_string(source.path().join("file")).expect("read"),
            "contentline\n"
        );
    }
}

#[test]
fn in_the_foreground_umount_ends_it() {
    let source = directory();
    let mountpoint = directory();
    let mut daemon = in_the_foreground(source.path(), mountpoint.path());
    fs::metadata(mountpoint.path()).expect("it answers");
    unmount_at(mountpoint.path());
    let status = end_of(&mut daemon.0, "the daemon after umount");
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn in_the_background_a_signal_unmounts() {
    let source = directory();
    let mount = Mount::new(source.path());
    fs::write(mount.join("file"), "content").expect("write");
    send(mount.daemon(), libc::SIGTERM);
    let gone = wait_until(DEADLINE, || {
        !is_mounted(mount.path()) && daemons(mount.path()).is_empty()
    });
    assert!(gone, "SIGTERM ends the daemon and the mount");
}

#[test]
fn a_signal_while_programs_write_loses_nothing_that_was_acknowledged() {
    let source = directory();
    let mount = Mount::new(source.path());
    fs::write(mount.join("log"), "").expect("write");
    let acknowledged = directory();
    let program = "
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
done = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in range(1_000_000):
    record = b'record %d of %s\\n' % (number, sys.argv[3].encode())
    try:
        os.write(log, record)
    except OSError:
        break
    os.write(done, record)
";
    let mut writers: Vec<KilledAtTheEnd> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let child = command(Who::Root, "python3")
                .args(["-B", "-c", program])
                .args([
                    mount.join("log"),
                    acknowledged.path().join(name),
                    name.into(),
                ])
                .spawn();
            KilledAtTheEnd(child.expect("python3 starts"))
        })
        .collect();
    let lines = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let busy = wait_until(DEADLINE, || {
        ["a", "b"]
            .iter()
            .all(|name| lines(acknowledged.path().join(name)).lines().count() >= 100)
    });
    assert!(busy, "both write");

    send(mount.daemon(), libc::SIGTERM);
    for writer in &mut writers {
        end_of(&mut writer.0, "a writer whose mount has gone");
    }
    assert!(
        wait_until(DEADLINE, || daemons(mount.path()).is_empty()),
        "the daemon ends"
    );
    assert!(!is_mounted(mount.path()), "nothing stays mounted");
    let log = lines(source.path().join("log"));
    for name in ["a", "b"] {
        let own: Vec<&str> = log
            .lines()
            .filter(|line| line.ends_with(&format!("of {name}")))
            .collect();
        let acknowledged = lines(acknowledged.path().join(name));
        let acknowledged: Vec<&str> = acknowledged.lines().collect();
        assert!(
            own.len() >= acknowledged.len(),
            "{} of {}",
            own.len(),
            acknowledged.len()
        );
        assert_eq!(
            own[..acknowledged.len()],
            acknowledged[..],
            "all, once, in order"
        );
    }
}

#[test]
fn a_busy_mount_is_not_unmounted() {
    let source = directory();
    let mount = Mount::new(source.path());
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(mount.join("log"))
        .expect("open");
    file.write_all(b"one\n").expect("write");
    let refused = finish(command(Who::Root, "umount").arg(mount.path()));
    assert!(!refused.status.success(), "a file is open in it");
    file.write_all(b"two\n")
        .expect("write after a refused umount");

    shell(Who::Root, r#"umount --lazy "$1""#, &[mount.path()]);
    assert!(!is_mounted(mount.path()));
    file.write_all(b"three\n")
        .expect("write after a lazy umount");
    drop(file);
    let ended = wait_until(DEADLINE, || daemons(mount.path()).is_empty());
    assert!(ended, "the daemon ends with the last file");
    assert_eq!(
        fs::read_to_string(source.path().join("log")).expect("read"),
        "one\ntwo\nthree\n"
    );
}

#[test]
fn a_killed_daemon_does_not_uncover_the_bare_directory() {
    let source = directory();
    fs::write(source.path().join("file"), "content").expect("write");
    let mount = Mount::at(source.path(), source.path(), &[]);
    send(mount.daemon(), libc::SIGKILL);
    assert!(
        wait_until(DEADLINE, || daemons(mount.path()).is_empty()),
        "killed"
    );
    let error =
        fs::read(mount.join("file")).expect_err("nobody answers, and nothing goes past the guard");
    // The others, if the request was on its way when the daemon's end had not come to its end.
    assert!(
        matches!(
            error.raw_os_error(),
            Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO)
        ),
        "{error}"
    );
}

/// One would hide the names of the lock protocol from the other.
#[test]
fn what_is_guarded_already_is_not_guarded_twice() {
    let source = directory();
    fs::create_dir(source.path().join("below")).expect("mkdir");
    let elsewhere = directory();
    let over_itself = Mount::at(source.path(), source.path(), &[]);
    let view = Mount::new(elsewhere.path());
    for (guarded, mount) in [
        (source.path().to_owned(), &over_itself),
        (source.path().join("below"), &over_itself),
        (view.path().to_owned(), &view),
    ] {
        let mountpoint = directory();
        for mountpoint in [mountpoint.path(), &guarded] {
            let mut command = command(Who::Root, dotlockfs());
            command.args([guarded.as_path(), mountpoint]);
            let advice = format!("first: umount {}", mount.path().display());
            assert_refused(&mut command, &advice);
        }
        assert!(!is_mounted(mountpoint.path()));
        assert_eq!(daemons(mount.path()).len(), 1);
    }
}

#[test]
fn two_mounts_of_one_source() {
    let source = directory();
    let one = Mount::new(source.path());
    let other = Mount::new(source.path());
    fs::write(one.join("file"), "one\n").expect("write");
    assert_eq!(
        fs::read_to_string(other.join("file")).expect("read"),
        "one\n"
    );
    for round in 0..10 {
        for mount in [&one, &other] {
            shell(Who::Root, r#"echo line >> "$1"/file"#, &[mount.path()]);
        }
        let expected = 4 + 5 * 2 * (round + 1);
        for mount in [&one, &other] {
            assert_eq!(
                fs::metadata(mount.join("file")).expect("stat").len(),
                expected
            );
            assert_eq!(
                fs::read(mount.join("file")).expect("read").len() as u64,
                expected
            );
        }
    }
    one.unmount();
    shell(Who::Root, r#"echo alone >> "$1"/file"#, &[other.path()]);
    assert!(
        fs::read_to_string(source.path().join("file"))
            .expect("read")
            .ends_with("alone\n")
    );
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    let source = directory();
    fs::write(source.path().join("file"), "content").expect("write");
    let mount = Mount::with(source.path(), &["-o", "ro"]);
    let line = mount_line(mount.path()).expect("mounted");
    assert!(
        line.options.split(',').any(|option| option == "ro"),
        "{line:?}"
    );
    assert_eq!(
        fs::read_to_string(mount.join("file")).expect("read"),
        "content"
    );
    let program = "
import errno, os, sys
os.chdir(sys.argv[1])
for action in (
    lambda: os.open('file', os.O_WRONLY),
    lambda: os.open('file', os.O_WRONLY | os.O_APPEND),
    lambda: os.open('new', os.O_CREAT | os.O_WRONLY),
    lambda: os.truncate('file', 0),
    lambda: os.mkdir('directory'),
    lambda: os.unlink('file'),
    lambda: os.rename('file', 'other'),
    lambda: os.link('file', 'other'),
    lambda: os.symlink('file', 'link'),
    lambda: os.mkfifo('fifo'),
    lambda: os.chmod('file', 0o600),
    lambda: os.chown('file', 1, 1),
    lambda: os.utime('file'),
    lambda: os.setxattr('file', 'user.a', b'b'),
):
    try:
        action()
        print('allowed')
    except OSError as error:
        print(errno.errorcode[error.errno])
";
    assert_eq!(
        python(Who::Root, program, &[mount.path()]),
        "EROFS\n".repeat(14)
    );
    assert_eq!(
        fs::read_dir(source.path()).expect("list").count(),
        1,
        "nothing was left behind"
    );
}

#[test]
fn the_mount_table_names_type_and_source() {
    require_program("findmnt", "util-linux");
    let source = directory();
    let mount = Mount::with(source.path(), &["-o", "nosuid,nodev,noexec"]);
    let line = mount_line(mount.path()).expect("mounted");
    assert_eq!(line.kind, "fuse.dotlockfs");
    assert_eq!(line.source, source.path());
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(
            line.options.split(',').any(|set| set == option),
            "{option}: {line:?}"
        );
    }
    let found = finish(
        command(Who::Root, "findmnt")
            .args(["-no", "FSTYPE,SOURCE"])
            .arg(mount.path()),
    )
    .success();
    let words: Vec<&str> = found.split_whitespace().collect();
    assert_eq!(
        words,
        ["fuse.dotlockfs", source.path().to_str().expect("UTF-8")]
    );
}

#[test]
fn an_ordinary_user_mounts_with_fusermount3() {
    let home = home_of_a_user();
    let path = |name: &str| home.path().join(name);
    let mut start = command(ALICE, path("dotlockfs"));
    start
        .args([path("source"), path("mountpoint")])
        .env("HOME", home.path());
    // Root cannot look into it, which is_mounted does not do.
    let mount = Mount::started_by(&mut start, &path("mountpoint"));
    let line = mount_line(mount.path()).expect("mounted");
    assert_eq!(
        (line.kind.as_str(), line.source),
        ("fuse.dotlockfs", path("source"))
    );

    let script = r#"
        cd "$1"
        echo one > log
        for n in 2 3 4; do echo $n >> log; done
        mkdir sub; mv log sub/log; ln -s sub/log link; ln sub/log hard
        chmod 600 sub/log
        cat link
        stat -c '%U %a %h' hard | sed 's/^[^ ]*/owner/'
        rm hard
    "#;
    assert_eq!(
        shell(ALICE, script, &[mount.path()]),
        "one\n2\n3\n4\nowner 600 2\n"
    );
    shell(ALICE, r#"fusermount3 -u "$1""#, &[mount.path()]);
    assert!(!is_mounted(mount.path()));
    let ended = wait_until(DEADLINE, || daemons(mount.path()).is_empty());
    assert!(ended, "the daemon goes on after fusermount3 -u");
    let log = path("source").join("sub/log");
    assert_eq!(fs::read_to_string(&log).expect("read"), "one\n2\n3\n4\n");
    assert_eq!(fs::metadata(&log).expect("stat").uid(), 1000);
}

/// A daemon that ends late must not take another's mount for its own, which is gone; not when a
/// signal asks it to unmount, either.
#[test]
fn what_was_mounted_since_stays_when_a_daemon_ends() {
    let home = home_of_a_user();
    let path = |name: &str| home.path().join(name);
    fs::create_dir(path("other")).expect("mkdir");
    std::os::unix::fs::chown(path("other"), Some(1000), Some(1000)).expect("chown");
    let place = path("mountpoint");
    let start = |source: &str| {
        let mut start = command(ALICE, path("dotlockfs"));
        start.args([path(source), place.clone()]);
        Mount::started_by(&mut start, &place)
    };
    for signal in [None, Some(libc::SIGTERM)] {
        let first = start("source");
        let daemon = first.daemon();
        let stopped = Stopped::new(daemon);
        let unmount = || {
            let mut unmount = command(ALICE, "fusermount3");
            finish(unmount.arg("-u").arg(&place)).status.success()
        };
        assert!(wait_until(DEADLINE, unmount), "the mount is busy");
        // It gets the number of the first one's file system, if no other test does.
        let second = start("other");
        if let Some(signal) = signal {
            send(daemon, signal);
        }
        drop(stopped);
        let ended = wait_until(DEADLINE, || !daemons(&place).contains(&daemon));
        assert!(ended, "the daemon goes on after fusermount3 -u");
        let line = mount_line(&place).expect("the second mount is there");
        assert_eq!(line.source, path("other"));
        shell(ALICE, r#"echo line > "$1/log""#, &[&place]);
        assert!(path("other/log").exists(), "it works");

        // By a signal it takes away its own.
        send(second.daemon(), libc::SIGTERM);
        let gone = wait_until(DEADLINE, || {
            !is_mounted(&place) && daemons(&place).is_empty()
        });
        assert!(gone, "SIGTERM ends the daemon and the mount");
    }
}

#[test]
fn a_thousand_guarded_files_open_at_once() {
    let source = directory();
    let mountpoint = directory();
    let mut start = command(Who::Root, "sh");
    start
        .args(["-euc", r#"ulimit -Sn 1024; exec "$@""#, "sh"])
        .arg(dotlockfs())
        .args([source.path(), mountpoint.path()]);
    let mount = Mount::started_by(&mut start, mountpoint.path());
    let program = "
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
assert hard >= 2000, 'the test needs a hard limit of 2000 open files'
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.chdir(sys.argv[1])
files = [os.open(f'log-{n}', os.O_WRONLY | os.O_CREAT | os.O_APPEND) for n in range(1000)]
for turn in range(2):
    for n, file in enumerate(files):
        os.write(file, b'%d of %d\\n' % (turn, n))
others = [os.open(f'log-{n}', os.O_RDONLY) for n in range(0, 1000, 2)]
for n, file in enumerate(files):
    os.close(file)
";
    python(Who::Root, program, &[mount.path()]);
    for number in 0..1000 {
        let content =
            fs::read_to_string(source.path().join(format!("log-{number}"))).expect("read");
        assert_eq!(content, format!("0 of {number}\n1 of {number}\n"));
    }
}

/// Nothing is held, so nothing is looked after: no thread of the daemon wakes up.
#[test]
fn an_idle_daemon_sleeps() {
    const SECONDS: u64 = 3;
    let source = directory();
    let rules = "version = 1\n\n[[guard]]\nfiles = [\"*.log\", \"*.json\"]\nreplace = \"hold\"\n";
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
    let mount = Mount::new(source.path());
    // Every kind of thread has had something to do.
    let script = r#"
        cd "$1"
        for n in 1 2 3; do echo $n >> a.log; done
        echo '{}' > a.json; cat a.json > new; mv new a.json
        flock a.log true; flock plain true; echo plain >> plain
        find . -type f -exec stat '{}' '+' > /dev/null
    "#;
    shell(Who::Root, script, &[mount.path()]);
    let daemon = mount.daemon();
    // Locks are let go, old names are removed, and threads end, within half a minute.
    let mut woken = Vec::new();
    let sleeps = wait_until(2 * DEADLINE, || {
        let before = switches(daemon);
        thread::sleep(Duration::from_secs(SECONDS));
        let after = switches(daemon);
        woken = after
            .iter()
            .filter(|thread| !before.contains(thread))
            .cloned()
            .collect();
        woken.is_empty()
    });
    assert!(sleeps, "woken within {SECONDS} s: {woken:?}");
}

#[test]
fn memory_of_a_hundred_thousand_files_comes_back() {
    const FILES: usize = 100_000;
    const MARGIN: u64 = 8 << 20;
    // 400 bytes, and what is empty in the tables.
    const MOST_EACH: u64 = 512;
    let source = directory();
    let program = "
import os, sys
os.chdir(sys.argv[1])
for number in range(100):
    os.mkdir(str(number))
    for file in range(1000):
        os.mknod(f'{number}/{file}')
";
    python(Who::Root, program, &[source.path()]);
    let mount = Mount::new(source.path());
    // What the first requests need once, and keep, is not what this is about.
    shell(
        Who::Root,
        r#"find "$1"/0 -type f -size 0 | wc -l"#,
        &[mount.path()],
    );
    forget();
    let daemon = mount.daemon();
    let (before, open_before) = (resident(daemon), open_descriptors(daemon));
    let found = shell(
        Who::Root,
        r#"find "$1" -type f -size 0 -printf .| wc -c"#,
        &[mount.path()],
    );
    assert_eq!(found.trim(), FILES.to_string());
    let each = resident(daemon).saturating_sub(before) / FILES as u64;
    assert!(each <= MOST_EACH, "{each} bytes for each file");
    let (mut after, mut open_after) = (0, 0);
    let back = wait_until(DEADLINE, || {
        forget();
        (after, open_after) = (resident(daemon), open_descriptors(daemon));
        after <= before + MARGIN && open_after <= open_before + 200
    });
    assert!(
        back,
        "{} KiB and {open_before} descriptors before the walk, {} KiB and {open_after} after it",
        before >> 10,
        after >> 10
    );
    assert_eq!(
        fs::metadata(mount.join("99/999"))
            .expect("forgotten files are found again")
            .len(),
        0
    );
}

#[test]
fn a_file_of_five_gigabytes() {
    const SIZE: u64 = 5 << 30;
    let source = directory();
    let mount = Mount::new(source.path());
    let mut file = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(mount.join("large"))
        .expect("create");
    file.set_len(SIZE).expect("set the size");
    assert_eq!(file.metadata().expect("stat").len(), SIZE);
    file.write_all_at(b"the end", SIZE - 7)
        .expect("write at the end");
    assert_eq!(file.seek(SeekFrom::End(-7)).expect("seek"), SIZE - 7);
    let mut end = String::new();
    file.read_to_string(&mut end).expect("read at the end");
    assert_eq!(end, "the end");
    let mut append = File::options()
        .append(true)
        .open(mount.join("large"))
        .expect("open");
    append.write_all(b", and more").expect("append");
    assert_eq!(
        fs::metadata(mount.join("large")).expect("stat").len(),
        SIZE + 10
    );

    let below = File::open(source.path().join("large")).expect("open");
    let mut end = [0; 17];
    below.read_exact_at(&mut end, SIZE - 7).expect("read");
    assert_eq!(&end, b"the end, and more");
    assert!(
        below.metadata().expect("stat").blocks() * 512 < 1 << 20,
        "it is sparse"
    );
}

#[test]
fn odd_names_of_source_and_mountpoint() {
    let names: [&[u8]; 7] = [
        b"with space",
        b"new\nline",
        b"back\\slash",
        b"com,ma",
        b"not utf-8 \xff",
        b"quote'\"",
        b"equals=colon:",
    ];
    for name in names {
        let world = directory();
        let below = |place: &str| {
            let mut full = OsStr::from_bytes(name).to_owned();
            full.push(place);
            world.path().join(full)
        };
        let (source, mountpoint) = (below("-source"), below("-mountpoint"));
        fs::create_dir(&source).expect("mkdir");
        fs::create_dir(&mountpoint).expect("mkdir");
        fs::write(source.join("file"), "content").expect("write");
        let mount = Mount::at(&source, &mountpoint, &[]);
        assert_eq!(
            fs::read_to_string(mount.join("file")).expect("read"),
            "content"
        );
        assert_eq!(mount_line(&mountpoint).expect("mounted").source, source);
        mount.unmount();
    }
}

#[test]
fn paths_may_be_relative() {
    let world = directory();
    for name in ["source", "mountpoint"] {
        fs::create_dir(world.path().join(name)).expect("mkdir");
    }
    fs::write(world.path().join("source/file"), "content").expect("write");
    let mut daemon = command(Who::Root, dotlockfs());
    daemon
        .args(["source", "mountpoint"])
        .current_dir(world.path());
    finish(&mut daemon).success();
    let mountpoint = world.path().join("mountpoint");
    let content = fs::read_to_string(mountpoint.join("file"));
    let source = mount_line(&mountpoint).map(|line| line.source);
    unmount_at(&mountpoint);
    assert_eq!(content.expect("read"), "content");
    assert_eq!(
        source,
        Some(world.path().join("source")),
        "the table names the whole path"
    );
}

/// A mount that the test made itself.
struct MountedElsewhere(PathBuf);

impl Drop for MountedElsewhere {
    fn drop(&mut self) {
        let _ = command(Who::Root, "umount")
            .arg("--lazy")
            .arg(&self.0)
            .status();
    }
}

/// A child that does not outlive the test.
struct KilledAtTheEnd(Child);

impl Drop for KilledAtTheEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the daemon with `-f` and waits until its mount is there. Unmounts at the end, whatever
/// the test found.
fn in_the_foreground(source: &Path, mountpoint: &Path) -> ForegroundDaemon {
    require_root();
    let child = command(Who::Root, dotlockfs())
        .args([source, mountpoint])
        .arg("-f")
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let mut daemon = ForegroundDaemon(child, mountpoint.to_owned());
    let mounted = wait_until(DEADLINE, || {
        is_mounted(mountpoint) || daemon.0.try_wait().expect("wait").is_some()
    });
    assert!(mounted && is_mounted(mountpoint), "nothing is mounted");
    daemon
}

/// A daemon in the foreground, ended with the test.
struct ForegroundDaemon(Child, PathBuf);

impl Drop for ForegroundDaemon {
    fn drop(&mut self) {
        if is_mounted(&self.1) {
            let _ = command(Who::Root, "umount")
                .arg("--lazy")
                .arg(&self.1)
                .status();
        }
        let ended = wait_until(Duration::from_secs(10), || {
            !matches!(self.0.try_wait(), Ok(None))
        });
        if !ended {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// The command must fail, with one line on standard error that names what is wrong.
#[track_caller]
fn assert_refused(command: &mut Command, names: &str) {
    let said = refusal(command);
    assert_eq!(said.lines().count(), 1, "{command:?} said:\n{said}");
    assert!(said.contains(names), "{names} is not in: {said}");
}

/// The command must fail, with one line that names what is wrong, and below it, indented, the
/// place in the rule file or advice.
#[track_caller]
fn assert_explained(command: &mut Command, names: &str) {
    let said = refusal(command);
    let mut lines = said.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.contains(names), "{names} is not in: {first}");
    assert!(
        lines.all(|line| line.starts_with("  ")),
        "{command:?} said:\n{said}"
    );
}

/// What a command says that must fail.
#[track_caller]
fn refusal(command: &mut Command) -> String {
    let refused = finish(command);
    let code = refused.status.code();
    assert!(
        matches!(code, Some(1 | 2)),
        "{command:?}: {}",
        refused.status
    );
    assert_eq!(refused.stdout, "");
    let said = refused.stderr;
    assert!(said.starts_with("dotlockfs: "), "{command:?} said: {said}");
    said
}

/// Lets the kernel forget the entries and inodes that nobody uses.
fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").expect("drop_caches");
}

/// How many files a process has open.
/// The threads of a process: id, name, and how often each has gone to sleep or was put aside.
fn switches(pid: u32) -> Vec<(String, String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_thread = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let count = |name: &str| field(name).parse().unwrap_or(0);
        let slept: u64 = count("voluntary_ctxt_switches:");
        let aside: u64 = count("nonvoluntary_ctxt_switches:");
        Some((field("Pid:"), field("Name:"), slept + aside))
    };
    tasks.flatten().filter_map(of_thread).collect()
}

fn open_descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the daemon lives")
        .count()
}

/// The memory of a process that is in use, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kib << 10
}
