//! Locks of holders that die or hang: two mounts of one directory stand for two hosts, and their
//! daemons are killed, or stopped and let go on. `tests/nfs` and `tests/storm` do it with hosts.

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use common::faults::Faults;
use common::program::Program;
use common::world::{STALE, Stopped, World, append};
use common::{DEADLINE, Mount, Who, command, directory, end_of, send, wait_until};

/// A process of this host that is gone need not be watched.
#[test]
fn the_lock_of_a_killed_daemon_is_taken_over_at_once() {
    // An append fails after half of that.
    let world = World::whose_locks_last("60s", "");
    let mut program = Program::on(&world.one);
    program.does("f = open('log', 'a'); fcntl.flock(f, fcntl.LOCK_EX)");
    let before = world.inode();
    send(world.one.daemon(), libc::SIGKILL);
    append(&world.two, "after");
    assert_eq!(world.text(), "after\n");
    assert_ne!(world.inode(), before, "it was not fenced");
}

/// What belongs to the file stays with its name when a fence gives it another inode.
#[test]
fn a_fence_keeps_what_belongs_to_the_file() {
    let world = World::new("");
    let log = world.source.path().join("log");
    let script = r#"echo text > "$1"; chown 1000:1001 "$1"; chmod 2754 "$1"
        python3 -c 'import os,sys; os.setxattr(sys.argv[1], "user.color", b"red")' "$1"
        touch -d '2001-02-03 04:05:06.789' "$1""#;
    common::shell(Who::Root, script, &[&log]);
    let show = || {
        let script = r#"stat -c '%u %g %a %s %y' "$1"
            python3 -c 'import os,sys; print(os.getxattr(sys.argv[1], "user.color"))' "$1""#;
        common::shell(Who::Root, script, &[&log])
    };
    let before = (show(), world.inode());
    let mut program = Program::on(&world.one);
    program.does("f = open('log', 'r'); fcntl.flock(f, fcntl.LOCK_EX)");
    send(world.one.daemon(), libc::SIGKILL);
    let mut other = Program::on(&world.two);
    other.does("f = open('log', 'r'); fcntl.flock(f, fcntl.LOCK_EX)");
    assert_eq!(show(), before.0);
    assert_ne!(world.inode(), before.1);
}

/// Two hosts append all the while one of them is stopped again and again, wherever it is.
#[test]
fn appends_of_a_daemon_that_sleeps_are_made_once() {
    let world = World::new("record = \"\\n\"\nlock_timeout = \"60s\"");
    let writer = r#"
import os, sys, time
stop = sys.argv[3]
acknowledged = 0
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
while not os.path.exists(stop):
    record = f"{sys.argv[2]} {acknowledged} {'x' * (acknowledged * 7 % 300)}\n".encode()
    assert os.write(f, record) == len(record)
    acknowledged += 1
print(acknowledged)
"#;
    let stop = world.source.path().join("stop");
    let mut writers = Vec::new();
    for (mount, names) in [(&world.one, ["a", "b"]), (&world.two, ["c", "d"])] {
        for name in names {
            let mut python = command(Who::Root, "python3");
            python
                .args(["-Bc", writer])
                .arg(mount.join("log"))
                .arg(name)
                .arg(&stop)
                .stdout(Stdio::piped());
            writers.push((name, python.spawn().expect("python3 starts")));
        }
    }
    let lines_of = |names: [&str; 2]| {
        let text = world.text();
        text.lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .count()
    };
    // It is chance what the daemon is about when it is stopped; until it had the lock at least once.
    let mut rounds = 0;
    while rounds < 3 || world.names("fence").is_empty() {
        rounds += 1;
        assert!(rounds < 20, "it never has the lock");
        // It has just written: most likely it has the lock. The hosts take turns, and one that
        // runs for less than the other's turn (a quarter of a second) may never come to write.
        let before = lines_of(["a", "b"]);
        assert!(
            wait_until(10 * DEADLINE, || lines_of(["a", "b"])
                >= before + 10 * rounds),
            "the first host does not write"
        );
        world.stop_one(|| {
            // The other goes on, if need be by breaking the lock.
            let before = lines_of(["c", "d"]);
            assert!(
                wait_until(DEADLINE, || lines_of(["c", "d"]) > before + 20),
                "the other waits"
            );
            std::thread::sleep(STALE / 2);
        });
    }
    fs::write(&stop, "").expect("stop");
    let mut expected = 0;
    for (name, mut child) in writers {
        let status = end_of(&mut child, "a writer");
        assert!(status.success(), "{name}");
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut said)
            .expect("read");
        let count: usize = said.trim().parse().expect("a number");
        let text = world.text();
        let mut next = 0;
        for line in text.lines().filter(|line| line.starts_with(name)) {
            let number: usize = line
                .split(' ')
                .nth(1)
                .expect("number")
                .parse()
                .expect("number");
            assert_eq!(number, next, "{name}: {line}");
            let x = line.split(' ').nth(2).expect("x").len();
            assert_eq!(x, number * 7 % 300, "torn: {line}");
            next += 1;
        }
        assert_eq!(next, count, "{name}");
        expected += count;
    }
    assert_eq!(world.text().lines().count(), expected);
}

/// An update in place that was cut off does no harm to what others have done since, and is told.
#[test]
fn an_update_in_place_that_was_broken_fails_and_changes_nothing() {
    let world = World::new("");
    fs::write(world.source.path().join("log"), "one").expect("write");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('log', os.O_RDWR)");
    program.does("os.write(f, b'ONE')");
    world.stop_one(|| _ = append(&world.two, " two"));
    assert_eq!(world.text(), "ONE two\n");
    assert_eq!(program.ask("os.pwrite(f, b'late', 0)"), "EIO");
    assert_eq!(program.ask("os.fsync(f)"), "EIO");
    assert_eq!(program.ask("os.close(f)"), "EIO");
    assert_eq!(world.text(), "ONE two\n");
    // It is as good as new.
    program.does("f = os.open('log', os.O_RDWR); os.pwrite(f, b'new', 0); os.close(f)");
    assert_eq!(world.text(), "new two\n");
}

/// The same, told by close alone.
#[test]
fn close_tells_that_the_lock_was_lost() {
    let world = World::new("");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('log', os.O_RDWR); os.write(f, b'half')");
    world.stop_one(|| _ = append(&world.two, " two"));
    assert_eq!(program.ask("os.close(f)"), "EIO");
    assert_eq!(world.text(), "half two\n");
}

/// A private copy whose lock was broken takes nobody's place.
#[test]
fn an_atomic_update_that_was_broken_is_not_put_in_its_place() {
    let world = World::new("update = \"atomic\"");
    fs::write(world.source.path().join("log"), "old\n").expect("write");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('log', os.O_RDWR | os.O_TRUNC); os.write(f, b'late')");
    world.stop_one(|| _ = append(&world.two, "two"));
    assert_eq!(program.ask("os.close(f)"), "EIO");
    let gone = wait_until(DEADLINE, || world.names("stage").is_empty());
    assert!(gone, "{:?}", world.names("stage"));
    assert_eq!(world.text(), "old\ntwo\n");
}

/// Who has lost an advisory lock is told when it writes under it, and can lock again.
#[test]
fn what_is_written_under_a_lost_flock_fails() {
    let world = World::new("update = \"off\"");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('log', os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX)");
    program.does("os.write(f, b'one')");
    let mut other = Program::on(&world.two);
    world.stop_one(|| {
        other.does("f = os.open('log', os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX)");
        other.does("os.write(f, b'two')");
    });
    assert_eq!(program.ask("os.pwrite(f, b'late', 0)"), "EIO");
    assert_eq!(world.text(), "two");
    program.ask("fcntl.flock(f, fcntl.LOCK_UN)");
    other.does("fcntl.flock(f, fcntl.LOCK_UN)");
    program.does("fcntl.flock(f, fcntl.LOCK_EX); os.pwrite(f, b'new', 0)");
    assert_eq!(world.text(), "new");
}

/// Documents that are replaced all the while one host is stopped again and again.
#[test]
fn replacements_of_a_daemon_that_sleeps_undo_nothing() {
    let world = World::new("replace = \"check\"\nlock_timeout = \"60s\"");
    fs::write(world.source.path().join("log"), "[]").expect("write");
    let writer = r#"
import errno, json, os, sys
path, name, stop = sys.argv[1:]
done, number = [], 0
while not os.path.exists(stop):
    number += 1
    try:
        with open(path) as f:
            document = json.load(f)
        document.append(f"{name}{number}")
        with open(f"{path}.{name}", "w") as f:
            json.dump(document, f)
        os.rename(f"{path}.{name}", path)
        done.append(f"{name}{number}")
    except OSError as error:
        # Somebody was faster; or the lock was lost, and it may be done or not.
        assert error.errno in (errno.ESTALE, errno.EIO), error
print(" ".join(done))
"#;
    let stop = world.source.path().join("stop");
    let mut writers = Vec::new();
    for (mount, name) in [(&world.one, "a"), (&world.two, "b")] {
        let mut python = command(Who::Root, "python3");
        python
            .args(["-Bc", writer])
            .arg(mount.join("log"))
            .arg(name)
            .arg(&stop);
        writers.push(
            python
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3 starts"),
        );
    }
    for _ in 0..3 {
        let before = world.inode();
        assert!(
            wait_until(DEADLINE, || world.inode() != before),
            "nobody writes"
        );
        world.stop_one(|| {
            for _ in 0..2 {
                let before = world.text().len();
                let grows = || world.text().len() > before;
                assert!(wait_until(DEADLINE, grows), "the other waits");
            }
            std::thread::sleep(STALE / 2);
        });
    }
    fs::write(&stop, "").expect("stop");
    let mut done = Vec::new();
    for child in writers {
        let output = child.wait_with_output().expect("a writer");
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        done.extend(said.split_whitespace().map(str::to_owned));
    }
    let text = world.text();
    for update in &done {
        assert!(
            text.contains(&format!("\"{update}\"")),
            "{update} is lost: {text}"
        );
    }
    assert!(done.len() > 10, "{done:?}");
}

/// Half a record that a dead holder has left is cut off, and what was left so on purpose stays.
#[test]
fn a_torn_tail_is_mended() {
    let world = World::new("record = \"\\n\"");
    append(&world.one, "whole");
    let mut program = Program::on(&world.one);
    program.does("f = open('log', 'r'); fcntl.flock(f, fcntl.LOCK_EX)");
    send(world.one.daemon(), libc::SIGKILL);
    let log: PathBuf = world.source.path().join("log");
    let mut bare = fs::OpenOptions::new()
        .append(true)
        .open(&log)
        .expect("open");
    bare.write_all(b"torn in the mid").expect("write");
    append(&world.two, "next");
    assert_eq!(world.text(), "whole\nnext\n");
}

#[test]
fn an_unfinished_record_that_was_acknowledged_stays() {
    let world = World::new("record = \"\\n\"");
    append(&world.one, "whole");
    common::shell(
        Who::Root,
        r#"printf half >> "$1""#,
        &[&world.one.join("log")],
    );
    assert_eq!(world.text(), "whole\nhalf");
    let mut program = Program::on(&world.one);
    program.does("f = open('log', 'r'); fcntl.flock(f, fcntl.LOCK_EX)");
    send(world.one.daemon(), libc::SIGKILL);
    append(&world.two, " and the rest");
    assert_eq!(world.text(), "whole\nhalf and the rest\n");
}

/// A large append is cut off in the middle by a kill: nothing of it stays.
#[test]
fn half_of_a_large_append_does_not_stay() {
    let world = World::new("");
    append(&world.one, "whole");
    let script = r#"head -c 200000000 /dev/zero | python3 -c '
import os, sys
data = sys.stdin.buffer.read()
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(f, data)' "$1""#;
    let mut shell = command(Who::Root, "sh");
    shell
        .args(["-c", script, "sh"])
        .arg(world.one.join("log"))
        .stderr(Stdio::null());
    let log = world.source.path().join("log").display().to_string();
    let slow = Faults::delay(&world.one, "fdatasync", Duration::from_millis(50), &[log]);
    let mut child = shell.spawn().expect("sh starts");
    let size = || {
        fs::metadata(world.source.path().join("log"))
            .expect("stat")
            .len()
    };
    assert!(
        wait_until(DEADLINE, || size() > 3_000_000),
        "it does not write"
    );
    send(world.one.daemon(), libc::SIGKILL);
    drop(slow);
    end_of(&mut child, "the writer");
    append(&world.two, "next");
    assert_eq!(world.text(), "whole\nnext\n");
}

/// A lock file of a program that is gone, and says so.
#[test]
fn a_lock_file_that_was_left_behind_is_removed() {
    let world = World::new("foreign_stale_after = \"4s\"");
    let lock = world.source.path().join("log.lock");
    fs::write(&lock, "").expect("write");
    let took = append(&world.two, "waited");
    assert!(took >= STALE, "{took:?}");
    assert!(wait_until(DEADLINE, || !lock.exists()));
    assert_eq!(world.text(), "waited\n");

    let world = World::new("foreign_stale_after = \"60s\"");
    let lock = world.source.path().join("log.lock");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host name");
    fs::write(&lock, format!("4194999:{}\n", host.trim())).expect("write");
    append(&world.two, "at once");
    assert_eq!(world.text(), "at once\n");
}

/// A fence can be forbidden, or required.
#[test]
fn files_that_are_too_large_for_a_fence() {
    for (keys, answer, fenced) in [
        ("fence = \"off\"", "ok", false),
        ("fence_limit = \"3B\"", "ok", false),
        ("fence_limit = \"3B\"\nfence = \"require\"", "EFBIG", false),
        ("fence = \"require\"", "ok", true),
    ] {
        let world = World::new(keys);
        append(&world.one, "text");
        let before = world.inode();
        let mut program = Program::on(&world.one);
        program.does("f = open('log', 'r'); fcntl.flock(f, fcntl.LOCK_EX)");
        send(world.one.daemon(), libc::SIGKILL);
        let mut other = Program::on(&world.two);
        other.does("f = os.open('log', os.O_WRONLY | os.O_APPEND)");
        assert_eq!(other.ask("os.write(f, b'next')"), answer, "{keys}");
        assert_eq!(world.inode() != before, fenced, "{keys}");
    }
}

/// Where the lock is, in the daemon's hands, and the daemon comes to its end while others wait.
#[test]
fn a_new_daemon_goes_on_where_the_old_one_was_killed() {
    let world = World::whose_locks_last("60s", "");
    append(&world.one, "one");
    let mut program = Program::on(&world.one);
    program.does("f = os.open('log', os.O_RDWR)");
    send(world.one.daemon(), libc::SIGKILL);
    let third = Mount::new(world.source.path());
    append(&third, "three");
    assert_eq!(world.text(), "one\nthree\n");
}

/// A file that was fenced elsewhere, and has another name by then (a backup, as `ln` makes it), is
/// known for fenced by who has it open: what is appended goes to the file that the name has now.
#[test]
fn who_has_a_fenced_file_open_follows_it_though_it_has_another_name() {
    let world = World::new("");
    let mut writer = Program::on(&world.two);
    writer.does("f = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(f, b'one\\n')");
    let file = |name: &str| world.source.path().join(name);
    fs::hard_link(file("log"), file("backup")).expect("link");
    let mut holder = Program::on(&world.one);
    holder.does("f = open('log', 'r'); fcntl.flock(f, fcntl.LOCK_EX)");
    send(world.one.daemon(), libc::SIGKILL);
    let third = Mount::new(world.source.path());
    append(&third, "two");
    writer.does("os.write(f, b'three\\n')");
    assert_eq!(world.text(), "one\ntwo\nthree\n");
    // Renamed away, it is the file that was opened.
    fs::rename(file("log"), file("rotated")).expect("rename");
    fs::write(file("log"), "new\n").expect("write");
    writer.does("os.write(f, b'four\\n')");
    writer.does("os.write(f, b'five\\n')");
    assert_eq!(world.text(), "new\n");
    let rotated = fs::read_to_string(file("rotated")).expect("read");
    assert_eq!(rotated, "one\ntwo\nthree\nfour\nfive\n");
}

/// A program that writes 2 MiB in one call, whose second half is in memory that is not there yet:
/// the kernel waits for it in the middle of the call, until the daemon of `slow` goes on.
fn begin_large_write(program: &mut Program, slow: &Mount) -> Stopped {
    fs::write(slow.join("half"), "b".repeat(1 << 20)).expect("write");
    program.does(&format!(
        "import ctypes, threading; \
         libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p; \
         libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]; \
         half = os.open('{}/half', os.O_RDONLY); \
         at = libc.mmap(None, 2 << 20, 3, 0x22, -1, 0); \
         ctypes.memset(at, 97, 1 << 20); \
         assert libc.mmap(at + (1 << 20), 1 << 20, 1, 0x12, half, 0) == at + (1 << 20)",
        slow.path().display()
    ));
    let stopped = Stopped::new(slow.daemon());
    program.does("written = []; append = os.open('log', os.O_WRONLY | os.O_APPEND)");
    program.does(
        "writer = threading.Thread(target=lambda: \
         written.append(libc.write(append, ctypes.c_void_p(at), 2 << 20))); writer.start()",
    );
    stopped
}

/// A write that the kernel sends in two pieces, and whose lock is lost between them.
#[test]
fn a_large_write_whose_lock_was_lost_is_made_again() {
    let world = World::new("");
    let elsewhere = directory();
    let slow = Mount::new(elsewhere.path());
    let mut program = Program::on(&world.one);
    let stopped = begin_large_write(&mut program, &slow);
    let size = || world.text().len();
    assert!(wait_until(DEADLINE, || size() == 1 << 20), "{}", size());
    world.stop_one(|| _ = append(&world.two, "other"));
    // Whoever has broken it has left out what had come of it.
    assert!(world.text() == "other\n", "{}", size());
    drop(stopped);
    program.does("writer.join(); assert written == [2 << 20], written");
    let expected = format!("other\n{0}{1}", "a".repeat(1 << 20), "b".repeat(1 << 20));
    assert!(world.text() == expected, "{}", size());
}

/// What was answered before such a write is not lost with it.
#[test]
fn a_large_write_does_no_harm_to_what_was_answered_before() {
    let world = World::new("ack = \"close\"");
    let elsewhere = directory();
    let slow = Mount::new(elsewhere.path());
    let mut holder = Program::on(&world.two);
    holder.does("f = open('log'); fcntl.flock(f, fcntl.LOCK_EX)");
    let mut program = Program::on(&world.one);
    program.does("log = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(log, b'before\\n')");
    let stopped = begin_large_write(&mut program, &slow);
    holder.does("fcntl.flock(f, fcntl.LOCK_UN)");
    let size = || world.text().len();
    assert!(
        wait_until(DEADLINE, || size() == 7 + (1 << 20)),
        "{}",
        size()
    );
    program.does("os.close(log)");
    world.stop_one(|| _ = append(&world.two, "other"));
    assert!(world.text() == "before\nother\n", "{}", size());
    drop(stopped);
    program.does("writer.join(); assert written == [2 << 20], written");
    let halves = format!("{0}{1}", "a".repeat(1 << 20), "b".repeat(1 << 20));
    assert!(
        world.text() == format!("before\nother\n{halves}"),
        "{}",
        size()
    );
}

/// A program that holds the lock appends after its daemon has slept, for less than it takes to break
/// the lock.
#[test]
fn a_holder_appends_after_a_pause() {
    let world = World::whose_locks_last("8s", "");
    let mut holder = Program::on(&world.one);
    holder.does("f = open('log', 'ab', buffering=0); fcntl.flock(f, fcntl.LOCK_EX)");
    for line in ["one", "two"] {
        // Half of the time that it takes, and a little for the clocks.
        let sleeps = STALE + Duration::from_millis(500);
        world.stop_one(|| std::thread::sleep(sleeps));
        holder.does(&format!("f.write(b'{line}\\n')"));
    }
    holder.does("f.close()");
    append(&world.two, "three");
    assert_eq!(world.text(), "one\ntwo\nthree\n");
    assert!(world.names("fence").is_empty(), "it was broken");
}

/// A fence whose copy takes longer than `stale_after`: who makes it shows that it lives, and is left
/// alone.
#[test]
fn a_long_fence_is_made_once() {
    let world = World::new("lock_timeout = \"60s\"");
    let third = Mount::new(world.source.path());
    // Ten pieces.
    let size = 40 << 20;
    let log = world.source.path().join("log");
    fs::write(&log, "x".repeat(size)).expect("write");
    let mut holder = Program::on(&world.one);
    holder.does("f = open('log'); fcntl.flock(f, fcntl.LOCK_EX)");
    let stopped = Stopped::new(world.one.daemon());
    let delay = Duration::from_millis(600);
    let slow = Faults::delay(&world.two, "copy_file_range", delay, &[]);
    let mut mends = Program::on(&world.two);
    let order = "f = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(f, b'two\\n')";
    mends.begin(order);
    let copies = || !world.names("copy").is_empty();
    assert!(wait_until(DEADLINE, copies), "no copy is made");
    append(&third, "three");
    assert_eq!(mends.answer(order), "ok");
    slow.end();
    drop(stopped);
    assert_eq!(world.names("fence"), [".log.fence.1"]);
    let text = world.text();
    assert!(text.ends_with("xtwo\nthree\n"), "{}", &text[size..]);
}
