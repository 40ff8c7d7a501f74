//! The rules change while programs use the mount: SIGHUP.
//!
//! How a file is guarded shows by `update = "deny"`, by which an open for writing in place fails with
//! EROFS, and by `ack`, `record` and `advisory`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::program::Program;
use common::{
    DEADLINE, Mount, Who, command, daemons, directory, dotlockfs, end_of, is_mounted,
    require_program, send, unmount_at, wait_until,
};
use tempfile::TempDir;

/// Opens `log` for writing in place, and closes it.
const OPEN: &str = "os.close(os.open('log', os.O_RDWR))";

/// A directory with a rule file and `log`, and mounts of it that log.
struct Place {
    source: TempDir,
    mounts: Vec<(Mount, PathBuf)>,
}

impl Place {
    /// With so many mounts, by these rules.
    fn with(mounts: usize, rules: &str) -> Place {
        let source = directory();
        let mut place = Place {
            source,
            mounts: Vec::new(),
        };
        place.write(rules);
        fs::write(place.source.path().join("log"), "").expect("write");
        place.mounts = (0..mounts)
            .map(|i| {
                let log = place.source.path().join(format!("daemon-{i}"));
                (Mount::logging(Who::Root, place.source.path(), &log), log)
            })
            .collect();
        for (mount, _) in &place.mounts {
            assert!(wait_until(DEADLINE, || mount.join("log").exists()));
        }
        place
    }

    fn new(rules: &str) -> Place {
        Place::with(1, rules)
    }

    fn mount(&self) -> &Mount {
        &self.mounts[0].0
    }

    /// Writes the rule file, past the mount.
    fn write(&self, rules: &str) {
        let file = self.source.path().join(".dotlockfs.toml");
        fs::write(file, format!("version = 1\n{rules}")).expect("write the rules");
    }

    /// Lets all daemons read their rules again; they must say `outcome`. Gives what they have logged
    /// since.
    #[track_caller]
    fn reload(&self, outcome: &str) -> String {
        let mut logged = String::new();
        for (mount, log) in &self.mounts {
            let read = || fs::read_to_string(log).expect("read the log");
            let before = read().len();
            send(mount.daemon(), libc::SIGHUP);
            let said = || read()[before..].contains(outcome);
            assert!(wait_until(DEADLINE, said), "{outcome:?}: {}", read());
            logged.push_str(&read()[before..]);
        }
        logged
    }

    /// Puts these rules into force.
    #[track_caller]
    fn change(&self, rules: &str) -> String {
        self.write(rules);
        self.reload("the rules were read again")
    }

    /// What the file holds, past dotlockfs.
    fn text(&self) -> String {
        fs::read_to_string(self.source.path().join("log")).expect("read")
    }
}

/// A rule for `log`.
fn rule(keys: &str) -> String {
    format!("[[guard]]\nfiles = [\"log\"]\n{keys}\n")
}

/// No rule for `log`.
fn no_rule() -> String {
    "[[guard]]\nfiles = [\"other\"]\nupdate = \"deny\"\n".to_owned()
}

/// Waits until a program gets this answer: what was closed before is let go a moment later.
#[track_caller]
fn gets(program: &mut Program, order: &str, answer: &str) {
    let mut last = String::new();
    let came = wait_until(DEADLINE, || {
        last = program.ask(order);
        last == answer
    });
    assert!(came, "{order}: {last} and not {answer}");
}

#[test]
fn a_rule_that_is_added_counts_from_the_next_open_on() {
    let place = Place::new(&no_rule());
    let mut program = Program::on(place.mount());
    // The kernel knows it as a file that it reads and writes by itself, with pages of it.
    program.does("fd = os.open('log', os.O_RDWR); os.write(fd, b'one\\n'); os.close(fd)");
    program.does("assert open('log').read() == 'one\\n'");
    place.change(&rule("update = \"deny\""));
    gets(&mut program, OPEN, "EROFS");
    assert_eq!(program.ask("os.truncate('log', 0)"), "EROFS");
    program.does(
        "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'two\\n'); os.close(fd)",
    );
    program.does("assert open('log').read() == 'one\\ntwo\\n', open('log').read()");
    assert_eq!(place.text(), "one\ntwo\n");
}

#[test]
fn a_rule_that_is_removed_counts_no_more_from_the_next_open_on() {
    let place = Place::new(&rule("update = \"deny\""));
    let mut program = Program::on(place.mount());
    program.does(
        "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'one\\n'); os.close(fd)",
    );
    assert_eq!(program.ask(OPEN), "EROFS");
    place.change(&no_rule());
    gets(&mut program, OPEN, "ok");
    program.does(
        "fd = os.open('log', os.O_RDWR | os.O_APPEND); os.write(fd, b'two\\n'); os.close(fd)",
    );
    program.does("assert open('log').read() == 'one\\ntwo\\n'");
    assert_eq!(place.text(), "one\ntwo\n");
}

#[test]
fn a_new_file_goes_by_the_newest_rules() {
    let place = Place::new(&no_rule());
    let mut program = Program::on(place.mount());
    place.change("[[guard]]\nfiles = [\"new\"]\nupdate = \"deny\"\n");
    program.does("os.close(os.open('new', os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND))");
    assert_eq!(program.ask("os.open('new', os.O_WRONLY)"), "EROFS");
}

#[test]
fn a_faulty_file_leaves_the_rules_as_they_were() {
    let place = Place::new(&rule("update = \"deny\""));
    let mut program = Program::on(place.mount());
    place.write("[[guard]]\nfiles = [\"log\"]\nupdat = \"off\"\n");
    let logged = place.reload("the rules stay as they were");
    assert!(logged.contains(".dotlockfs.toml:4:1"), "{logged}");
    assert_eq!(program.ask(OPEN), "EROFS");
    // One that is gone may be just on its way; none of its files are unguarded for that.
    fs::remove_file(place.source.path().join(".dotlockfs.toml")).expect("rm");
    let logged = place.reload("the rules stay as they were");
    assert!(logged.contains("cannot read the rule file"), "{logged}");
    assert_eq!(program.ask(OPEN), "EROFS");
    place.change(&no_rule());
    gets(&mut program, OPEN, "ok");
}

/// Another host would break locks that this one takes for its own.
#[test]
fn the_time_after_which_a_lock_is_broken_stays() {
    let place = Place::new(&rule("stale_after = \"10s\""));
    place.write(&rule("stale_after = \"4s\"\nupdate = \"deny\""));
    let logged = place.reload("the rules stay as they were");
    assert!(logged.contains("stale_after"), "{logged}");
    Program::on(place.mount()).does(OPEN);
}

/// Of memory that is shared with a file, the kernel was told at the mount that it is locked.
#[test]
fn no_file_loses_the_lock_for_memory_that_is_shared_with_it() {
    let place = Place::new(&rule(""));
    place.write(&rule("update = \"off\""));
    let logged = place.reload("the rules stay as they were");
    assert!(logged.contains("mmap"), "{logged}");
}

/// A file that the kernel writes by itself stays so until it is closed: two ways to write it at once
/// would not know of each other.
#[test]
fn an_open_file_that_is_not_guarded_stays_so_until_it_is_closed() {
    let place = Place::new(&no_rule());
    let mut holder = Program::on(place.mount());
    let mut other = Program::on(place.mount());
    holder.does("fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'a\\n')");
    let logged = place.change(&rule("update = \"deny\""));
    assert!(logged.contains("log: is in use"), "{logged}");
    other.does(OPEN);
    holder.does("os.write(fd, b'b\\n')");
    other.does("f = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(f, b'c\\n'); os.close(f)");
    holder.does("os.close(fd)");
    gets(&mut other, OPEN, "EROFS");
    assert_eq!(place.text(), "a\nb\nc\n");
}

#[test]
fn an_open_guarded_file_goes_by_its_rule_until_it_is_closed() {
    let place = Place::new(&rule("update = \"deny\""));
    let mut holder = Program::on(place.mount());
    let mut other = Program::on(place.mount());
    // For reading only; even so others must not go past the guard beside it.
    holder.does("fd = os.open('log', os.O_RDONLY)");
    let logged = place.change(&no_rule());
    assert!(logged.contains("log: is in use"), "{logged}");
    assert_eq!(other.ask(OPEN), "EROFS");
    holder.does("os.close(fd)");
    gets(&mut other, OPEN, "ok");
}

/// What is held back of a record is neither lost nor torn.
#[test]
fn half_a_record_comes_to_its_end_by_the_rule_under_which_it_began() {
    let place = Place::new(&rule("record = \"\\n\""));
    let mut holder = Program::on(place.mount());
    let mut other = Program::on(place.mount());
    holder.does("fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'half ')");
    place.change(&rule(""));
    other.does("f = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(f, b'whole\\n')");
    holder.does("os.write(fd, b'a line\\n'); os.write(fd, b'end')");
    assert_eq!(place.text(), "whole\nhalf a line\n");
    holder.does("os.close(fd)");
    other.does("os.close(f)");
    assert!(wait_until(DEADLINE, || place.text() == "whole\nhalf a line\nend"));
    // Now each write goes in as it is.
    let goes_in = || {
        other.does("f = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(f, b'!')");
        let is_there = place.text().ends_with('!');
        other.does("os.close(f)");
        is_there
    };
    assert!(wait_until(DEADLINE, goes_in));
    assert!(place.text().starts_with("whole\nhalf a line\nend!"));
}

/// A program works on a copy of its own, which is put in the place of the file by its close.
#[test]
fn a_private_copy_is_put_in_its_place_after_the_rule_has_changed() {
    let place = Place::new(&rule("update = \"atomic\""));
    let mut holder = Program::on(place.mount());
    let mut reader = Program::on(place.mount());
    holder.does("fd = os.open('log', os.O_RDWR); os.write(fd, b'new')");
    place.change(&rule("update = \"deny\""));
    reader.does("assert open('log').read() == ''");
    holder.does("os.close(fd)");
    assert!(wait_until(DEADLINE, || place.text() == "new"));
    gets(&mut reader, OPEN, "EROFS");
    let left: Vec<_> = fs::read_dir(place.source.path())
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .filter(|name| name.to_string_lossy().contains(".stage."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_lock_that_is_held_keeps_others_out_after_the_rule_has_changed() {
    for after in [no_rule(), rule("advisory = false")] {
        let place = Place::with(2, &rule(""));
        let mut holder = Program::on(place.mount());
        let mut other = Program::on(&place.mounts[1].0);
        holder.does("fd = os.open('log', os.O_RDWR | os.O_APPEND); fcntl.flock(fd, fcntl.LOCK_EX)");
        place.change(&after);
        let attempt =
            "f = os.open('log', os.O_RDONLY); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";
        let mut beside = Program::on(place.mount());
        assert_eq!(beside.ask(attempt), "EAGAIN");
        drop(beside);
        holder.does("fcntl.flock(fd, fcntl.LOCK_UN); os.close(fd)");
        gets(&mut other, attempt, "ok");
    }
}

/// Appends its records by open, write and close, and by a file that stays open for some of them.
const WRITER: &str = r#"
import os, sys
path, name, records = sys.argv[1], sys.argv[2], int(sys.argv[3])
done = 0
while done < records:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for _ in range(1 + done % 3):
        line = f"{name} {done} {'x' * (done % 50)}\n".encode()
        assert os.write(fd, line) == len(line)
        done += 1
    os.close(fd)
print(done)
"#;

const RECORDS: usize = 400;
const RELOADS: usize = 50;

/// Lets writers append through all mounts while the rules change again and again, until they have
/// ended; then each record must be there once, whole, and in the order of its writer.
#[track_caller]
fn change_while_writing(place: &Place, rules: &[String]) {
    let mut writers: Vec<Child> = (0..4)
        .map(|i| {
            let mount = &place.mounts[i % place.mounts.len()].0;
            command(Who::Root, "python3")
                .args(["-Bc", WRITER])
                .arg(mount.join("log"))
                .args([format!("writer-{i}"), RECORDS.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3 starts")
        })
        .collect();
    let mut changes = 0;
    let is_over = |writers: &mut Vec<Child>| {
        let mut ended = writers
            .iter_mut()
            .map(|child| child.try_wait().expect("wait"));
        ended.all(|status| status.is_some())
    };
    while changes < RELOADS || !is_over(&mut writers) {
        place.change(&rules[changes % rules.len()]);
        changes += 1;
    }
    let mut expected = 0;
    for writer in &mut writers {
        assert!(end_of(writer, "a writer").success());
        let said = common::read_aside(writer.stdout.take().expect("piped"));
        expected += said
            .join()
            .expect("read")
            .trim()
            .parse::<usize>()
            .expect("a number");
    }
    let text = place.text();
    let mut next = [0; 4];
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let writer: usize = words[0]
            .strip_prefix("writer-")
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("torn: {line:?}"));
        assert_eq!(
            words[1],
            next[writer].to_string(),
            "lost or doubled: {line:?}"
        );
        assert_eq!(words[2].len(), next[writer] % 50, "torn: {line:?}");
        next[writer] += 1;
    }
    assert_eq!(next.iter().sum::<usize>(), expected);
}

#[test]
fn nothing_is_lost_while_a_file_comes_under_guard_and_leaves_it() {
    let place = Place::new(&rule(""));
    change_while_writing(
        &place,
        &[
            no_rule(),
            rule("ack = \"close\""),
            no_rule(),
            rule("record = \"\\n\""),
            rule(""),
        ],
    );
}

/// The same on two mounts, as on two hosts; of which both have it under guard all the while.
#[test]
fn nothing_is_lost_while_the_rules_change_on_two_hosts() {
    let place = Place::with(2, &rule(""));
    change_while_writing(
        &place,
        &[
            rule("ack = \"close\""),
            rule("record = \"\\n\""),
            rule("append = \"open\""),
            rule("dotlock = false"),
            rule("ack = \"close\"\nrecord = \"\\n\""),
            rule(""),
        ],
    );
}

/// What stood in the file before its lines were known as records is not taken for half of one.
#[test]
fn a_line_without_an_end_stays_when_its_rule_gets_records() {
    let place = Place::with(2, &rule("stale_after = \"4s\""));
    let mut program = Program::on(place.mount());
    program.does(
        "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'no end'); os.close(fd)",
    );
    place.change(&rule("stale_after = \"4s\"\nrecord = \"\\n\""));
    let append = "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'; an end\\nhalf')";
    gets(&mut program, append, "ok");
    // Killed in the middle of a record; the other mount goes on after it.
    let daemon = place.mount().daemon();
    program.does("os.fsync(fd)");
    send(daemon, libc::SIGKILL);
    let mut other = Program::on(&place.mounts[1].0);
    other.does(
        "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'\\nnext\\n'); os.close(fd)",
    );
    let text = place.text();
    assert!(text.starts_with("no end; an end\n"), "{text:?}");
    assert!(text.ends_with("\nnext\n"), "{text:?}");
    drop(program);
}

#[test]
fn reading_the_same_rules_again_notes_nothing() {
    let place = Place::new(&rule("record = \"\\n\""));
    let mut program = Program::on(place.mount());
    let append =
        "fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'x\\n'); os.close(fd)";
    place.change(&rule("record = \"\\n\""));
    program.does(append);
    let tail = place.source.path().join(".log.tail.0");
    assert!(!tail.exists(), "it is taken for a change of records");
    // The end of the file is noted where another rule was in force, for then it may be half a record.
    place.change(&rule("record = \"x\\n\""));
    let noted = wait_until(DEADLINE, || {
        program.does(append);
        tail.exists()
    });
    assert!(noted);
}

#[test]
fn another_name_of_a_file_that_comes_under_guard_is_opened_all_the_same() {
    let place = Place::new(&no_rule());
    let mut program = Program::on(place.mount());
    program.does("os.link('log', 'beside'); os.stat('beside'); os.stat('log')");
    place.change(&rule("update = \"deny\""));
    for _ in 0..3 {
        program.does("os.close(os.open('beside', os.O_RDWR)); os.stat('beside')");
        gets(&mut program, OPEN, "EROFS");
    }
}

#[test]
fn rules_of_the_command_line_cannot_be_read_again_and_the_log_says_so() {
    let source = directory();
    let point = directory();
    fs::write(source.path().join("log"), "").expect("write");
    let mut start = command(Who::Root, dotlockfs());
    start
        .args([source.path(), point.path()])
        .args(["-f", "-o", "guard=log"])
        .stderr(Stdio::piped());
    let mut daemon = start.spawn().expect("it starts");
    assert!(wait_until(DEADLINE, || point.path().join("log").exists()));
    send(daemon.id(), libc::SIGHUP);
    // A reload that has not begun is none.
    let has_reload = || threads(daemon.id()).contains(&"reload".to_owned());
    assert!(wait_until(DEADLINE, has_reload));
    assert!(point.path().join("log").exists());
    unmount_at(point.path());
    let log = common::read_aside(daemon.stderr.take().expect("piped"));
    assert!(end_of(&mut daemon, "the daemon").success());
    let log = log.join().expect("read");
    assert!(log.contains("guard=, which cannot be read again"), "{log}");
}

fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    let name = |task: PathBuf| fs::read_to_string(task.join("comm")).unwrap_or_default();
    tasks
        .map(|task| name(task.expect("a thread").path()).trim().to_owned())
        .collect()
}

/// As when the terminal is closed from which it was started.
#[test]
fn a_daemon_in_the_background_reads_its_rules_again_and_goes_on() {
    let source = directory();
    let rules = source.path().join(".dotlockfs.toml");
    fs::write(source.path().join("log"), "").expect("write");
    fs::write(&rules, format!("version = 1\n{}", no_rule())).expect("write");
    // Over itself: the file is covered by the mount, and read below it.
    let mount = Mount::at(source.path(), source.path(), &[]);
    let mut program = Program::on(&mount);
    program.does(OPEN);
    let new = format!("version = 1\n{}", rule("update = \"deny\""));
    fs::write(&rules, new).expect("write");
    send(mount.daemon(), libc::SIGHUP);
    gets(&mut program, OPEN, "EROFS");
    drop(program);
    mount.unmount();
}

/// The file lies on a server that hangs; the mount comes to its end by a signal all the same.
#[test]
fn a_rule_file_that_cannot_be_read_holds_nothing_up() {
    require_program("bindfs", "bindfs");
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    for name in ["config", "far", "source", "point"] {
        fs::create_dir(at(name)).expect("mkdir");
    }
    fs::write(at("config/rules"), format!("version = 1\n{}", rule(""))).expect("write");
    let mut server = command(Who::Root, "bindfs")
        .args(["-f", "-o", "attr_timeout=0,entry_timeout=0"])
        .args([at("config"), at("far")])
        .spawn()
        .expect("bindfs starts");
    assert!(wait_until(DEADLINE, || is_mounted(&at("far"))));
    let mount = Mount::at(
        &at("source"),
        &at("point"),
        &["--config", at("far/rules").to_str().expect("plain")],
    );
    let daemon = mount.daemon();
    send(server.id(), libc::SIGSTOP);
    send(daemon, libc::SIGHUP);
    let hangs = || waits_for_a_file_system(daemon, "reload");
    assert!(wait_until(DEADLINE, hangs), "it has read the rules");
    // Another one, while the first hangs.
    send(daemon, libc::SIGHUP);
    fs::write(mount.join("log"), "there\n").expect("write");
    send(daemon, libc::SIGTERM);
    let is_over = || daemons(&at("point")).is_empty() && !is_mounted(&at("point"));
    assert!(wait_until(DEADLINE, is_over), "it goes on");
    send(server.id(), libc::SIGCONT);
    unmount_at(&at("far"));
    end_of(&mut server, "bindfs");
}

/// Whether a thread of this name waits in a call on a path.
fn waits_for_a_file_system(process: u32, name: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    let calls = [libc::SYS_openat, libc::SYS_statx, libc::SYS_read].map(|call| call.to_string());
    let waits = |task: &Path| {
        let read = |file: &str| fs::read_to_string(task.join(file)).unwrap_or_default();
        let call = read("syscall");
        let number = call.split(' ').next().unwrap_or_default().to_owned();
        read("comm").trim() == name && calls.contains(&number)
    };
    tasks.flatten().any(|task| waits(&task.path()))
}
