//! What `dotlockfs locks` and `dotlockfs doctor` say of a directory.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::talker::Talker;
use common::{
    ALICE, DEADLINE, Finished, Mount, Who, command, daemons, directory, dotlockfs, finish, python,
    require_root, send, shell, wait_until,
};
use serde_json::Value;

/// Locks a file and keeps it locked.
const HOLDS: &str = "
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print('locked', flush=True)
sys.stdin.read()
";

#[test]
fn a_held_lock_is_shown_wherever_one_looks() {
    let source = directory();
    fs::create_dir(source.path().join("sub")).expect("mkdir");
    let (one, other) = (Mount::new(source.path()), Mount::new(source.path()));
    let holder = held(&one.join("sub/log"));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
    let inside = directory();
    shell(
        Who::Root,
        r#"mount --bind "$1"/sub "$2""#,
        &[one.path(), inside.path()],
    );
    let _bind = Unmounted(inside.path().to_owned());
    for (dir, file) in [
        (source.path().to_owned(), "sub/log"),
        (one.path().to_owned(), "sub/log"),
        (other.path().to_owned(), "sub/log"),
        (other.join("sub"), "log"),
        (inside.path().to_owned(), "log"),
    ] {
        let before = listing(source.path());
        let answer = locks_json(&dir, &[]);
        assert_eq!(listing(source.path()), before, "a look leaves nothing");
        let all = answer["locks"].as_array().expect("a list");
        assert_eq!(all.len(), 1, "{}: {answer}", dir.display());
        let lock = &all[0];
        assert_eq!(lock["file"], file);
        assert_eq!(lock["state"], "held");
        assert_eq!(lock["program"], "dotlockfs");
        assert_eq!(lock["turn"], 1);
        assert_eq!(lock["host"], host.trim());
        assert_eq!(lock["pid"], one.daemon());
        assert_eq!(lock["alive"], true);
        let sign = lock["sign_of_life_seconds"].as_f64().expect("a number");
        assert!(
            (0.0..DEADLINE.as_secs_f64() * 2.0).contains(&sign),
            "{sign}"
        );
        assert_eq!(answer["clock"], "server");
        assert_eq!(answer["problems"], Value::Array(vec![]));

        let table = locks(&dir, &[]).success();
        let words: Vec<&str> = table.split_whitespace().collect();
        assert_eq!(words[..5], ["STATE", "TURN", "HOLDER", "SEEN", "FILE"]);
        assert_eq!((words[5], words[6]), ("held", "1"));
        let pid = one.daemon().to_string();
        let holder = format!("{}, pid {pid} ", host.trim());
        assert!(table.contains(&holder), "{table}");
        assert_eq!(words.last(), Some(&file));
    }
    drop(holder);
    // When it is free it is shown only if that is asked for.
    let free = wait_until(DEADLINE, || {
        locks_json(other.path(), &[])["locks"] == Value::Array(vec![])
    });
    assert!(free, "the lock is given back");
    let said = locks(other.path(), &[]).success();
    assert!(said.starts_with("no lock is held under "), "{said}");
    let all = locks_json(other.path(), &["--all"]);
    assert_eq!(all["locks"][0]["state"], "over", "{all}");
    let table = locks(other.path(), &["--all"]).success();
    assert!(table.contains("free"), "{table}");
}

#[test]
fn the_lock_of_a_killed_daemon_is_shown_as_dead() {
    let source = directory();
    let mount = Mount::at(source.path(), source.path(), &[]);
    let holder = held(&mount.join("log"));
    let daemon = mount.daemon();
    send(daemon, libc::SIGKILL);
    let killed = wait_until(DEADLINE, || daemons(mount.path()).is_empty());
    assert!(killed, "killed");
    drop(holder);
    // Until it is started again the mount tells nothing.
    let refused = locks(source.path(), &[]);
    let said = refusal(refused);
    assert!(said.contains("start it again"), "{said}");
    std::mem::forget(mount);
    let mount = Mount::at(source.path(), source.path(), &[]);
    let answer = locks_json(mount.path(), &[]);
    let lock = &answer["locks"][0];
    assert_eq!(
        (&lock["file"], &lock["state"]),
        (&"log".into(), &"held".into())
    );
    assert_eq!(lock["pid"], daemon);
    assert_eq!(lock["alive"], false);
    let table = locks(mount.path(), &[]).success();
    assert!(table.contains(&format!("pid {daemon}, dead")), "{table}");
    // The same command on the mount and on the bare directory, once that is there again.
    mount.unmount();
    let gone = wait_until(DEADLINE, || !common::is_mounted(source.path()));
    assert!(gone, "the dead mount is taken away");
    assert_eq!(locks_json(source.path(), &[])["locks"][0]["pid"], daemon);
}

#[test]
fn broken_locks_and_those_of_other_programs() {
    let source = directory();
    let at = |name: &str| source.path().join(name);
    let record = |host: &str, pid: u32| {
        format!("0\ndotlockfs 1\nhost {host}\nboot b\npidns 1\npid {pid}\nstart 2\ntoken t\n")
    };
    fs::write(at(".x.claim.far.11.0123456789abcdef"), record("far", 11)).expect("write");
    fs::write(at(".x.claim.near.12.0123456789abcdef"), record("near", 12)).expect("write");
    fs::hard_link(at(".x.claim.far.11.0123456789abcdef"), at(".x.turn.41")).expect("link");
    fs::hard_link(at(".x.claim.near.12.0123456789abcdef"), at(".x.done.41")).expect("link");
    for name in ["mbox", "spool", "linked"] {
        fs::write(at(name), "").expect("write");
    }
    fs::write(at("mbox.lock"), "4711\nsecond line").expect("write");
    fs::create_dir(at("spool.lock")).expect("mkdir");
    std::os::unix::fs::symlink("far:11:2", at("linked.lock")).expect("symlink");
    fs::write(at("Cargo.lock"), "no lock of anything here").expect("write");
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = fs::File::options()
        .append(true)
        .open(at("mbox.lock"))
        .expect("open");
    file.set_modified(hour_ago).expect("set the time");

    let answer = locks_json(source.path(), &[]);
    let all = answer["locks"].as_array().expect("a list");
    let of = |file: &str| {
        let found: Vec<&Value> = all.iter().filter(|lock| lock["file"] == file).collect();
        assert_eq!(found.len(), 1, "{file}: {answer}");
        found[0].clone()
    };
    assert_eq!(all.len(), 4, "{answer}");
    let broken = of("x");
    assert_eq!(broken["state"], "broken");
    assert_eq!(
        (&broken["host"], &broken["pid"]),
        (&"far".into(), &11.into())
    );
    assert_eq!(
        broken["alive"],
        Value::Null,
        "nothing is known of other hosts"
    );
    assert_eq!(broken["ended_by"], "dotlockfs on host near, pid 12");
    let mbox = of("mbox");
    assert_eq!(mbox["state"], "foreign");
    assert_eq!(mbox["lock_file"], "mbox.lock");
    assert_eq!(mbox["content"], "4711\nsecond line");
    let age = mbox["age_seconds"].as_f64().expect("a number");
    assert!((3599.0..3800.0).contains(&age), "{age}");
    assert_eq!(of("spool")["kind"], "directory");
    assert_eq!(of("linked")["content"], "far:11:2");

    let table = locks(source.path(), &[]).success();
    let line = |file: &str| {
        let mut lines = table.lines();
        lines
            .find(|line| line.ends_with(&format!(" {file}")))
            .expect("a line")
            .to_owned()
    };
    assert!(
        line("x").starts_with("broken    41  far, pid 11 "),
        "{table}"
    );
    let mbox = line("mbox");
    assert!(
        mbox.starts_with("X.lock") && mbox.contains("says 4711 "),
        "{table}"
    );
    assert!(mbox.contains(" 1h "), "{table}");
    assert!(line("spool").contains("a directory"), "{table}");
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
}

#[test]
fn odd_names_stay_on_one_line() {
    let source = directory();
    let mount = Mount::new(source.path());
    let names: [&[u8]; 3] = [b"new\nline", b"not utf-8 \xff", b"tab\there"];
    let holders: Vec<Talker> = names
        .iter()
        .map(|name| held(&mount.join(OsStr::from_bytes(name))))
        .collect();
    for dir in [source.path(), mount.path()] {
        let table = locks(dir, &[]).success();
        assert_eq!(table.lines().count(), 4, "{table}");
        for shown in ["new\\nline", "not utf-8 \\xff", "tab\\there"] {
            let found = table.lines().any(|line| line.ends_with(shown));
            assert!(found, "{shown} is not in:\n{table}");
        }
        let answer = locks_json(dir, &[]);
        let files: Vec<&str> = answer["locks"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|lock| lock["file"].as_str().expect("a name"))
            .collect();
        assert_eq!(files, ["new\nline", "not utf-8 \u{fffd}", "tab\there"]);
        assert_eq!(answer["locks"][0].get("file_hex"), None);
        let hex: String = names[1].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(answer["locks"][1]["file_hex"], hex);
    }
    drop(holders);
}

#[test]
fn what_a_user_may_not_see_is_said() {
    let source = directory();
    let closed = source.path().join("closed");
    for dir in [source.path(), &closed] {
        let _ = fs::create_dir(dir);
        fs::write(dir.join(".x.turn.3"), "").expect("write");
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    let home = directory();
    let program = home.path().join("dotlockfs");
    // The build directory may be closed to that user.
    fs::copy(dotlockfs(), &program).expect("copy the command");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    let as_alice = |dir: &Path| finish(command(ALICE, &program).arg("locks").arg(dir));

    let finished = as_alice(source.path());
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(
        finished.stdout.contains("held"),
        "the rest is shown: {finished:?}"
    );
    // She may not ask the server for its time by a file of her own.
    assert!(finished.stdout.contains('~'), "{finished:?}");
    let complaint = format!(
        "{}: cannot be looked at: Permission denied",
        closed.display()
    );
    assert!(finished.stderr.contains(&complaint), "{finished:?}");

    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let said = refusal(as_alice(mount.path()));
    assert!(said.contains("this takes root"), "{said}");
    let said = refusal(as_alice(&source.path().join("missing")));
    assert!(
        said.contains("missing: cannot open it: No such file"),
        "{said}"
    );
}

#[test]
fn the_daemon_is_told_only_when_it_is_asked_for() {
    let source = directory();
    let mount = Mount::new(source.path());
    fs::write(mount.join("file"), "").expect("write");
    let program = "
import os, sys
root = sys.argv[1]
for path in root, root + '/file':
    assert os.listxattr(path) == [], os.listxattr(path)
    print(os.getxattr(path, 'user.dotlockfs.daemon').decode().split(' ')[0])
";
    let said = python(Who::Root, program, &[mount.path()]);
    let daemon = mount.daemon().to_string();
    assert_eq!(said.lines().collect::<Vec<_>>(), [&daemon, &daemon]);
}

/// A program that holds the lock of a file.
#[track_caller]
fn held(file: &Path) -> Talker {
    let mut holder = Talker::new(HOLDS, &[file]);
    holder.hears("locked");
    holder
}

/// Runs `dotlockfs locks`.
#[track_caller]
fn locks(dir: &Path, arguments: &[&str]) -> Finished {
    require_root();
    let mut command = command(Who::Root, dotlockfs());
    finish(command.arg("locks").args(arguments).arg(dir))
}

/// What `dotlockfs locks --json` says.
#[track_caller]
fn locks_json(dir: &Path, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let text = locks(dir, &arguments).success();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The one line that a command says that must fail.
#[track_caller]
fn refusal(finished: Finished) -> String {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    finished.stderr
}

/// All names in a directory, hidden ones too.
fn listing(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("list");
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    names.sort();
    names
}

/// A mount of the test's own, unmounted at the end.
struct Unmounted(PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        let _ = command(Who::Root, "umount")
            .arg("--lazy")
            .arg(&self.0)
            .status();
    }
}
