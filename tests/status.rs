//! What a mount tells of itself: `dotlockfs status`, its metrics, and its log.
//!
//! Two mounts of one directory stand for two hosts.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use std::time::Instant;

use common::program::Program;
use common::world::{Stopped, World, append};
use common::{
    ALICE, BOB, DEADLINE, Finished, Mount, Who, command, daemons, directory, dotlockfs, finish,
    home_of_a_user, python, require_root, send, shell, wait_until,
};
use serde_json::Value;

/// Takes the lock of a file and keeps it.
const LOCKS: &str = "f = open('log', 'a'); fcntl.flock(f, fcntl.LOCK_EX)";

#[test]
fn who_waits_for_whom_is_shown_on_both_sides() {
    let world = World::whose_locks_last("60s", "");
    let mut holder = Program::on(&world.one);
    holder.does(LOCKS);
    let mut waiter = Program::on(&world.two);
    waiter.begin(LOCKS);

    let held = guard(world.one.path(), "log");
    assert_eq!(held["state"], "held", "{held}");
    assert_eq!(held["holder"]["kind"], "here");
    assert_eq!(
        held["holder"]["programs"],
        serde_json::json!([holder.pid()])
    );
    let mut waits = Value::Null;
    let seen = wait_until(DEADLINE, || {
        waits = guard(world.two.path(), "log");
        let waited = waits["waited_seconds"].as_f64().unwrap_or_default();
        waits["holder"] != Value::Null && waited > 0.1
    });
    assert!(seen, "{waits}");
    assert_eq!(waits["state"], "waiting");
    assert_eq!(waits["queued"], 1);
    assert_eq!(waits["holder"]["kind"], "other");
    assert_eq!(waits["holder"]["pid"], world.one.daemon());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host's name");
    assert_eq!(waits["holder"]["host"], host.trim());

    let table = status(&[world.two.path().as_os_str()]).success();
    let row = table.lines().last().expect("a row");
    let expected = format!("this host, pid {}  log", world.one.daemon());
    assert!(
        row.starts_with("waiting") && row.ends_with(&expected),
        "{table}"
    );
    let table = status(&[world.one.path().as_os_str()]).success();
    let row = table.lines().last().expect("a row");
    let expected = format!("process {}  log", holder.pid());
    assert!(
        row.starts_with("held") && row.ends_with(&expected),
        "{table}"
    );

    // One who waits within this mount is queued behind what it holds.
    let mut second = Program::on(&world.one);
    second.begin(LOCKS);
    let queued = wait_until(DEADLINE, || guard(world.one.path(), "log")["queued"] == 1);
    assert!(queued, "{}", guard(world.one.path(), "log"));
    assert_eq!(guard(world.one.path(), "log")["state"], "held");
    drop(second);
    let ended = || mount(world.one.path())["totals"]["interrupted"] == 1;
    assert!(wait_until(DEADLINE, ended), "{}", mount(world.one.path()));

    let before = mount(world.two.path())["totals"]["waits"].clone();
    holder.does("f.close()");
    assert_eq!(waiter.answer(LOCKS), "ok");
    let after = mount(world.two.path())["totals"]["waits"].clone();
    let count = |waits: &Value| waits["count"].as_u64().expect("a number");
    assert_eq!(count(&after), count(&before) + 1);
    let seconds = |name: &str| after[name].as_f64().expect("a number");
    let longest = seconds("max_seconds");
    assert!((0.1..DEADLINE.as_secs_f64()).contains(&longest), "{after}");
    assert!(
        seconds("median_seconds") <= seconds("p99_seconds"),
        "{after}"
    );
    assert!(seconds("p99_seconds") <= longest, "{after}");
    let stands = |state| {
        wait_until(DEADLINE, || {
            guard(world.one.path(), "log")["state"] == state
        })
    };
    waiter.does("f.close()");
    assert!(stands("free"), "{}", guard(world.one.path(), "log"));
}

/// Counts move as programs do what is counted, and by as much.
#[test]
fn appends_are_counted() {
    const LINES: u64 = 50;
    let source = directory();
    let one = Mount::new(source.path());
    let before = mount(one.path());
    assert_eq!(before["totals"]["appends"], 0);
    let script = r#"for n in $(seq "$2"); do echo 1234567 >> "$1"; done"#;
    let lines = LINES.to_string();
    shell(Who::Root, script, &[&one.join("log"), Path::new(&lines)]);
    let after = mount(one.path());
    let totals = &after["totals"];
    assert_eq!(totals["appends"], LINES, "{after}");
    assert_eq!(totals["appended_bytes"], 8 * LINES, "{after}");
    let number = |value: &Value| value.as_u64().expect("a number");
    assert!((1..=LINES).contains(&number(&totals["batches"])), "{after}");
    assert!((1..=LINES).contains(&number(&totals["turns"])), "{after}");
    assert!(number(&totals["largest_batch"]) >= 1, "{after}");
    assert!(number(&totals["waits"]["count"]) >= LINES, "{after}");
    // A turn takes two links, and each batch a write, and a sync on this file system.
    let calls = |name: &str| number(&after["calls"][name]) - number(&before["calls"][name]);
    assert!(calls("link") >= 2 * number(&totals["turns"]) - 1, "{after}");
    assert_eq!(calls("write"), number(&totals["batches"]), "{after}");
    assert!(calls("sync") >= number(&totals["batches"]), "{after}");
    assert!(calls("getattr") >= 1, "{after}");
    for none in [
        "errors",
        "timeouts",
        "breaks",
        "turns_lost",
        "fences",
        "deadlocks",
    ] {
        assert_eq!(totals[none], 0, "{none}: {after}");
    }
}

#[test]
fn what_is_mounted_is_told_by_any_path() {
    let source = directory();
    fs::create_dir(source.path().join("sub")).expect("mkdir");
    let rules = "version = 1\n[[guard]]\nfiles = [\"*.log\"]\n[[guard]]\nfiles = [\"*.csv\"]\n";
    let file = source.path().join(".dotlockfs.toml");
    fs::write(&file, rules).expect("write the rules");
    let one = Mount::with(source.path(), &["-o", "allow_other", "--threads", "3"]);
    let two = Mount::with(source.path(), &["-o", "ro,guard=*.txt"]);
    let links = directory();
    let link = links.path().join("link");
    std::os::unix::fs::symlink(one.path(), &link).expect("symlink");
    let mut slash = one.path().as_os_str().to_owned();
    slash.push("/");
    for path in [one.path().to_owned(), link, slash.into(), one.join("sub")] {
        let told = mount(&path);
        assert_eq!(told["mountpoint"], one.path().to_str().expect("UTF-8"));
        assert_eq!(told["source"], source.path().to_str().expect("UTF-8"));
        assert_eq!(told["pid"], one.daemon());
        assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(told["rules"]["count"], 2);
        assert_eq!(told["rules"]["file"], file.to_str().expect("UTF-8"));
        let options = &told["options"];
        assert_eq!(options["allow_other"], true, "{told}");
        assert_eq!(options["read_only"], false, "{told}");
        assert_eq!(options["threads"], 3, "{told}");
        let up = told["uptime_seconds"].as_f64().expect("a number");
        assert!((0.0..2.0 * DEADLINE.as_secs_f64()).contains(&up), "{up}");
    }
    let mut here = command(Who::Root, dotlockfs());
    here.current_dir(one.join("sub")).args(["status", "."]);
    let said = finish(&mut here).success();
    assert!(
        said.starts_with(one.path().to_str().expect("UTF-8")),
        "{said}"
    );
    assert!(said.contains("  rules    2 rules in "), "{said}");
    assert!(said.contains("rw, allow_other, "), "{said}");

    let other = mount(two.path());
    assert_eq!(other["options"]["read_only"], true, "{other}");
    assert_eq!(
        other["rules"],
        serde_json::json!({"file": null, "count": 1})
    );
    let kind = shell(Who::Root, r#"findmnt -no FSTYPE -T "$1""#, &[source.path()]);
    assert_eq!(other["file_system"], kind.trim());
    // The kernel has it from remount; no daemon was told.
    shell(Who::Root, r#"mount -i -o remount,rw "$1""#, &[two.path()]);
    assert_eq!(mount(two.path())["options"]["read_only"], false);

    // Without a path both are there, among those of other tests.
    let all = json(&[OsStr::new("--json")]);
    for mount in [&one, &two] {
        let point = mount.path().to_str().expect("UTF-8");
        let mut points = all["mounts"].as_array().expect("a list").iter();
        assert!(points.any(|told| told["mountpoint"] == point), "{all}");
        let table = finish(command(Who::Root, dotlockfs()).arg("status")).stdout;
        assert!(table.trim_start().starts_with("UP "), "{table}");
        // Paths are cut in front.
        let end = &point[point.len() - 6..];
        assert!(table.contains(end), "{table}");
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
    }
    let said = refusal(status(&[source.path().as_os_str()]));
    assert!(said.contains("no dotlockfs is mounted there"), "{said}");
    let said = refusal(status(&[links.path().join("none").as_os_str()]));
    assert!(said.contains("No such file"), "{said}");
}

/// A script reads the names that are promised.
#[test]
fn the_json_is_what_the_help_says() {
    let world = World::new("");
    append(&world.one, "text");
    let said = status(&[OsStr::new("--json"), world.one.path().as_os_str()]).success();
    let help = finish(command(Who::Root, dotlockfs()).args(["status", "--help"])).success();
    let program = r#"
import json, re, sys
answer = json.loads(sys.argv[1])
told = set(re.findall(r'"(\w+)"', sys.argv[2]))
def names(value):
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner)
assert answer['format'] == 1 and len(answer['mounts']) == 1 and answer['problems'] == []
print(sorted(set(names(answer)) - told))
"#;
    let untold = python(Who::Root, program, &[Path::new(&said), Path::new(&help)]);
    assert_eq!(untold, "[]\n");
}

#[test]
fn breaks_lost_turns_and_fences_are_counted_and_said() {
    let source = directory();
    let rules = "version = 1\n[[guard]]\nfiles = [\"log\"]\nstale_after = \"4s\"\n";
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
    fs::write(source.path().join("log"), "").expect("write the log");
    let logs = directory();
    let log_of = |name: &str| logs.path().join(name);
    let one = Mount::logging(Who::Root, source.path(), &log_of("one"));
    let two = Mount::logging(Who::Root, source.path(), &log_of("two"));
    let mut holder = Program::on(&one);
    holder.does(LOCKS);
    let stopped = Stopped::new(one.daemon());
    append(&two, "after");
    let totals = mount(two.path())["totals"].clone();
    assert_eq!(
        (&totals["breaks"], &totals["fences"]),
        (&1.into(), &1.into())
    );
    let says = |name: &str, what: &str| {
        let text = || fs::read_to_string(log_of(name)).expect("read the log");
        let said = wait_until(DEADLINE, || text().contains(what));
        assert!(said, "{what:?} is not in: {}", text());
    };
    says("two", "log: broke turn 1 of dotlockfs on host ");
    says("two", "[event=break]");
    says(
        "two",
        "log: fenced after turn 1 was broken: 0 bytes were copied (fence 1) [event=fence]",
    );
    drop(stopped);
    let lost = || mount(one.path())["totals"]["turns_lost"] == 1;
    assert!(wait_until(DEADLINE, lost), "{}", mount(one.path()));
    says(
        "one",
        "log: turn 1 was ended by another host while programs on this one held the lock",
    );
    says("one", "[event=lost]");
}

#[test]
fn a_long_wait_is_said_once_and_refusals_not_too_often() {
    let source = directory();
    let rules = "version = 1\n[[guard]]\nfiles = [\"log\"]\n\
                 [[guard]]\nfiles = [\"fixed\"]\nupdate = \"deny\"\n";
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
    for name in ["log", "fixed"] {
        fs::write(source.path().join(name), "text\n").expect("write");
    }
    let logs = directory();
    let file = logs.path().join("log");
    let one = Mount::logging(Who::Root, source.path(), &file);
    let other = Mount::new(source.path());
    let said = |word: &str| {
        let text = fs::read_to_string(&file).expect("read the log");
        let lines = text
            .lines()
            .filter(|line| line.contains(&format!("[event={word}")));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut holder = Program::on(&other);
    holder.does(LOCKS);
    let mut waiter = Program::on(&one);
    let line = "open('log', 'a').write('more\\n')";
    waiter.begin(line);
    assert!(
        wait_until(DEADLINE, || !said("wait").is_empty()),
        "nothing is said"
    );

    let mut program = Program::on(&one);
    for _ in 0..5 {
        assert_eq!(program.ask("open('fixed', 'r+')"), "EROFS");
    }
    assert_eq!(mount(one.path())["totals"]["refused_denied"], 5);
    let denied = said("denied");
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert!(
        denied[0].contains("fixed: opened for writing, which its rule denies"),
        "{denied:?}"
    );

    program.does("f = open('log'); f.read()");
    holder.does("f.close()");
    assert_eq!(waiter.answer(line), "ok");
    let waits = said("wait");
    assert_eq!(waits.len(), 1, "{waits:?}");
    let expected = format!(
        "log: process {} has waited 5s for the lock, which is held by dotlockfs on host ",
        waiter.pid()
    );
    assert!(waits[0].contains(&expected), "{waits:?}");
    let expected = format!("pid {} [event=wait]", other.daemon());
    assert!(waits[0].ends_with(&expected), "{waits:?}");

    // It has read what another has changed since.
    program.does("open('new', 'w').write('mine\\n')");
    assert_eq!(program.ask("os.rename('new', 'log')"), "ESTALE");
    // The kernel asks once more where a path led to ESTALE.
    let refused = mount(one.path())["totals"]["refused_stale"].as_u64();
    assert!(
        refused.is_some_and(|count| (1..=2).contains(&count)),
        "{refused:?}"
    );
    assert!(
        said("stale")[0].contains("would replace a newer version"),
        "{:?}",
        said("stale")
    );
}

#[test]
fn only_root_and_the_owner_may_ask() {
    let home = home_of_a_user();
    let path = |name: &str| home.path().join(name);
    let run = Runtime::of(1000);
    let mut asked = command(ALICE, path("dotlockfs"));
    asked.env("XDG_RUNTIME_DIR", &run.0);
    asked.args([path("source"), path("mountpoint")]);
    let users = Mount::started_by(&mut asked, &path("mountpoint"));
    let roots = Mount::with(&path("source"), &["-o", "allow_other"]);
    let ask = |who: Who, arguments: &[&OsStr]| {
        let mut asked = command(who, path("dotlockfs"));
        asked.env("XDG_RUNTIME_DIR", &run.0).arg("status");
        finish(asked.args(arguments))
    };
    let (of_user, of_root) = (users.path().as_os_str(), roots.path().as_os_str());
    // Her own.
    let said = ask(ALICE, &[of_user]).success();
    assert!(
        said.starts_with(users.path().to_str().expect("UTF-8")),
        "{said}"
    );
    // (Another test has a mount of hers that has no socket.)
    let table = ask(ALICE, &[]).stdout;
    assert_eq!(table.lines().count(), 2, "only hers: {table}");
    // Root may ask both.
    ask(Who::Root, &[of_user]).success();
    ask(Who::Root, &[of_root]).success();
    // She may not ask root's, and Bob may ask neither.
    for (who, mount) in [(ALICE, of_root), (BOB, of_root), (BOB, of_user)] {
        let said = refusal(ask(who, &[mount]));
        assert!(
            said.contains("only root, and the user who has mounted it"),
            "{said}"
        );
    }
    // Also past the tool: by the mode; and where that lets everybody in, by who it is.
    let connects = r#"
import socket, sys
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
    print(len(client.recv(1)))
except (PermissionError, ConnectionResetError) as error:
    print(type(error).__name__)
"#;
    let socket = socket_of(roots.daemon());
    let connect = |who| python(who, connects, &[&socket]);
    assert_eq!(connect(Who::Root), "1\n");
    assert_eq!(connect(BOB), "PermissionError\n");
    let mode = fs::symlink_metadata(&socket)
        .expect("stat")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("chmod");
    let told = connect(BOB);
    assert!(
        ["0\n", "ConnectionResetError\n"].contains(&&*told),
        "{told}"
    );
    assert_eq!(connect(Who::Root), "1\n");
}

#[test]
fn without_a_runtime_directory_a_mount_works_and_says_so() {
    let home = home_of_a_user();
    let logs = directory();
    let log = logs.path().join("log");
    let mount = Mount::logging(ALICE, &home.path().join("source"), &log);
    shell(
        ALICE,
        r#"echo text > "$1"; cat "$1""#,
        &[&mount.join("file")],
    );
    let text = fs::read_to_string(&log).expect("read the log");
    let said = text
        .lines()
        .filter(|line| line.contains("no runtime directory"));
    assert_eq!(said.count(), 1, "{text}");
    let mut asked = command(ALICE, home.path().join("dotlockfs"));
    let said = refusal(finish(asked.arg("status").arg(mount.path())));
    assert!(said.contains("nobody answers for this mount"), "{said}");
}

#[test]
fn the_socket_of_a_killed_daemon_is_in_nobodys_way() {
    let source = directory();
    let place = directory();
    let mount = Mount::at(source.path(), place.path(), &[]);
    let daemon = mount.daemon();
    let socket = socket_of(daemon);
    send(daemon, libc::SIGKILL);
    let killed = wait_until(DEADLINE, || daemons(place.path()).is_empty());
    assert!(killed, "killed");
    assert!(socket.exists(), "it leaves its socket");
    let said = refusal(status(&[place.path().as_os_str()]));
    assert!(
        said.contains("the daemon of this mount has ended"),
        "{said}"
    );
    let all = json(&[OsStr::new("--json")]);
    let point = place.path().to_str().expect("UTF-8");
    let mut problems = all["problems"].as_array().expect("a list").iter();
    let ended = |line: &Value| {
        let line = line.as_str().expect("a line");
        line.starts_with(point) && line.contains("has ended")
    };
    assert!(problems.any(ended), "{all}");
    std::mem::forget(mount);
    let again = Mount::at(source.path(), place.path(), &[]);
    assert!(!socket.exists(), "the next mount removes it");
    assert_eq!(self::mount(place.path())["pid"], again.daemon());
    let socket = socket_of(again.daemon());
    again.unmount();
    assert!(!socket.exists(), "the end of a mount removes its own");
}

/// Whoever connects and does not go on holds up neither the mount nor those who ask. The answer is
/// longer than what a socket keeps for one who does not read.
#[test]
fn idle_clients_hold_nobody_up() {
    const FILES: usize = 900;
    let source = directory();
    let one = Mount::new(source.path());
    let mut program = Program::on(&one);
    let open = format!("files = [open('x' * 240 + str(n), 'a', 1) for n in range({FILES})]");
    program.does(&open);
    program.does("for file in files: file.write('text\\n')");
    let idle = r#"
import socket, sys
clients = []
for n in range(20):
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(sys.argv[1])
    except BlockingIOError:
        continue
    clients.append(client)
print('connected', flush=True)
sys.stdin.read()
"#;
    let socket = socket_of(one.daemon());
    let mut idle = common::talker::Talker::new(idle, &[&socket]);
    idle.hears("connected");
    let began = Instant::now();
    program.does("files[0].write('more\\n')");
    assert!(began.elapsed() < DEADLINE / 10, "{:?}", began.elapsed());
    // Each is given a second.
    let mut told = Value::Null;
    let answered = wait_until(DEADLINE, || {
        let asked = status(&[OsStr::new("--json"), one.path().as_os_str()]);
        told = serde_json::from_str(&asked.stdout).unwrap_or_default();
        told["mounts"][0]["guards_total"] == FILES
    });
    assert!(answered, "{told}");
    assert!(
        told.to_string().len() > 256 << 10,
        "an answer that is long enough"
    );
    let table = status(&[one.path().as_os_str()]).success();
    assert!(table.lines().count() < 40, "{table}");
    let left = format!("and {} more", FILES - 20);
    assert!(
        table
            .lines()
            .last()
            .is_some_and(|line| line.starts_with(&left)),
        "{table}"
    );
}

/// Names of all kinds come in lines that a terminal of 80 columns does not break, whose places stay.
#[test]
fn a_watch_stays_in_its_place_on_a_terminal() {
    let parent = directory();
    let long = parent
        .path()
        .join("directory-of-a-long-name".repeat(5))
        .join("and-more".repeat(9));
    fs::create_dir_all(&long).expect("mkdir");
    let one = Mount::new(&long);
    let names: [Vec<u8>; 4] = [
        b"two\nlines\x1b[2J".to_vec(),
        b"\xff\xfe".to_vec(),
        vec![b'n'; 255],
        "字".repeat(60).into_bytes(),
    ];
    for name in names {
        let path = one.join(OsStr::from_bytes(&name));
        shell(Who::Root, r#"echo text >> "$1""#, &[&path]);
    }
    let terminal = r#"
import fcntl, os, pty, re, select, signal, struct, sys, termios, time, unicodedata
def run(end, *arguments):
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 80, 0, 0))
        os.environ['TERM'] = 'xterm'
        os.execv(sys.argv[1], [sys.argv[1], 'status', '--watch', *arguments])
    text, deadline, ended = b'', time.monotonic() + 60, False
    while time.monotonic() < deadline:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                piece = os.read(fd, 65536)
            except OSError:
                break
            if not piece:
                break
            text += piece
        # The third look, when it is all there: an interrupt makes the terminal drop the rest.
        elif not ended and len(re.findall(rb'\x1b\[\d+A', text)) >= 3:
            ended = True
            end(fd)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, (status, text)
    return text.decode()
def width(line):
    return sum(2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in line)
def check(text):
    # What is left on the screen when all is written, by the three sequences that are used.
    screen, row = [], 0
    for part in re.findall(r'\x1b\[\d*[A-Za-z]|\r\n|\n|\r|[^\x1b\r\n]+', text):
        screen += [''] * (row + 1 - len(screen))
        if part in ('\r\n', '\n'):
            row += 1
        elif part == '\r':
            pass
        elif part == '\x1b[2K':
            screen[row] = ''
        elif part.endswith('A'):
            row -= int(part[2:-1])
        elif part in ('\x1b[J', '\x1b[0J'):
            del screen[row:]
        else:
            assert not part.startswith('\x1b'), part
            screen[row] += part
            assert width(screen[row]) <= 80, screen[row]
    return [line for line in screen if line]
interrupt = lambda fd: os.write(fd, b'\x03')
screen = check(run(interrupt, sys.argv[2]))
shown = '\n'.join(screen)
assert shown.count('STATE') == 1 and shown.count('  appends') == 1, shown
assert '/s)' in shown, shown
assert r'two\nlines' in shown and r'\xff\xfe' in shown and '字' in shown, shown
assert '...nnn' in shown, shown
listed = check(run(interrupt))
assert '\n'.join(listed).count('MOUNTPOINT') == 1, listed
# It ends with the mount, too.
check(run(lambda fd: os.system('umount ' + sys.argv[2]), sys.argv[2]))
print('good')
"#;
    let said = python(Who::Root, terminal, &[&dotlockfs(), one.path()]);
    assert_eq!(said, "good\n");
}

/// Where nobody looks at a terminal it comes in blocks, or as a line of JSON each second.
#[test]
fn a_watch_can_be_piped() {
    let source = directory();
    let one = Mount::new(source.path());
    let script = r#"timeout 60 "$1" status --watch "$2" | grep -m 3 -c '  appends'
        timeout 60 "$1" status --watch --json "$2" | head -n 2 | python3 -c '
import json, sys
print([json.loads(line)["mounts"][0]["pid"] for line in sys.stdin])'"#;
    let said = shell(Who::Root, script, &[&dotlockfs(), one.path()]);
    let pid = one.daemon();
    assert_eq!(said, format!("3\n[{pid}, {pid}]\n"));
}

#[test]
fn metrics_are_what_a_collector_understands() {
    let source = directory();
    let one = Mount::with(source.path(), &["--metrics", "0"]);
    let address = mount(one.path())["options"]["metrics"].clone();
    let address = address.as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let scrape = r#"
import sys, urllib.request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
def scrape():
    with urllib.request.urlopen(f'http://{sys.argv[1]}/metrics', timeout=60) as answer:
        kind = answer.headers['Content-Type']
        assert kind.startswith('application/openmetrics-text; version=1.0.0'), kind
        families = list(parse(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, *sorted(s.labels.items())): s.value for s in samples}
before = scrape()
info = [dict(key[1:]) for key in before if key[0] == 'dotlockfs_mount_info']
assert info[0]['mountpoint'] == sys.argv[2] and info[0]['source'] == sys.argv[3], info
with open(sys.argv[2] + '/log', 'a', 1) as log:
    for n in range(20):
        log.write('text\n')
    held = scrape()
after = scrape()
rise = lambda *key: after[key] - before[key]
assert rise('dotlockfs_appends_total',) == 20, after
assert rise('dotlockfs_appended_bytes_total',) == 100
assert rise('dotlockfs_turns_total',) >= 1
assert rise('dotlockfs_wait_seconds_count',) >= 20
assert rise('dotlockfs_calls_total', ('call', 'write')) >= 1
assert after['dotlockfs_wait_seconds_bucket', ('le', '+Inf')] == after['dotlockfs_wait_seconds_count',]
guards = lambda seen: sum(seen['dotlockfs_guards', ('state', s)] for s in ('free', 'held', 'waiting'))
assert (guards(before), guards(held)) == (0, 1)
# One series more for each file would be too many.
assert set(before) == set(after)
print('good')
"#;
    let (point, from) = (one.path(), source.path());
    let said = finish(
        command(Who::Root, "/usr/bin/python3")
            .args(["-Bc", scrape, address])
            .args([point, from]),
    );
    assert_eq!(said.success(), "good\n");

    // Whoever says nothing, or nonsense, is in nobody's way.
    let others = r#"
import http.client, socket, sys
host, port = sys.argv[1].split(':')
silent = [socket.create_connection((host, port)) for n in range(5)]
def ask(method, path):
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, len(answer.read()) > 0
print(ask('GET', '/metrics'), ask('HEAD', '/metrics'), ask('GET', '/'), ask('POST', '/metrics'))
for text in [b'\r\n\r\n', b'nonsense\r\n\r\n', b'GET /metrics', b'GET / HTTP/1.1\r\n' + b'x' * 20000]:
    bad = socket.create_connection((host, port))
    try:
        bad.sendall(text)
        bad.shutdown(socket.SHUT_WR)
        assert bad.recv(1) == b''
    except OSError:
        # It may have closed before all was sent.
        pass
for one in silent:
    one.settimeout(60)
    try:
        assert one.recv(1) == b''
    except ConnectionResetError:
        pass
print(ask('GET', '/metrics'))
"#;
    let said = python(Who::Root, others, &[Path::new(address)]);
    assert_eq!(
        said,
        "(200, True) (200, False) (404, True) (405, False)\n(200, True)\n"
    );

    // What is taken is told before anything is mounted.
    let place = directory();
    for arguments in [
        ["--metrics", address],
        ["-o", &format!("metrics={address}")],
    ] {
        let mut second = command(Who::Root, dotlockfs());
        second.args([source.path(), place.path()]).args(arguments);
        let said = refusal(finish(&mut second));
        let expected = format!("{address}: cannot serve metrics there: Address already in use");
        assert!(said.contains(&expected), "{said}");
        assert!(!common::is_mounted(place.path()));
    }
    let mut wrong = command(Who::Root, dotlockfs());
    wrong
        .args([source.path(), place.path()])
        .args(["--metrics", "host"]);
    let said = finish(&mut wrong);
    assert_eq!(said.status.code(), Some(2));
    assert!(said.stderr.contains("it may be a port"), "{}", said.stderr);
}

/// A daemon that does not run cannot answer; it is waited for no longer than a while.
#[test]
fn a_stopped_daemon_is_not_waited_for() {
    let source = directory();
    let one = Mount::new(source.path());
    let stopped = Stopped::new(one.daemon());
    let began = Instant::now();
    let said = refusal(status(&[one.path().as_os_str()]));
    assert!(said.contains("does not answer; is it stopped?"), "{said}");
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    drop(stopped);
    assert_eq!(mount(one.path())["pid"], one.daemon());
}

/// A runtime directory that would lie in the mount: nobody answers there while it is being mounted, and
/// a socket would keep it from being unmounted.
#[test]
fn a_runtime_directory_below_the_mount_is_left_alone() {
    let home = home_of_a_user();
    let path = |name: &str| home.path().join(name);
    let point = path("mountpoint");
    fs::create_dir(point.join("run")).expect("mkdir");
    chown(point.join("run"), Some(1000), Some(1000)).expect("chown");
    let mut asked = command(ALICE, path("dotlockfs"));
    asked.args([path("source"), point.clone()]);
    let unmount = || {
        let unmounted = shell(ALICE, r#"fusermount3 -u "$1" && echo good"#, &[&point]);
        assert_eq!(unmounted, "good\n");
        assert!(wait_until(DEADLINE, || daemons(&point).is_empty()));
    };
    for given in ["run", "run/none", "."] {
        finish(asked.env("XDG_RUNTIME_DIR", point.join(given))).success();
        assert!(common::is_mounted(&point));
        let seen = shell(ALICE, r#"ls -A "$1""#, &[&point]);
        assert_eq!(seen, "", "{given}");
        unmount();
    }
    let log = home.path().join("log");
    let file = fs::File::create(&log).expect("make the log");
    let mut daemon = asked.arg("-f").stderr(file).spawn().expect("it starts");
    let read = || fs::read_to_string(&log).expect("read the log");
    let mounted = wait_until(DEADLINE, || read().contains("is mounted at"));
    assert!(mounted, "{}", read());
    unmount();
    assert!(common::end_of(&mut daemon, "the daemon").success());
    let said = read();
    assert_eq!(said.matches("no socket").count(), 1, "{said}");
    assert!(said.contains("lies in the mount itself"), "{said}");
}

/// The port is free as soon as the mount has gone, whatever its daemon still has to do.
#[test]
fn a_mount_may_follow_another_at_the_same_port() {
    let source = directory();
    let place = directory();
    let first = Mount::at(source.path(), place.path(), &["--metrics", "0"]);
    let address = mount(place.path())["options"]["metrics"].clone();
    let address = address.as_str().expect("an address");
    for _ in 0..2 {
        // What a collector has open is in nobody's way.
        let _open = std::net::TcpStream::connect(address).expect("connect");
        common::unmount_at(place.path());
        let next = Mount::at(source.path(), place.path(), &["--metrics", address]);
        std::mem::forget(next);
        assert_eq!(mount(place.path())["options"]["metrics"], address);
    }
    drop(first);
}

/// Root asks only the daemons of mounts that the kernel knows to be that user's, and shows nothing of
/// what they say that a terminal would obey.
#[test]
fn a_user_cannot_tell_root_of_mounts_of_others() {
    // Somebody of /etc/passwd, as fusermount3 asks for, with whom no other test has to do: "daemon".
    const USER: u32 = 1;
    const SOMEBODY: Who = Who::User {
        id: USER,
        groups: &[],
    };
    common::require_program("fusermount3", "fuse3");
    let roots_source = directory();
    let roots = Mount::new(roots_source.path());
    let truth = mount(roots.path());
    let source = directory();
    chown(source.path(), Some(USER), Some(USER)).expect("chown");
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("chmod");
    let logs = directory();
    // It has no runtime directory, so the socket is ours to make.
    let users = Mount::logging(SOMEBODY, source.path(), &logs.path().join("log"));
    let run = Runtime::of(USER);
    // (Root may not look at the mount itself.)
    let find = r#"awk -v point="$1" '$5 == point { print $3 }' /proc/self/mountinfo"#;
    let device = shell(Who::Root, find, &[users.path()]);
    let device_of_user = device.trim();
    let server = r#"
import os, socket, sys
os.makedirs(sys.argv[1], 0o700, exist_ok=True)
path = sys.argv[1] + '/' + sys.argv[2].replace(':', '-') + '.1.sock'
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
while True:
    try:
        client = listener.accept()[0]
        client.sendall(sys.argv[3].encode())
        client.close()
    except OSError:
        pass
"#;
    let sockets = run.0.join("dotlockfs");
    let serves = |device: &str, answer: &Value| {
        let mut served = command(SOMEBODY, "/usr/bin/python3");
        served.args(["-Bc", server]).arg(&sockets);
        let served = served.args([device, &answer.to_string()]).spawn();
        let name = format!("{}.1.sock", device.replace(':', "-"));
        let served = Server(served.expect("python3 starts"), sockets.join(name));
        assert!(wait_until(DEADLINE, || served.1.exists()), "{served:?}");
        served
    };
    let told = |device: &str, uid: u32| {
        let mut told = truth.clone();
        told["device"] = device.into();
        told["uid"] = uid.into();
        told["uptime_seconds"] = 0.0.into();
        told["mountpoint"] = "forged\u{1b}[2J\u{9b}".into();
        told["source"] = r"a\nb".into();
        told["version"] = "1\n\u{7}".into();
        told["file_system"] = "\u{1b}c".into();
        told["guards_total"] = 1.into();
        let holder = serde_json::json!({"kind": "other", "host": "\u{1b}[H", "pid": 1});
        told["guards"] = serde_json::json!([{"file": "\u{1b}]0;x\u{7}", "state": "waiting",
            "holder": holder, "queued": 1, "waited_seconds": 1.0}]);
        told
    };
    let all = || finish(command(Who::Root, dotlockfs()).arg("status")).stdout;

    // In the name of root's mount.
    let of_root = truth["device"].as_str().expect("a device");
    for uid in [0, USER] {
        let _server = serves(of_root, &told(of_root, uid));
        assert_eq!(mount(roots.path())["pid"], roots.daemon());
        let table = all();
        assert!(!table.contains("forged"), "{table}");
    }
    // Behind the user's own mount, about another one, or as somebody else.
    for (device, uid) in [(of_root, USER), (of_root, 0), (device_of_user, 0)] {
        let _server = serves(device_of_user, &told(device, uid));
        let said = refusal(status(&[users.path().as_os_str()]));
        assert!(said.contains("tells of another mount"), "{said}");
        let table = all();
        assert!(!table.contains("forged"), "{table}");
    }
    // And what is believed is not printed as it is.
    let printed = |said: &str| {
        let obeyed = said.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(obeyed, None, "{said:?}");
    };
    let server = serves(device_of_user, &told(device_of_user, USER));
    let said = status(&[users.path().as_os_str()]).success();
    printed(&said);
    assert!(said.starts_with("forged\u{fffd}[2J\u{fffd}\n"), "{said}");
    assert!(said.contains(r"source   a\nb ("), "{said}");
    let table = all();
    assert!(table.contains("forged"), "{table}");
    printed(&table);
    drop(server);
    let mut other = told(device_of_user, USER);
    other["guards"][0]["state"] = "\u{1b}[2J".into();
    let _server = serves(device_of_user, &other);
    let said = refusal(status(&[users.path().as_os_str()]));
    assert!(said.contains("is of another version"), "{said}");
    printed(&said);
}

/// A rule file that comes later is told of when its rules are in force, and not before.
#[test]
fn a_rule_file_that_comes_later_is_named() {
    let source = directory();
    let one = Mount::new(source.path());
    let none = serde_json::json!({"file": null, "count": 0});
    assert_eq!(mount(one.path())["rules"], none);
    let file = source.path().join(".dotlockfs.toml");
    fs::write(&file, "version = 1\n[[guard]]\nfiles = [\"*.log\"]\n").expect("write the rules");
    assert_eq!(mount(one.path())["rules"], none);
    send(one.daemon(), libc::SIGHUP);
    let expected = serde_json::json!({"file": file.to_str().expect("UTF-8"), "count": 1});
    let named = wait_until(DEADLINE, || mount(one.path())["rules"] == expected);
    assert!(named, "{}", mount(one.path()));
    let said = status(&[one.path().as_os_str()]).success();
    assert!(said.contains("  rules    1 rule in "), "{said}");
}

/// A program of a user that answers at a socket, both of which go with this value.
#[derive(Debug)]
struct Server(std::process::Child, PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(&self.1);
    }
}

/// Runs `dotlockfs status` as root.
fn status(arguments: &[&OsStr]) -> Finished {
    finish(
        command(Who::Root, dotlockfs())
            .arg("status")
            .args(arguments),
    )
}

/// What it has written, as JSON, whatever its exit status: other tests have mounts of all kinds.
#[track_caller]
fn json(arguments: &[&OsStr]) -> Value {
    let said = status(arguments);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// What is told of one mount.
#[track_caller]
fn mount(path: &Path) -> Value {
    let said = status(&[OsStr::new("--json"), path.as_os_str()]).success();
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    answer["mounts"][0].clone()
}

/// What is told of the guard of a file.
#[track_caller]
fn guard(path: &Path, file: &str) -> Value {
    let told = mount(path);
    let mut guards = told["guards"].as_array().expect("a list").iter();
    guards
        .find(|guard| guard["file"] == file)
        .cloned()
        .unwrap_or_default()
}

/// The one line of an error.
#[track_caller]
fn refusal(said: Finished) -> String {
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(said.stdout, "", "{said:?}");
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    said.stderr
}

/// The socket of one of root's daemons.
#[track_caller]
fn socket_of(daemon: u32) -> PathBuf {
    let end = format!(".{daemon}.sock");
    let mut entries = fs::read_dir("/run/dotlockfs").expect("the directory of sockets");
    let found = entries.find_map(|entry| {
        let path = entry.expect("entry").path();
        path.as_os_str()
            .as_bytes()
            .ends_with(end.as_bytes())
            .then_some(path)
    });
    found.expect("the daemon has a socket")
}

/// The runtime directory of a user, which is made where there is none, and goes then.
struct Runtime(PathBuf);

impl Runtime {
    fn of(uid: u32) -> Runtime {
        require_root();
        let dir = Path::new("/run/user").join(uid.to_string());
        fs::create_dir_all(&dir).expect("mkdir");
        chown(&dir, Some(uid), Some(uid)).expect("chown");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("chmod");
        Runtime(dir)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("dotlockfs"));
        let _ = fs::remove_dir(&self.0);
    }
}
