//! The directory below fails: it is full, read-only, broken, or gone. Programs get the error, the
//! file keeps whole records only, the lock is free again at once, and other files go on.
//!
//! Two mounts of one directory stand for two hosts. What cannot be had from a real file system
//! comes from `strace`, by which single system calls of the first mount's daemon fail
//! (`common/faults.rs`). `tests/nfs/failing.rs` has a server that fails.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use common::faults::{Fault, Faults};
use common::program::Program;
use common::{DEADLINE, Mount, Who, command, directory, end_of, finish, wait_until};
use tempfile::TempDir;

/// What a file system may answer when it cannot do as it is asked.
const ERRORS: [&str; 5] = ["ENOSPC", "EDQUOT", "EIO", "EROFS", "ESTALE"];

/// A guarded file `d/log` that two hosts use, in a directory of its own, and another one, `other`,
/// to which a program on the first host appends all the while.
///
/// A lock that were left standing would last for longer than anybody waits for it here.
struct World {
    one: Mount,
    two: Mount,
    source: PathBuf,
    bystander: Option<Bystander>,
    /// What `d/log` must hold.
    expected: String,
    _directory: Option<TempDir>,
}

impl World {
    fn new(keys: &str) -> World {
        let directory = directory();
        let mut world = World::at(directory.path(), keys);
        world._directory = Some(directory);
        world
    }

    fn at(source: &Path, keys: &str) -> World {
        let timeout = match keys.contains("lock_timeout") {
            true => "",
            false => "lock_timeout = \"8s\"",
        };
        let rules = format!("version = 1\n[[guard]]\nfiles = [\"**\"]\n{timeout}\n{keys}\n");
        fs::write(source.join(".dotlockfs.toml"), rules).expect("write the rules");
        fs::create_dir(source.join("d")).expect("mkdir");
        fs::write(source.join("d/log"), "").expect("write the log");
        World {
            one: Mount::new(source),
            two: Mount::new(source),
            source: source.to_owned(),
            bystander: None,
            expected: String::new(),
            _directory: None,
        }
    }

    fn with_bystander(mut self) -> World {
        self.bystander = Some(Bystander::on(&self.one, self.path("other")));
        self
    }

    /// A path below the mounts.
    fn path(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path("d/log")).expect("read the log")
    }

    fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.path("d/log")).expect("stat").ino()
    }

    /// The lock's own names of a kind, without what is the same in all of them.
    fn names(&self, step: &str) -> Vec<String> {
        let prefix = format!(".log.{step}.");
        let entries = fs::read_dir(self.path("d")).expect("list").flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix(&prefix).map(str::to_owned)
            })
            .collect()
    }

    /// The highest number of the lock's own names of a kind.
    fn newest(&self, step: &str) -> u64 {
        let numbers = self.names(step).into_iter();
        numbers.flat_map(|name| name.parse()).max().unwrap_or(0)
    }

    /// The number of the newest turn, when nobody has one.
    #[track_caller]
    fn turns(&self) -> u64 {
        let at_rest = wait_until(DEADLINE, || self.newest("done") >= self.newest("turn"));
        assert!(at_rest, "the lock was not given back");
        self.newest("done")
    }

    /// Leaves the lock as a host does whose turn was broken.
    #[track_caller]
    fn break_a_turn(&self) {
        let n = self.turns() + 1;
        for step in ["turn", "done"] {
            let name = self.path(&format!("d/.log.{step}.{n}"));
            fs::write(name, "").expect("write");
        }
    }

    /// Calls of the first host's daemon fail, while the program asks for something.
    #[track_caller]
    fn ask_while(&self, fault: Fault<'_>, program: &mut Program, order: &str) -> String {
        let before = self.bystander.as_ref().map(Bystander::count);
        let faults = Faults::of(&self.one, fault);
        let answer = program.ask(order);
        if let (Some(bystander), Some(before)) = (&self.bystander, before) {
            bystander.goes_on_after(before);
        }
        faults.end();
        answer
    }

    /// Everything is as it should be: nothing but what was acknowledged is in the file, and both
    /// hosts can append to it.
    #[track_caller]
    fn is_sound(&mut self, after: &str) {
        self.is_as_expected(after);
        self.goes_on(after);
    }

    /// Both hosts can append to the file, and nothing but what was acknowledged is in it then.
    #[track_caller]
    fn goes_on(&mut self, after: &str) {
        for mount in [&self.one, &self.two] {
            append(mount, "sound");
            self.expected.push_str("sound\n");
        }
        self.is_as_expected(after);
    }

    /// Nothing but what was acknowledged is in the file.
    #[track_caller]
    fn is_as_expected(&self, after: &str) {
        let text = self.text();
        // Some of the tests write much.
        let end = |text: &str| {
            text.lines()
                .rev()
                .take(9)
                .map(|line| format!("{line:.99}"))
                .collect::<Vec<_>>()
        };
        assert!(
            text == self.expected,
            "after {after}: {} bytes, {} were acknowledged; the last lines:\n{:?}\n{:?}",
            text.len(),
            self.expected.len(),
            end(&text),
            end(&self.expected)
        );
    }
}

/// A program that appends to a file all the while, and is never refused.
struct Bystander {
    child: Child,
    file: PathBuf,
    stop: PathBuf,
}

impl Bystander {
    fn on(mount: &Mount, below: PathBuf) -> Bystander {
        let stop = below.with_file_name("stop");
        let text = r#"
import os, sys, time
f = os.open("other", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while not os.path.exists("stop"):
    os.write(f, b"line\n")
    time.sleep(0.01)
"#;
        let mut python = command(Who::Root, "python3");
        python.args(["-Bc", text]).current_dir(mount.path());
        let child = python.spawn().expect("python3 starts");
        let bystander = Bystander {
            child,
            file: below,
            stop,
        };
        bystander.goes_on_after(0);
        bystander
    }

    /// How much it has written.
    fn count(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// Waits until it has written more.
    #[track_caller]
    fn goes_on_after(&self, before: u64) {
        let goes_on = wait_until(DEADLINE, || self.count() > before);
        assert!(goes_on, "the other file waits");
    }

    /// It has never been refused.
    #[track_caller]
    fn end(mut self) {
        fs::write(&self.stop, "").expect("stop");
        let status = end_of(&mut self.child, "the bystander");
        assert!(status.success(), "appends to the other file have failed");
        let text = fs::read_to_string(&self.file).expect("read");
        assert!(text.lines().all(|line| line == "line"), "torn: {text}");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small disk that can be filled.
struct Disk {
    mounted: PathBuf,
}

impl Disk {
    /// A tmpfs with these options.
    fn of(options: &str) -> Disk {
        let mounted = directory().keep();
        let script = r#"mount -t tmpfs -o "$2" none "$1""#;
        common::shell(Who::Root, script, &[&mounted, Path::new(options)]);
        Disk { mounted }
    }

    /// Fills it, but for so many bytes.
    fn fill(&self, left: u64) {
        let script = r#"cat /dev/zero > "$1"/filler 2>/dev/null || truncate -s "-$2" "$1"/filler"#;
        common::shell(
            Who::Root,
            script,
            &[&self.mounted, Path::new(&left.to_string())],
        );
    }

    /// Fills it with names, but for so many.
    fn fill_names(&self, left: usize) {
        let mut fillers = Vec::new();
        while fs::write(self.mounted.join(format!("filler{}", fillers.len())), "").is_ok() {
            fillers.push(self.mounted.join(format!("filler{}", fillers.len())));
        }
        assert!(fillers.len() > left, "it was full before");
        for filler in fillers.into_iter().take(left) {
            fs::remove_file(filler).expect("remove");
        }
    }

    /// Removes what it was filled with.
    fn empty(&self) {
        common::shell(Who::Root, r#"rm "$1"/filler*"#, &[&self.mounted]);
    }

    fn remount(&self, how: &str) {
        let script = r#"mount -o "remount,$2" "$1""#;
        common::shell(Who::Root, script, &[&self.mounted, Path::new(how)]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut umount = command(Who::Root, "umount");
        let _ = umount.arg("--lazy").arg(&self.mounted).status();
        let _ = fs::remove_dir(&self.mounted);
    }
}

/// Appends a line by a shell, which must succeed.
#[track_caller]
fn append(mount: &Mount, line: &str) {
    let script = r#"printf '%s\n' "$2" >> "$1""#;
    let mut shell = command(Who::Root, "sh");
    shell
        .args(["-euc", script, "sh"])
        .arg(mount.join("d/log"))
        .arg(line);
    finish(&mut shell).success();
}

/// Each call of an append fails with each error.
#[test]
fn an_append_that_fails_leaves_nothing_and_frees_the_lock() {
    let mut world = World::new("").with_bystander();
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    for error in ERRORS {
        for (step, calls) in [
            ("write", "pwrite64"),
            ("sync", "fdatasync"),
            ("turn", "linkat"),
            ("lock file", "linkat"),
            ("look at the turn before", "statx"),
        ] {
            let n = world.turns();
            let on = match step {
                "turn" => format!(".log.turn.{}", n + 1),
                "lock file" => "log.lock".to_owned(),
                "look at the turn before" => format!(".log.done.{n}"),
                _ => world.path("d/log").display().to_string(),
            };
            // A claim that is gone is made again, and the turn is taken with that.
            let is_made_good = (step, error) == ("turn", "ESTALE");
            let when = if is_made_good { "1" } else { "1+" };
            let fault = Fault {
                calls,
                error,
                when,
                on: vec![on],
            };
            let what = format!("{error} for the {step}");
            let answer = world.ask_while(fault, &mut program, "os.write(f, b'record\\n')");
            if is_made_good {
                assert_eq!(answer, "ok", "{what}");
                world.expected.push_str("record\n");
            } else {
                assert_eq!(answer, error, "{what}");
            }
            world.is_sound(&what);
        }
    }
    world.bystander.take().expect("it is there").end();
}

/// The file has another inode than the program has opened: it was removed, and made anew. The
/// write is made to that.
#[test]
fn an_append_to_a_file_that_is_gone_from_the_server_is_made_to_the_new_one() {
    let mut world = World::new("");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    let fault = Fault {
        calls: "pwrite64",
        error: "ESTALE",
        when: "1",
        on: vec![world.path("d/log").display().to_string()],
    };
    let answer = world.ask_while(fault, &mut program, "os.write(f, b'record\\n')");
    assert_eq!(answer, "ok");
    world.expected.push_str("record\n");
    world.is_sound("ESTALE once");
}

/// The claim is the first that is made of a lock, when a file is first appended to.
#[test]
fn a_lock_that_cannot_be_made_is_told() {
    for error in ERRORS {
        let mut world = World::new("").with_bystander();
        let mut program = Program::on(&world.one);
        program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
        let fault = Fault {
            calls: "openat",
            error,
            when: "1",
            on: vec![world.path("d").display().to_string()],
        };
        let answer = world.ask_while(fault, &mut program, "os.write(f, b'record\\n')");
        if error == "ESTALE" {
            // As if it had been removed behind our back: it is made again.
            assert_eq!(answer, "ok");
            world.expected.push_str("record\n");
        } else {
            assert_eq!(answer, error);
        }
        world.is_sound(error);
        world.bystander.take().expect("it is there").end();
    }
}

/// What was done is done, and the program is told so; the lock goes as soon as it can be given
/// back.
#[test]
fn a_turn_that_cannot_be_ended_is_ended_later() {
    let mut world = World::new("lock_timeout = \"40s\"").with_bystander();
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    let mut other = Program::on(&world.two);
    other.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    for error in ERRORS {
        let end = format!(".log.done.{}", world.turns() + 1);
        let fault = Fault::of_each("linkat", error, &[&end]);
        let faults = Faults::of(&world.one, fault);
        program.does("os.write(f, b'one\\n')");
        let order = "os.write(f, b'two\\n')";
        other.begin(order);
        let bystander = world.bystander.as_ref().expect("it is there");
        bystander.goes_on_after(bystander.count());
        assert_eq!(world.text(), format!("{}one\n", world.expected), "{error}");
        faults.end();
        assert_eq!(other.answer(order), "ok", "{error}");
        world.expected.push_str("one\ntwo\n");
        world.is_sound(error);
    }
    world.bystander.take().expect("it is there").end();
}

/// A turn is taken, but what came before it cannot be looked at, nor can it be given back. Nobody on
/// this host wants it any more; it is given back all the same.
#[test]
fn a_turn_that_was_taken_in_vain_is_given_back_later() {
    for error in ["EIO", "ETIMEDOUT"] {
        let world = World::new("");
        append(&world.two, "first");
        let n = world.turns();
        let mut program = Program::on(&world.one);
        program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
        let (before, taken) = (format!(".log.done.{n}"), format!(".log.turn.{}", n + 1));
        let fault = Fault::of_each("statx", error, &[&before, &taken]);
        let answer = world.ask_while(fault, &mut program, "os.write(f, b'record\\n')");
        assert_eq!(answer, error);
        assert_eq!(world.newest("turn"), n + 1, "it was not taken");
        append(&world.two, "second");
        assert_eq!(world.text(), "first\nsecond\n");
    }
}

/// A batch does not fit, and what is there of it cannot even be taken back: whoever comes next
/// leaves it out.
#[test]
fn half_a_batch_that_cannot_be_taken_back_does_not_stay() {
    for error in ERRORS {
        let disk = Disk::of("size=1M");
        let mut world = World::at(&disk.mounted, "");
        let mut program = Program::on(&world.one);
        program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
        program.does("os.write(f, b'first\\n')");
        world.expected.push_str("first\n");
        world.turns();
        disk.fill(80 << 10);
        let fault = Fault::of_each(
            "ftruncate",
            error,
            &[&world.path("d/log").display().to_string()],
        );
        let order = "os.write(f, b'torn' * (50 << 10))";
        assert_eq!(world.ask_while(fault, &mut program, order), "ENOSPC");
        disk.empty();
        world.goes_on(error);
    }
}

/// One record is larger than what is left of the disk; smaller ones go on until there is no room
/// for them either.
#[test]
fn a_record_that_does_not_fit_is_taken_back() {
    let disk = Disk::of("size=1M");
    let mut world = World::at(&disk.mounted, "");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    program.does("os.write(f, b'first\\n')");
    disk.fill(80 << 10);
    assert_eq!(program.ask("os.write(f, b'torn' * (50 << 10))"), "ENOSPC");
    program.does("os.write(f, b'small\\n')");
    assert_eq!(program.ask("os.write(f, b'torn' * (5 << 20))"), "ENOSPC");
    world.expected.push_str("first\nsmall\n");
    world.is_sound("a large record");
}

/// Names cost room, too (here each one does, on other file systems a directory that must grow).
/// With whatever number of names left the lock is taken and given back, or the program is told.
#[test]
fn a_disk_that_has_no_room_for_names() {
    let disk = Disk::of("nr_inodes=64");
    let mut world = World::at(&disk.mounted, "");
    for names in 0..8 {
        let mut program = Program::on(&world.one);
        program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
        disk.fill_names(names);
        match program.ask("os.write(f, b'record\\n')").as_str() {
            "ok" => world.expected.push_str("record\n"),
            answer => assert_eq!(answer, "ENOSPC", "{names}"),
        }
        disk.empty();
        world.is_sound(&format!("{names} names"));
    }
}

/// A replacement fails in each of its two steps.
#[test]
fn a_replacement_that_fails_changes_nothing() {
    let mut world = World::new("").with_bystander();
    let mut program = Program::on(&world.one);
    for error in ERRORS {
        for (step, when, on) in [("first", "1", "new"), ("second", "1+", "log")] {
            program.does("open('d/new', 'w').write('new\\n')");
            let fault = Fault {
                calls: "renameat,renameat2",
                error,
                // The kernel asks twice where it hears ESTALE.
                when: if error == "ESTALE" && when == "1" {
                    "1..2"
                } else {
                    when
                },
                on: vec![on.to_owned()],
            };
            let what = format!("{error} for the {step} step");
            let answer = world.ask_while(fault, &mut program, "os.rename('d/new', 'd/log')");
            assert_eq!(answer, error, "{what}");
            assert_eq!(
                fs::read_to_string(world.path("d/new")).expect("read"),
                "new\n",
                "{what}"
            );
            world.is_sound(&what);
            program.does("os.rename('d/new', 'd/log')");
            world.expected = "new\n".to_owned();
            world.is_sound(&what);
        }
    }
    world.bystander.take().expect("it is there").end();
}

/// A program that changes the file in place is told by the call that fails, and its lock goes with
/// the close.
#[test]
fn an_update_in_place_that_fails_is_told() {
    let mut world = World::new("").with_bystander();
    let mut program = Program::on(&world.one);
    let log = world.path("d/log").display().to_string();
    for error in ERRORS {
        let answer = world.ask_while(
            Fault::of_each("openat", error, &["log"]),
            &mut program,
            "os.open('d/log', os.O_RDWR)",
        );
        assert_eq!(answer, error, "open");
        world.is_sound("open");
        program.does("f = os.open('d/log', os.O_RDWR)");
        for (calls, order) in [
            ("pwrite64", "os.write(f, b'x')"),
            ("ftruncate", "os.ftruncate(f, 0)"),
            ("fallocate", "os.posix_fallocate(f, 0, 100)"),
            ("fsync,fdatasync", "os.fsync(f)"),
        ] {
            assert_eq!(
                world.ask_while(Fault::of_each(calls, error, &[&log]), &mut program, order),
                error,
                "{calls}"
            );
        }
        program.does("os.close(f)");
        world.is_sound(error);
    }
    world.bystander.take().expect("it is there").end();
}

/// Each step of a fence fails with each error. The next call mends the file.
#[test]
fn a_fence_that_cannot_be_made_is_made_by_the_next_call() {
    let mut world = World::new("").with_bystander();
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    program.does("os.write(f, b'first\\n')");
    world.expected.push_str("first\n");
    let directory = world.path("d").display().to_string();
    let log = world.path("d/log").display().to_string();
    let mut fences = 0;
    for error in ERRORS {
        for (step, calls, when) in [
            ("listing", "getdents64", "1"),
            ("opening", "openat", "1+"),
            ("copying", "copy_file_range,pread64", "1+"),
            ("sync", "fsync", "1+"),
            ("staging", "renameat,renameat2", "1"),
            ("publishing", "linkat", "1+"),
            ("putting in place", "renameat,renameat2", "1+"),
        ] {
            world.break_a_turn();
            let on = match step {
                "listing" | "staging" => Some(directory.clone()),
                "copying" => Some(log.clone()),
                "publishing" => Some(format!(".log.fence.{}", fences + 1)),
                // Nothing but a fence makes this call.
                "sync" => None,
                _ => Some("log".to_owned()),
            };
            let fault = Fault {
                calls,
                error,
                when,
                on: on.into_iter().collect(),
            };
            let what = format!("{error} for the {step}");
            let before = world.inode();
            let answer = world.ask_while(fault, &mut program, "os.write(f, b'record\\n')");
            if (error, when) == ("ESTALE", "1") {
                // Something of the lock was gone; it is tried again.
                assert_eq!(answer, "ok", "{what}");
                world.expected.push_str("record\n");
            } else {
                assert_eq!(answer, error, "{what}");
            }
            world.is_sound(&what);
            assert_ne!(world.inode(), before, "{what}: it was not fenced");
            fences = world.newest("fence");
        }
    }
    world.bystander.take().expect("it is there").end();
}

/// There is no room for a copy of the file, and so for no fence: each call says so, on both hosts,
/// until there is.
#[test]
fn a_file_that_cannot_be_fenced_for_want_of_room() {
    let disk = Disk::of("size=1M");
    let mut world = World::at(&disk.mounted, "");
    let mut programs = [Program::on(&world.one), Program::on(&world.two)];
    for program in &mut programs {
        program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
        program.does("os.write(f, b'x' * 9999 + b'\\n')");
        world.expected.push_str(&("x".repeat(9999) + "\n"));
    }
    world.break_a_turn();
    disk.fill(0);
    for _ in 0..2 {
        for program in &mut programs {
            assert_eq!(program.ask("os.write(f, b'record\\n')"), "ENOSPC");
        }
    }
    disk.empty();
    world.is_sound("no room for a fence");
}

/// The file system turns read-only, as it does when it is broken, and is mounted anew.
#[test]
fn a_file_system_that_is_read_only_for_a_while() {
    let disk = Disk::of("size=1M");
    let mut world = World::at(&disk.mounted, "");
    let mut holder = Program::on(&world.one);
    holder.does("f = os.open('d/log', os.O_RDONLY); fcntl.flock(f, fcntl.LOCK_EX)");
    disk.remount("ro");
    let mut program = Program::on(&world.two);
    assert_eq!(
        program.ask("os.open('d/log', os.O_WRONLY | os.O_APPEND)"),
        "EROFS"
    );
    assert_eq!(
        program.ask("os.open('d/new', os.O_WRONLY | os.O_CREAT)"),
        "EROFS"
    );
    assert_eq!(program.ask("os.rename('d/log', 'd/old')"), "EROFS");
    program.does("assert open('d/log').read() == ''");
    // It cannot be given back on the server now; nobody hears of that but who waits.
    holder.does("fcntl.flock(f, fcntl.LOCK_UN)");
    disk.remount("rw");
    world.is_sound("read-only");
}

/// A user may write to the file, and nobody may make names in its directory for a while.
#[test]
fn a_directory_that_nobody_may_write_for_a_while() {
    let mut world = World::new("");
    let chattr = |how: &str| {
        let mut chattr = command(Who::Root, "chattr");
        finish(chattr.arg(how).arg(world.path("d"))).success();
    };
    chattr("+i");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
    let answer = program.ask("os.write(f, b'record\\n')");
    chattr("-i");
    assert_eq!(answer, "EPERM");
    program.does("os.write(f, b'record\\n')");
    world.expected.push_str("record\n");
    world.is_sound("immutable");
}

/// The lock's signs of life do not arrive. Others take the lock when its time is over, and the
/// holder is told when it writes.
#[test]
fn a_holder_that_cannot_show_that_it_lives_loses_the_lock_and_is_told() {
    let world = World::new("stale_after = \"4s\"\nlock_timeout = \"40s\"");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('d/log', os.O_RDWR)");
    program.does("os.write(f, b'mine\\n')");
    let claim = world.names("claim").pop().expect("a claim");
    let on = world.path(&format!("d/.log.claim.{claim}"));
    let on = on.display().to_string();
    let fault = Fault::of_each("utimensat", "EIO", &[&on]);
    let faults = Faults::of(&world.one, fault);
    append(&world.two, "theirs");
    assert_eq!(program.ask("os.write(f, b'late\\n')"), "EIO");
    faults.end();
    assert_eq!(program.ask("os.close(f)"), "EIO");
    assert_eq!(world.text(), "mine\ntheirs\n");
}
