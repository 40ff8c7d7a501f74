//! What `dotlockfs locks` and `dotlockfs doctor` say of a directory.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::talker::Talker;
use common::world::{Stopped, World};
use common::{
    ALICE, DEADLINE, Finished, Mount, Who, command, copy_command, daemons, directory, dotlockfs,
    finish, python, require_root, send, shell, wait_until,
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
    copy_command(&program);
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

#[test]
fn a_sound_directory_has_no_fault() {
    let source = directory();
    let rules = "version = 1\n[[guard]]\nfiles = [\"*.log\"]\n";
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write");
    let mount = Mount::new(source.path());
    fs::create_dir(mount.join("sub")).expect("mkdir");
    for dir in [source.path(), mount.path(), &mount.join("sub")] {
        let before = listing(dir);
        let (code, answer) = doctor(dir);
        assert_eq!(code, 0, "{answer}");
        assert_eq!(
            (&answer["faults"], &answer["warnings"]),
            (&0.into(), &0.into())
        );
        assert_eq!(listing(dir), before, "nothing is left");
        for (subject, level, what) in [
            ("file system", "note", "no NFS"),
            ("directory", "ok", "can be made"),
            ("link(2)", "ok", "makes a second name"),
            ("link(2) race", "ok", "exactly one got it"),
            ("changes", "ok", "ctime"),
            ("writing", "ok", "fdatasync works"),
            ("clock", "ok", "is that of this host"),
            ("locks", "ok", "none is held"),
            ("rules", "ok", "1 rule"),
            ("kernel", "ok", "Linux "),
            ("/dev/fuse", "ok", "can be opened"),
        ] {
            let found = finding(&answer, subject);
            assert_eq!(found["level"], level, "{found}");
            let words = found["what"].as_str().expect("words");
            assert!(words.contains(what), "{found}");
            assert_eq!(found["advice"], Value::Null);
        }
        let mounts = finding(&answer, "mounts here");
        assert_eq!(mounts["level"], "ok");
        let daemon = format!(
            "{}, served by process {}",
            mount.path().display(),
            mount.daemon()
        );
        assert_eq!(mounts["what"], daemon);

        let text = finish(command(Who::Root, dotlockfs()).arg("doctor").arg(dir)).success();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let begins = |line: &str| text.lines().any(|found| found.starts_with(line));
        assert!(
            begins("ok       link(2) race   20 times 8 threads"),
            "{text}"
        );
        assert!(text.ends_with("\nno faults, no warnings\n"), "{text}");
    }
}

#[test]
fn faults_are_named_with_what_to_do() {
    let source = directory();
    let at = |name: &str| source.path().join(name);
    fs::write(at(".dotlockfs.toml"), "version = 1\nnonsense = true\n").expect("write");
    let (code, answer) = doctor(source.path());
    assert_eq!(code, 1, "{answer}");
    assert_eq!(answer["faults"], 1);
    let rules = finding(&answer, "rules");
    assert_eq!(rules["level"], "fault");
    let what = rules["what"].as_str().expect("words");
    assert!(what.contains(".dotlockfs.toml:2:1: unknown key"), "{rules}");
    assert_eq!(rules["advice"], "see: dotlockfs check-config DIR");

    // Where nothing can be written the rest is looked at all the same.
    fs::create_dir(at("read-only")).expect("mkdir");
    let script = r#"mount -t tmpfs -o ro none "$1""#;
    shell(Who::Root, script, &[&at("read-only")]);
    let _tmpfs = Unmounted(at("read-only"));
    let (code, answer) = doctor(&at("read-only"));
    assert_eq!(code, 1, "{answer}");
    assert_eq!(finding(&answer, "directory")["level"], "fault");
    assert_eq!(finding(&answer, "mount options")["level"], "warning");
    assert_eq!(finding(&answer, "locks")["level"], "ok");

    let finished = finish(
        command(Who::Root, dotlockfs())
            .arg("doctor")
            .arg(at("missing")),
    );
    let said = refusal(finished);
    assert!(
        said.contains("missing: cannot open it: No such file"),
        "{said}"
    );
}

#[test]
fn what_crashes_have_left_is_found() {
    let source = directory();
    let at = |name: &str| source.path().join(name);
    let mount = Mount::new(source.path());
    let holder = held(&mount.join("log"));
    // A lock that was given back leaves its claim for a while.
    fs::write(mount.join("other"), "").expect("write");
    // As long as somebody has it open it stays.
    let mut other = fs::File::options()
        .append(true)
        .open(mount.join("other"))
        .expect("open");
    other.write_all(b"line\n").expect("write");
    let (_, answer) = doctor(source.path());
    let locks = finding(&answer, "locks");
    assert_eq!(locks["level"], "ok", "{locks}");
    let what = locks["what"].as_str().expect("words");
    assert!(
        what.contains("held") && what.contains("signs of life"),
        "{locks}"
    );

    send(mount.daemon(), libc::SIGKILL);
    let killed = wait_until(DEADLINE, || daemons(mount.path()).is_empty());
    assert!(killed, "killed");
    drop((holder, other));
    for name in ["mbox", "mbox.lock", ".x.stage.12345"] {
        fs::write(at(name), "").expect("write");
    }
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 3600);
    for name in ["mbox.lock", ".x.stage.12345"] {
        let file = fs::File::options().append(true).open(at(name));
        file.expect("open")
            .set_modified(hours_ago)
            .expect("set the time");
    }
    let (code, answer) = doctor(source.path());
    assert_eq!(code, 0, "these are no faults: {answer}");
    for (subject, level, what) in [
        ("locks", "warning", "dead: log"),
        ("lock files", "warning", ": mbox.lock"),
        ("leftovers", "warning", ": .x.stage.12345"),
        ("leftovers", "note", ".other.claim."),
        ("mounts here", "warning", "has ended; start it again"),
    ] {
        let all = answer["findings"].as_array().expect("a list");
        let found = all.iter().any(|found| {
            let words = found["what"].as_str().expect("words");
            found["subject"] == subject && found["level"] == level && words.contains(what)
        });
        assert!(found, "{subject}, {level}, {what}: {answer}");
    }
}

#[test]
fn a_mount_with_rules_of_its_own_is_named() {
    let source = directory();
    let elsewhere = directory();
    let rules = elsewhere.path().join("rules.toml");
    fs::write(&rules, "version = 1\n").expect("write");
    let rules = rules.to_str().expect("UTF-8");
    for (arguments, named) in [
        (["--config", rules], rules),
        (["-o", "guard=*.log"], "(guard=*.log)"),
    ] {
        let mount = Mount::with(source.path(), &arguments);
        let (code, answer) = doctor(source.path());
        assert_eq!(code, 0, "{answer}");
        let mounts = finding(&answer, "mounts here");
        assert_eq!(mounts["level"], "warning");
        assert!(
            mounts["what"].as_str().expect("words").contains(named),
            "{mounts}"
        );
        mount.unmount();
    }
    let (_, answer) = doctor(source.path());
    let mounts = finding(&answer, "mounts here");
    assert_eq!(mounts["level"], "note", "{mounts}");
}

#[test]
fn a_doctor_that_is_sent_away_leaves_nothing() {
    let source = directory();
    for _ in 0..5 {
        let mut child = command(Who::Root, dotlockfs())
            .arg("doctor")
            .arg(source.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the command starts");
        let mut ended = None;
        let busy = wait_until(DEADLINE, || {
            ended = child.try_wait().expect("wait");
            ended.is_some() || !listing(source.path()).is_empty()
        });
        assert!(busy, "it makes files, or ends");
        if ended.is_none() {
            send(child.id(), libc::SIGTERM);
        }
        let status = common::end_of(&mut child, "doctor after a signal");
        // It may have come to its end before the signal.
        assert!(matches!(status.code(), Some(0 | 143)), "{status}");
        assert_eq!(listing(source.path()), Vec::<PathBuf>::new());
    }
}

/// Runs `dotlockfs doctor --json`; gives the exit status too.
#[track_caller]
fn doctor(dir: &Path) -> (i32, Value) {
    require_root();
    let mut command = command(Who::Root, dotlockfs());
    let finished = finish(command.arg("doctor").arg("--json").arg(dir));
    let text = &finished.stdout;
    let answer = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    (finished.status.code().expect("it ends by itself"), answer)
}

/// The one finding about a subject.
#[track_caller]
fn finding<'a>(answer: &'a Value, subject: &str) -> &'a Value {
    let all = answer["findings"].as_array().expect("a list");
    let found: Vec<&Value> = all
        .iter()
        .filter(|found| found["subject"] == subject)
        .collect();
    assert_eq!(found.len(), 1, "{subject}: {answer}");
    found[0]
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

/// A lock that stands, broken by hand.
#[test]
fn a_lock_is_broken_by_hand() {
    let source = directory();
    let rules = "version = 1\n[[guard]]\nfiles = [\"log\"]\nstale_after = \"1h\"\n";
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write");
    let log = source.path().join("log");
    fs::write(&log, "text\n").expect("write");
    let (one, two) = (Mount::new(source.path()), Mount::new(source.path()));
    let said = broken_by_hand(&log, &[]).success();
    assert!(said.ends_with("log: nobody has the lock\n"), "{said}");

    let hold = "import fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(f, fcntl.LOCK_EX)
print('locked', flush=True)
sys.stdin.read()
try: os.write(f, b'late')
except OSError as error: print(error.errno, flush=True)
";
    let mut holder = command(Who::Root, "python3");
    holder
        .args(["-Bc", hold])
        .arg(one.join("log"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut holder = holder.spawn().expect("python3 starts");
    let mut lines = std::io::BufReader::new(holder.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).expect("it locks");

    let refused = broken_by_hand(&log, &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let hint = "with --yes it is done without asking";
    assert!(refused.stderr.contains(hint), "{refused:?}");
    let said = broken_by_hand(&two.join("log"), &["--yes", "--now"]).success();
    let parts = [
        "WHICH IS RUNNING ON THIS HOST",
        "was ended",
        "the file was fenced",
    ];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    common::shell(Who::Root, r#"echo more >> "$1""#, &[&two.join("log")]);

    // The holder was alive, and has slept; how long that takes to see is stale_after's business.
    common::send(one.daemon(), libc::SIGKILL);
    drop(holder.stdin.take());
    let _ = holder.wait();
    assert_eq!(fs::read_to_string(&log).expect("read"), "text\nmore\n");
}

/// The holder lives, and writes all the while: its turns come to their ends, and nothing is lost.
#[test]
fn a_busy_writer_loses_nothing_when_its_lock_is_broken_by_hand() {
    let world = World::whose_locks_last("60s", "update = \"off\"");
    let program = "import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
number = 0
while not os.path.exists(sys.argv[2]):
    os.write(f, b'%d\\n' % number)
    number += 1
print(number)
";
    let log = world.source.path().join("log");
    let stop = world.source.path().join("stop");
    let mut writer = command(Who::Root, "python3");
    writer.args(["-Bc", program]).arg(world.one.join("log"));
    writer.arg(&stop).stdout(std::process::Stdio::piped());
    let writer = writer.spawn().expect("python3 starts");
    for _ in 0..10 {
        let before = world.text().len();
        let writes = wait_until(DEADLINE, || world.text().len() > before);
        assert!(writes, "it does not write");
        let said = broken_by_hand(&log, &["--yes"]).success();
        let outcomes = [
            "nobody has the lock\n",
            "has ended by itself\nthe file was not fenced\n",
            "somebody else has the lock now\n",
        ];
        assert!(outcomes.iter().any(|end| said.ends_with(end)), "{said}");
    }
    fs::write(&stop, "").expect("write");
    let told = writer.wait_with_output().expect("it ends");
    let count = String::from_utf8_lossy(&told.stdout).trim().parse();
    let count: usize = count.expect("a number");
    let expected: String = (0..count).map(|number| format!("{number}\n")).collect();
    assert_eq!(world.text(), expected);
}

/// The holder lives and keeps its lock: until the lock is broken it may write, and what it writes
/// stays; then it is told.
#[test]
fn a_living_holder_is_told_that_its_lock_was_broken_by_hand() {
    let world = World::new("update = \"off\"");
    let program = "import fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(f, fcntl.LOCK_EX)
print('locked', flush=True)
done = 0
try:
    while True:
        os.pwrite(f, b'%d\\n' % (done + 1), 0)
        done += 1
except OSError as error:
    print(done, error.errno, flush=True)
";
    let log = world.source.path().join("log");
    let mut holder = Talker::new(program, &[&world.one.join("log")]);
    holder.hears("locked");
    let said = broken_by_hand(&log, &["--yes"]).success();
    assert!(
        said.ends_with("the file was fenced: it is a copy of what it was\n"),
        "{said}"
    );
    let end = holder.line();
    let (done, errno) = end.trim().split_once(' ').expect("two numbers");
    assert_eq!(errno, libc::EIO.to_string());
    // The write that failed may have been done.
    let next = (done.parse::<u64>().expect("a number") + 1).to_string();
    let text = world.text();
    assert!([done, &next].contains(&text.trim_end()), "{done}: {text}");
}

/// The holder does not answer, and is not known to be dead: it is waited for as long as that takes.
#[test]
fn the_lock_of_a_silent_holder_is_broken_by_hand() {
    let world = World::new("update = \"off\"");
    let log = world.source.path().join("log");
    let holder = held(&world.one.join("log"));
    let stopped = Stopped::new(world.one.daemon());
    let said = broken_by_hand(&log, &["--yes"]).success();
    assert!(
        said.ends_with("the file was fenced: it is a copy of what it was\n"),
        "{said}"
    );
    drop((stopped, holder));
}

/// Runs `dotlockfs break`.
fn broken_by_hand(file: &Path, options: &[&str]) -> Finished {
    let mut tool = command(Who::Root, dotlockfs());
    finish(tool.arg("break").arg(file).args(options))
}
