//! Appends on one host: two mounts of one directory stand for two hosts, with all that does not
//! need NFS to be seen. `tests/nfs` has the rest.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Mount, Who, directory, python, shell, unmount_at, wait_until};

/// A directory with these rules, mounted twice.
fn two_hosts(rules: &str) -> (tempfile::TempDir, Mount, Mount) {
    let source = directory();
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
    let one = Mount::new(source.path());
    let two = Mount::new(source.path());
    (source, one, two)
}

fn rule(keys: &str) -> String {
    format!("version = 1\n[[guard]]\nfiles = [\"**\"]\n{keys}\n")
}

/// What a Python program prints that begins with the usual imports.
fn program(text: &str, arguments: &[&Path]) -> String {
    let prelude = "
import errno, fcntl, os, signal, sys, threading, time
# What fails in a thread fails the program.
threading.excepthook = lambda failed: (sys.__excepthook__(*failed[:3]), os._exit(1))
";
    python(Who::Root, &format!("{prelude}{text}"), arguments)
}

#[test]
fn two_names_of_one_file_lose_nothing_on_one_host() {
    let (source, one, _two) = two_hosts(&rule(""));
    shell(
        Who::Root,
        r#"touch "$1"/x; ln "$1"/x "$1"/y"#,
        &[one.path()],
    );
    shell(
        Who::Root,
        r#"for name in x y; do
            for i in $(seq 0 499); do echo "$name $i" >> "$1/$name"; done &
        done
        wait"#,
        &[one.path()],
    );
    let text = fs::read_to_string(source.path().join("x")).expect("read");
    for name in ["x", "y"] {
        let numbers: Vec<usize> = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn large_writes_from_two_mounts_stay_whole() {
    let (source, one, two) = two_hosts(&rule("lock_timeout = \"5min\""));
    let writers = r#"
def write(path, letter):
    for _ in range(8):
        record = letter * (3 * 1024 * 1024 + 17)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        assert os.write(descriptor, record) == len(record)
        os.close(descriptor)
        # What a program has written is there when it looks.
        assert os.stat(path).st_size >= len(record)

threads = [threading.Thread(target=write, args=(sys.argv[i] + "/log", b"ab"[i - 1:i])) for i in (1, 2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;
    program(writers, &[one.path(), two.path()]);
    let data = fs::read(source.path().join("log")).expect("read");
    let record = 3 * 1024 * 1024 + 17;
    assert_eq!(data.len(), 16 * record);
    for (i, record) in data.chunks(record).enumerate() {
        let letter = record[0];
        assert!(
            record.iter().all(|byte| *byte == letter),
            "record {i} is torn"
        );
    }
}

#[test]
fn a_write_from_many_pieces_of_memory_stays_whole() {
    let (source, one, two) = two_hosts(&rule("lock_timeout = \"5min\""));
    let writers = r#"
def write(path, letter):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for _ in range(30):
        # More pieces than the kernel hands over in one request.
        assert os.writev(descriptor, [letter * 7] * 1000) == 7000

threads = [threading.Thread(target=write, args=(sys.argv[i] + "/log", b"ab"[i - 1:i])) for i in (1, 2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;
    program(writers, &[one.path(), two.path()]);
    let data = fs::read(source.path().join("log")).expect("read");
    assert_eq!(data.len(), 60 * 7000);
    for (i, record) in data.chunks(7000).enumerate() {
        let letter = record[0];
        assert!(
            record.iter().all(|byte| *byte == letter),
            "record {i} is torn"
        );
    }
}

#[test]
fn append_that_is_set_later_is_guarded_too() {
    let (source, one, two) = two_hosts(&rule("update = \"off\"\nlock_timeout = \"5min\""));
    let writers = r#"
def write(path, letter):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    for _ in range(200):
        os.write(descriptor, letter * 9 + b"\n")

threads = [threading.Thread(target=write, args=(sys.argv[i] + "/log", b"ab"[i - 1:i])) for i in (1, 2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"#;
    program(writers, &[one.path(), two.path()]);
    let text = fs::read_to_string(source.path().join("log")).expect("read");
    for line in ["aaaaaaaaa", "bbbbbbbbb"] {
        assert_eq!(
            text.lines().filter(|found| *found == line).count(),
            200,
            "{line}"
        );
    }
}

/// A record is begun, the program forks and closes its descriptor, and that close waits for the
/// lock while the child goes on with the record.
#[test]
fn what_is_held_back_is_neither_lost_nor_doubled() {
    for (child, expected) in [
        (
            r#"os.write(descriptor, b"x"); os.write(descriptor, b"y\n")"#,
            "abcxy\n",
        ),
        (r#"os.write(descriptor, b"def\n")"#, "abcdef\n"),
    ] {
        let source = directory();
        fs::write(
            source.path().join(".dotlockfs.toml"),
            rule("record = \"\\n\""),
        )
        .expect("write");
        let mount = Mount::new(source.path());
        // Held by a program on another host, as far as we can see.
        fs::write(source.path().join("log.lock"), "4711").expect("lock");
        let script = format!(
            r#"
path, lock = sys.argv[1] + "/log", sys.argv[2] + "/log.lock"
descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(descriptor, b"abc")
ready, go = os.pipe()
if os.fork() == 0:
    os.read(ready, 1)
    threading.Timer(0.5, lambda: os.remove(lock)).start()
    {child}
    os.close(descriptor)
    time.sleep(0.6)
    os._exit(0)
threading.Timer(0.2, lambda: os.write(go, b"!")).start()
os.close(descriptor)
assert os.wait()[1] == 0
"#
        );
        program(&script, &[mount.path(), source.path()]);
        let read = || fs::read_to_string(source.path().join("log")).expect("read");
        wait_until(common::DEADLINE, || read().ends_with('\n'));
        assert_eq!(read(), expected);
    }
}

#[test]
fn a_program_that_makes_the_lock_file_itself_does_not_wait_for_itself() {
    let (source, one, two) = two_hosts(&rule("lock_timeout = \"1s\""));
    let outcome = shell(
        Who::Root,
        r#"set -C; echo $$ > "$1"/mbox.lock; set +C
        echo mine >> "$1"/mbox
        # Another host respects it.
        (echo theirs >> "$2"/mbox) 2>/dev/null || echo refused
        rm "$1"/mbox.lock
        echo again >> "$2"/mbox"#,
        &[one.path(), two.path()],
    );
    assert_eq!(outcome, "refused\n");
    let text = fs::read_to_string(source.path().join("mbox")).expect("read");
    assert_eq!(text, "mine\nagain\n");
}

#[test]
fn removing_a_directory_with_files_in_it_does_not_wait_for_their_locks() {
    let (source, one, _two) = two_hosts(&rule("lock_timeout = \"5min\""));
    fs::create_dir(source.path().join("d")).expect("mkdir");
    fs::write(source.path().join("d/log.lock"), "4711").expect("lock");
    let script = r#"
path = sys.argv[1] + "/d"
descriptor = os.open(path + "/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
writer = os.fork()
if writer == 0:
    os.write(descriptor, b"waits")
    os._exit(0)
time.sleep(0.2)
try:
    os.rmdir(path)
except OSError as error:
    print(errno.errorcode[error.errno])
os.kill(writer, signal.SIGKILL)
os.wait()
"#;
    let began = Instant::now();
    assert_eq!(program(script, &[one.path()]), "ENOTEMPTY\n");
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "it waited for the lock"
    );
}

#[test]
fn waiting_ends_by_time_and_by_signal_and_without_waiting_where_asked() {
    let (source, one, _two) = two_hosts(&rule("lock_timeout = \"5s\""));
    fs::write(source.path().join("log.lock"), "4711").expect("lock");
    let script = r#"
path = sys.argv[1] + "/log"
def attempt(flags):
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | flags)
    try:
        os.write(descriptor, b"never")
    except OSError as error:
        print(errno.errorcode[error.errno])

attempt(0)
attempt(os.O_NONBLOCK)
class Woken(Exception): pass
def wake(*_):
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise Woken
signal.signal(signal.SIGALRM, wake)
try:
    # Again and again, should the first come before it waits.
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.1)
    attempt(0)
except Woken:
    print("woken")
"#;
    assert_eq!(program(script, &[one.path()]), "EAGAIN\nEAGAIN\nwoken\n");
    fs::remove_file(source.path().join("log.lock")).expect("unlock");
    shell(Who::Root, r#"echo then >> "$1"/log"#, &[one.path()]);
    let text = fs::read_to_string(source.path().join("log")).expect("read");
    assert_eq!(text, "then\n");
}

/// What is whole is kept and acknowledged; of what does not fit nothing is left.
#[test]
fn a_full_disk_tears_nothing() {
    let source = directory();
    shell(
        Who::Root,
        r#"mount -t tmpfs -o size=256k none "$1""#,
        &[source.path()],
    );
    let mount = Mount::new(source.path());
    let script = r#"
descriptor = os.open(sys.argv[1] + "/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
kept = 0
for i in range(400):
    try:
        assert os.write(descriptor, b"%06d" % i + b"x" * 1017 + b"\n") == 1024
        kept += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
print(kept)
"#;
    let kept: usize = program(script, &[mount.path()])
        .trim()
        .parse()
        .expect("a number");
    let data = fs::read(source.path().join("log")).expect("read");
    assert!(kept > 100 && kept < 400, "{kept}");
    assert_eq!(data.len(), kept * 1024);
    assert!(data.chunks(1024).all(|record| record.ends_with(b"x\n")));
    mount.unmount();
    unmount_at(source.path());
}
