//! Appends that are answered before they are done (`ack = "close"`): what a program may rely on.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::program::Program;
use common::talker::Talker;
use common::world::World;
use common::{Mount, Who, command, directory, python, shell, unmount_at, wait_until};

const DEADLINE: Duration = Duration::from_secs(20);

/// Two mounts of one directory, as two hosts have them, where `log` is answered for early.
fn answering_early(keys: &str) -> World {
    World::whose_locks_last("1min", &format!("ack = \"close\"\n{keys}"))
}

/// A program that has the lock by the second mount, until it is told to let it go.
fn holder(world: &World) -> Program {
    let mut holder = Program::on(&world.two);
    holder.does("f = open('log'); fcntl.flock(f, fcntl.LOCK_EX)");
    holder
}

/// A program with the file open for appending by the first mount.
fn writer(world: &World) -> Program {
    let mut writer = Program::on(&world.one);
    writer.does("f = os.open('log', os.O_WRONLY | os.O_APPEND)");
    writer
}

/// Lets the lock go.
const LET_GO: &str = "f.close()";

/// The write returns while another host has the lock; close does not before the file has it.
#[test]
fn close_waits_for_what_write_did_not() {
    let world = answering_early("");
    let mut holder = holder(&world);
    let mut writer = writer(&world);
    for number in 0..3 {
        writer.does(&format!("os.write(f, b'line {number}\\n')"));
    }
    assert_eq!(world.text(), "");
    writer.begin("os.close(f)");
    assert!(!writer.answers_within(Duration::from_millis(500)));
    holder.does(LET_GO);
    assert_eq!(writer.answer("close"), "ok");
    assert_eq!(world.text(), "line 0\nline 1\nline 2\n");
}

/// So does fsync, and whoever reads the file or asks for its size by this mount.
#[test]
fn whoever_looks_at_the_file_sees_what_was_written() {
    let world = answering_early("");
    for look in [
        "os.fsync(f)",
        "assert os.stat('log').st_size == size",
        "assert os.fstat(f).st_size == size",
        "assert len(open('log').read()) == size",
        "assert os.lseek(f, 0, os.SEEK_END) == size",
        "os.utime('log', (5, 5))",
    ] {
        let mut holder = holder(&world);
        let mut writer = writer(&world);
        let size = world.text().len() + 5;
        writer.does(&format!("size = {size}; os.write(f, b'line\\n')"));
        writer.begin(look);
        assert!(!writer.answers_within(Duration::from_millis(300)), "{look}");
        holder.does(LET_GO);
        assert_eq!(writer.answer(look), "ok");
        assert_eq!(world.text().len(), size, "{look}");
        drop(writer);
        drop(holder);
    }
    let modified = shell(
        Who::Root,
        r#"stat -c %Y "$1""#,
        &[&world.source.path().join("log")],
    );
    assert_eq!(modified.trim(), "5", "the append came after utime");
}

/// What cannot be written is told at the next opportunity, once, and nothing that came after it is
/// in the file before that.
#[test]
fn an_error_is_told_by_close_or_fsync_or_the_next_write() {
    for telling in ["os.close(f)", "os.fsync(f)", "os.write(f, b'third\\n')"] {
        let world = answering_early("lock_timeout = \"4s\"");
        let mut holder = holder(&world);
        let mut writer = writer(&world);
        if !telling.contains("third") {
            writer.does("os.write(f, b'first\\n'); os.write(f, b'second\\n')");
        } else {
            // Until the error is there, a write is answered early too.
            writer.does("os.write(f, b'first\\n'); import time; time.sleep(10)");
        }
        assert_eq!(writer.ask(telling), "EIO");
        holder.does(LET_GO);
        if !telling.contains("close") {
            writer.does("os.write(f, b'again\\n'); os.close(f)");
            assert_eq!(world.text(), "again\n", "{telling}");
        } else {
            assert_eq!(world.text(), "", "{telling}");
        }
    }
}

/// A full disk is told by its own name, and tears nothing.
#[test]
fn a_full_disk_is_told_by_close() {
    let source = directory();
    let script = r#"mount -t tmpfs -o size=256k none "$1"
        printf 'version = 1\n[[guard]]\nfiles = ["log"]\nack = "close"\n' > "$1"/.dotlockfs.toml"#;
    shell(Who::Root, script, &[source.path()]);
    let mount = Mount::new(source.path());
    let script = r#"
import errno, os, sys
told = []
for name in range(40):
    f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    done = 0
    try:
        for i in range(20):
            assert os.write(f, b"%06d" % i + b"x" * 1017 + b"\n") == 1024
        os.fsync(f)
        done = 20
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        told.append(name)
    os.close(f)
assert told and 0 not in told, told
"#;
    python(Who::Root, script, &[&mount.join("log")]);
    let data = fs::read(source.path().join("log")).expect("read");
    assert!(data.len() > 100 * 1024, "{}", data.len());
    assert!(data.len().is_multiple_of(1024));
    assert!(data.chunks(1024).all(|record| record.ends_with(b"x\n")));
    mount.unmount();
    unmount_at(source.path());
}

/// A program that writes faster than the server takes it is slowed down; the daemon does not grow.
#[test]
fn a_fast_writer_is_slowed_down() {
    let world = answering_early("");
    let mut holder = holder(&world);
    let script = r#"
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for i in range(200):
    os.write(f, b"%06d" % i + b"x" * 499993 + b"\n")
    print(i, flush=True)
os.close(f)
print("closed", flush=True)
"#;
    let mut writer = Talker::new(script, &[&world.one.join("log")]);
    writer.hears("20");
    assert!(!writer.hears_within(Duration::from_secs(1), "100"));
    let memory = || resident(world.one.daemon());
    assert!(memory() < 150_000, "{} kB", memory());
    holder.does(LET_GO);
    writer.hears("closed");
    let data = world.text();
    assert_eq!(data.len(), 200 * 500_000);
    for (i, record) in data.as_bytes().chunks(500_000).enumerate() {
        assert!(record.starts_with(format!("{i:06}x").as_bytes()), "{i}");
    }
}

/// The memory that a process has, in kB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    words[1].parse().expect("a number")
}

/// What one process writes by several descriptors comes in that order, and so does what several
/// write one after another.
#[test]
fn order_is_kept_between_descriptors_of_one_host() {
    let world = answering_early("");
    let script = r#"
import os, sys
log, stop = sys.argv[1:3]
fds = [os.open(log, os.O_WRONLY | os.O_APPEND) for _ in range(4)]
for i in range(3000):
    os.write(fds[i % 4], b"%d\n" % i)
    if i % 500 == 499 and os.fork() == 0:
        # Its line comes before that of its parent, who waits for it.
        f = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(f, b"%d.5\n" % i)
        os._exit(0)
    if i % 500 == 499:
        os.wait()
"#;
    let other = r#"for i in $(seq 300); do echo other >> "$1" || exit; done"#;
    let mut competing = command(Who::Root, "sh")
        .args(["-c", other, "sh"])
        .arg(world.two.join("log"))
        .spawn()
        .expect("sh starts");
    python(
        Who::Root,
        script,
        &[&world.one.join("log"), Path::new("stop")],
    );
    assert!(competing.wait().expect("sh").success());
    let all_there = || world.text().lines().filter(|l| *l != "other").count() == 3006;
    assert!(
        wait_until(DEADLINE, all_there),
        "{}",
        world.text().lines().count()
    );
    let text = world.text();
    let numbers: Vec<f64> = text
        .lines()
        .filter(|line| *line != "other")
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(text.lines().count(), 3306);
}

/// Unfinished records are held back as ever, and what is whole is there at the end.
#[test]
fn records_stay_whole() {
    let world = answering_early("record = \"\\n\"");
    let script = r#"
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for i in range(500):
    line = b"%s %d %s\n" % (sys.argv[2].encode(), i, b"x" * (i % 90))
    for at in range(0, len(line), 7):
        os.write(f, line[at:at + 7])
os.close(f)
"#;
    let mut writers = Vec::new();
    for (mount, name) in [(&world.one, "a"), (&world.one, "b"), (&world.two, "c")] {
        let mut writer = command(Who::Root, "python3");
        writer
            .args(["-Bc", script])
            .arg(mount.join("log"))
            .arg(name);
        writers.push(writer.spawn().expect("python3 starts"));
    }
    for mut writer in writers {
        assert!(writer.wait().expect("a writer").success());
    }
    let text = world.text();
    for name in ["a", "b", "c"] {
        let of: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(of.len(), 500, "{name}");
        for (i, line) in of.iter().enumerate() {
            assert_eq!(*line, format!("{name} {i} {}", "x".repeat(i % 90)));
        }
    }
}

/// A mount that is taken away finishes what it has answered for.
#[test]
fn what_was_answered_outlasts_its_program_and_its_mount() {
    let world = answering_early("");
    let mut holder = holder(&world);
    let mut writer = writer(&world);
    writer.does("os.write(f, b'line\\n')");
    common::send(writer.pid(), libc::SIGKILL);
    holder.does(LET_GO);
    // Its last close waits too.
    drop(writer);
    let World { one, two, source } = world;
    one.unmount();
    let text = fs::read_to_string(source.path().join("log")).expect("read");
    assert_eq!(text, "line\n");
    drop(holder);
    drop(two);
}
