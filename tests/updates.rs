//! Updates: programs that write to a file where it is, that put another in its place, and that
//! lock it meanwhile. Two mounts of one directory stand for two hosts, as in `tests/appends.rs`.

mod common;

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use common::faults::Faults;
use common::{DEADLINE, Mount, Who, command, daemons, directory, finish, send, wait_until};
use tempfile::TempDir;

/// How long a call must have been under way, unanswered, to count as one that waits. If it would
/// not wait it is answered in a fraction of this.
const WAITS: Duration = Duration::from_millis(200);

/// A directory that is mounted twice.
struct World {
    one: Mount,
    two: Mount,
    source: TempDir,
}

impl World {
    /// Guards the files whose names are one character long; all others are programs' own.
    fn new(keys: &str) -> World {
        World::guarding("?", keys)
    }

    fn guarding(files: &str, keys: &str) -> World {
        let source = directory();
        let rules = format!("version = 1\n[[guard]]\nfiles = [\"{files}\"]\n{keys}\n");
        fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
        World {
            one: Mount::new(source.path()),
            two: Mount::new(source.path()),
            source,
        }
    }

    /// Makes a file before anybody looks.
    fn with(self, name: &str, text: &str) -> World {
        fs::write(self.path(name), text).expect("write");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.source.path().join(name)
    }

    /// What a file holds, past dotlockfs.
    #[track_caller]
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    /// Runs shell scripts or programs on both mounts, `count` on each, all at the same time; all
    /// must succeed. Gives what each has printed. `$1` or `sys.argv[1]` is the mount, the next word
    /// is a name of its own.
    #[track_caller]
    fn all(&self, count: usize, interpreter: &[&str], program: &str) -> Vec<String> {
        thread::scope(|scope| {
            let mut running = Vec::new();
            for (host, mount) in [("one", &self.one), ("two", &self.two)] {
                for i in 0..count {
                    let mut command = alone(interpreter[0]);
                    command.args(&interpreter[1..]).arg(program);
                    if interpreter[0] == "sh" {
                        command.arg("sh");
                    }
                    command.arg(mount.path()).arg(format!("{host}{i}"));
                    running.push(scope.spawn(move || finish(&mut command).success()));
                }
            }
            let join = |run: thread::ScopedJoinHandle<String>| run.join().expect("it succeeds");
            running.into_iter().map(join).collect()
        })
    }

    #[track_caller]
    fn all_python(&self, count: usize, program: &str) -> Vec<String> {
        let program = format!("{PRELUDE}{program}");
        self.all(count, &["python3", "-B", "-c"], &program)
    }

    /// The names below the source, past dotlockfs, that are neither a program's nor among those
    /// that may stay.
    fn left(&self, may_stay: &[&str]) -> Vec<String> {
        let mut left = Vec::new();
        let mut next = vec![self.source.path().to_owned()];
        while let Some(path) = next.pop() {
            for entry in fs::read_dir(path).expect("a directory").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_aside = name.starts_with('.') && name != ".dotlockfs.toml"
                    || name.ends_with(".lock")
                    || name.ends_with(".tmp");
                if entry.file_type().expect("a type").is_dir() {
                    next.push(entry.path());
                } else if is_aside && !may_stay.iter().any(|step| name.contains(step)) {
                    left.push(name);
                }
            }
        }
        left
    }

    /// Unmounts, and looks whether anything is left of the protocol that should not be. The names
    /// of a turn go some seconds after it, if dotlockfs is still there.
    #[track_caller]
    fn end(self) {
        let World { one, two, .. } = &self;
        for mount in [one, two] {
            mount.end();
        }
        let left = self.left(&[".turn.", ".done."]);
        assert!(left.is_empty(), "{left:?}");
    }

    /// The same after the time in which all names go but one for each file.
    #[track_caller]
    fn end_at_rest(self) {
        let at_rest = wait_until(DEADLINE, || self.left(&[".done."]).is_empty());
        assert!(at_rest, "{:?}", self.left(&[".done."]));
        self.end();
    }
}

/// A program in a session of its own: what others read does not count for it.
fn alone(program: &str) -> Command {
    let mut command = command(Who::Root, "setsid");
    command.arg(program);
    command
}

/// Runs a shell script in a session of its own, with `$1` and so on; it must succeed.
#[track_caller]
fn script(text: &str, arguments: &[&Path]) -> String {
    let mut command = alone("sh");
    command.args(["-euc", text, "sh"]).args(arguments);
    finish(&mut command).success()
}

/// What the Python programs here have in common.
const PRELUDE: &str = r#"
import ctypes, errno, fcntl, json, os, signal, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)

def read(name):
    with open(name) as file:
        return file.read()

def write(descriptor, text):
    os.lseek(descriptor, 0, os.SEEK_SET)
    assert os.write(descriptor, text.encode()) == len(text)

def replace(name, text, move=os.replace):
    aside = f"{name}.{os.getpid()}.tmp"
    with open(aside, "w") as file:
        file.write(text)
    try:
        move(aside, name)
    except OSError:
        os.remove(aside)
        raise

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def rename(old, new, flags):
    AT_FDCWD = -100
    checked(libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))
"#;

/// Does what it is told, line by line: expressions are answered with their values, calls that fail
/// with the name of the error.
const AGENT: &str = r#"
import ast
names = errno.errorcode | {errno.EDEADLK: "EDEADLK"}
# Whoever runs the tests may ignore it, as a shell does for what it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
for line in sys.stdin:
    text = ast.literal_eval(line)
    print("began", flush=True)
    try:
        try:
            code = compile(text, "agent", "eval")
        except SyntaxError:
            code = compile(text, "agent", "exec")
        result = eval(code)
        answer = "ok" if result is None else repr(result)
    except OSError as error:
        answer = names[error.errno]
    except KeyboardInterrupt:
        answer = "interrupted"
    print("is", answer, flush=True)
"#;

/// A program that does one thing after another, as the test tells it.
struct Agent {
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
    busy: Cell<bool>,
    /// An answer that was waited for and not taken.
    early: Cell<Option<String>>,
}

impl Agent {
    /// A Python program in a session of its own, with the mount as its working directory.
    #[track_caller]
    fn new(mount: &Mount) -> Agent {
        let mut command = alone("python3");
        command
            .args(["-B", "-c", &format!("{PRELUDE}{AGENT}")])
            .current_dir(mount.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts");
        let output = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
                if line.map(|line| sender.send(line)).is_err() {
                    return;
                }
            }
        });
        Agent {
            orders: child.stdin.take().expect("piped"),
            child,
            lines,
            busy: Cell::new(false),
            early: Cell::new(None),
        }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("an answer")
    }

    /// Lets it begin something.
    #[track_caller]
    fn begin(&self, code: &str) {
        assert!(!self.busy.replace(true), "it has not answered yet");
        writeln!(&self.orders, "{code:?}").expect("it listens");
        assert_eq!(self.line(), "began", "{code}");
    }

    /// What came of what it has begun.
    #[track_caller]
    fn answer(&self) -> String {
        assert!(self.busy.replace(false), "it was not asked");
        let line = self.early.take().unwrap_or_else(|| self.line());
        line.strip_prefix("is ").expect("an answer").to_owned()
    }

    /// Whether it answers in that time.
    fn answers_within(&self, time: Duration) -> bool {
        if let Ok(line) = self.lines.recv_timeout(time) {
            self.early.set(Some(line));
            return true;
        }
        false
    }

    /// Sends a signal to what it waits in, until that has ended: the first may come before it has
    /// begun.
    #[track_caller]
    fn interrupt(&self, signal: i32) -> String {
        let ended = wait_until(DEADLINE, || {
            send(self.child.id(), signal);
            self.answers_within(Duration::from_secs(1))
        });
        assert!(ended, "it goes on");
        self.answer()
    }

    /// Does something, and gives what came of it.
    #[track_caller]
    fn ask(&self, code: &str) -> String {
        self.begin(code);
        self.answer()
    }

    /// Does something that must succeed.
    #[track_caller]
    fn does(&self, code: &str) {
        assert_eq!(self.ask(code), "ok", "{code}");
    }

    /// Begins something that has to wait.
    #[track_caller]
    fn waits(&self, code: &str) {
        self.begin(code);
        self.still_waits();
    }

    #[track_caller]
    fn still_waits(&self) {
        match self.lines.recv_timeout(WAITS) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("it does not wait: {other:?}"),
        }
    }

    /// Opens a file to write to it, as `x`.
    #[track_caller]
    fn opens(&self, name: &str) {
        self.does(&format!("x = os.open({name:?}, os.O_RDWR)"));
    }

    #[track_caller]
    fn closes(&self) {
        self.does("os.close(x)");
    }

    /// Ends it without letting it do anything.
    #[track_caller]
    fn kill(mut self) {
        send(self.child.id(), libc::SIGKILL);
        let status = self.child.wait().expect("a child");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

mod in_place {
    use super::*;

    fn world() -> World {
        World::new("update = \"open\"").with("f", "old")
    }

    #[test]
    fn counters_are_exact() {
        let world = World::new("update = \"open\"\nlock_timeout = \"5min\"").with("n", "0");
        let counter = r#"
os.chdir(sys.argv[1])
for i in range(100):
    with open("n", "r+") as file:
        n = int(file.read())
        file.seek(0)
        file.write(str(n + 1))
    # The first who comes makes this one.
    descriptor = os.open("m", os.O_RDWR | os.O_CREAT)
    n = int(os.read(descriptor, 100) or b"0")
    write(descriptor, str(n + 1))
    os.close(descriptor)
"#;
        world.all_python(2, counter);
        assert_eq!(
            (world.text("n"), world.text("m")),
            ("400".into(), "400".into())
        );
        world.end();
    }

    #[test]
    fn others_wait_until_the_last_close() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        b.waits("x = os.open('f', os.O_RDWR); seen = os.read(x, 100)");
        c.waits("x = os.open('f', os.O_WRONLY); seen = read('f')");
        // Another descriptor keeps it.
        a.does("y = os.dup(x)");
        a.closes();
        b.still_waits();
        c.still_waits();
        a.does("write(y, 'new'); os.close(y)");
        // One of them gets it, and the other when that one is ready.
        let mut order = [&b, &c];
        let has_answered = |agent: &Agent| agent.answers_within(Duration::from_millis(5));
        let answered = wait_until(DEADLINE, || {
            order.reverse();
            has_answered(order[0])
        });
        assert!(answered, "neither gets it");
        let [first, other] = order;
        assert_eq!(first.answer(), "ok");
        other.still_waits();
        first.closes();
        assert_eq!(other.answer(), "ok");
        assert_eq!(
            (first.ask("seen"), other.ask("seen"))
                .0
                .trim_matches(['b', '\'']),
            "new"
        );
        assert_eq!(other.ask("seen").trim_matches(['b', '\'']), "new");
        other.closes();
        drop((a, b, c));
        world.end();
    }

    #[test]
    fn an_inherited_descriptor_keeps_the_lock() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        a.does("hear, tell = os.pipe()");
        a.does(concat!(
            "child = os.fork()\n",
            "if child == 0:\n",
            "    os.close(tell)\n",
            "    os.read(hear, 1)\n",
            "    write(x, 'kid')\n",
            "    os._exit(0)\n",
            "os.close(x)"
        ));
        b.waits("x = os.open('f', os.O_RDWR); seen = os.read(x, 100); os.close(x)");
        c.waits("x = os.open('f', os.O_RDWR); seen = os.read(x, 100); os.close(x)");
        a.does("os.close(tell)");
        assert_eq!((b.answer(), c.answer()), ("ok".into(), "ok".into()));
        assert_eq!(
            (b.ask("seen"), c.ask("seen")),
            ("b'kid'".into(), "b'kid'".into())
        );
        drop((a, b, c));
        world.end();
    }

    #[test]
    fn who_does_not_want_to_wait_need_not() {
        let world = World::new("update = \"open\"\nlock_timeout = \"1s\"").with("f", "old");
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        for other in [&b, &c] {
            assert_eq!(
                other.ask("os.open('f', os.O_RDWR | os.O_NONBLOCK)"),
                "EAGAIN"
            );
            let began = Instant::now();
            assert_eq!(other.ask("os.open('f', os.O_RDWR)"), "EAGAIN");
            assert!(
                began.elapsed() >= Duration::from_secs(1),
                "it has not waited"
            );
        }
        a.closes();
        for other in [&b, &c] {
            // The close is on its way.
            let open = "x = os.open('f', os.O_RDWR)";
            assert!(wait_until(DEADLINE, || other.ask(open) == "ok"));
            other.closes();
        }
        drop((a, b, c));
        world.end();
    }

    #[test]
    fn signals_end_the_waiting() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        for other in [&b, &c] {
            other.waits("os.open('f', os.O_RDWR)");
            assert_eq!(other.interrupt(libc::SIGINT), "interrupted");
            other.does("handled = signal.signal(signal.SIGUSR1, lambda *_: None) and None");
            // Python itself would try again.
            other.waits("checked(libc.open(b'f', os.O_RDWR))");
            assert_eq!(other.interrupt(libc::SIGUSR1), "EINTR");
        }
        // Nor does it keep a program from being killed.
        c.waits("os.open('f', os.O_RDWR)");
        c.kill();
        b.waits("x = os.open('f', os.O_RDWR)");
        a.kill();
        assert_eq!(b.answer(), "ok");
        b.closes();
        drop(b);
        world.end();
    }

    #[test]
    fn a_killed_holder_frees_the_file_for_another_host() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.opens("f");
        b.waits("x = os.open('f', os.O_RDWR)");
        a.kill();
        assert_eq!(b.answer(), "ok");
        b.closes();
        drop(b);
        world.end();
    }

    #[test]
    fn a_program_does_not_wait_for_itself_or_its_family() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.opens("f");
        a.does("y = os.open('f', os.O_RDWR | os.O_NONBLOCK)");
        a.does("write(y, 'two')");
        assert_eq!(a.ask("os.lseek(x, 0, 0), os.read(x, 10)"), "(0, b'two')");
        a.does("import threading; z = []");
        a.does(concat!(
            "t = threading.Thread(target=lambda: z.append(os.open('f', os.O_WRONLY)))\n",
            "t.start(); t.join(); os.close(z[0])"
        ));
        a.does("os.close(y)");
        b.waits("x = os.open('f', os.O_RDWR)");
        a.does("assert subprocess.call(['sh', '-c', 'echo kid >f']) == 0");
        b.still_waits();
        a.closes();
        assert_eq!(b.answer(), "ok");
        assert_eq!(b.ask("os.read(x, 10)"), r"b'kid\n'");
        b.closes();
        drop((a, b));

        script(
            r#"cd "$1"; exec 9<>f; sh -c 'echo x >f'; cat <&9; sh -c 'echo y >>f'; exec 9>&-"#,
            &[world.one.path()],
        );
        assert_eq!(world.text("f"), "x\ny\n");
        world.end();
    }

    #[test]
    fn children_of_one_parent_are_strangers() {
        let world = world();
        let family = r#"
os.chdir(sys.argv[1])
opened, done = os.pipe(), os.pipe()
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid

def hold():
    descriptor = os.open("f", os.O_RDWR)
    os.write(opened[1], b"!")
    os.close(done[1])
    os.read(done[0], 1)

def attempt():
    try:
        os.open("f", os.O_RDWR | os.O_NONBLOCK)
        print("opened")
    except OSError as error:
        print(errno.errorcode[error.errno])
    sys.stdout.flush()

one = child(hold)
os.read(opened[0], 1)
os.waitpid(child(attempt), 0)
os.close(done[1])
os.waitpid(one, 0)
"#;
        let program = format!("{PRELUDE}{family}");
        let mut command = alone("python3");
        command.args(["-B", "-c", &program]).arg(world.one.path());
        assert_eq!(finish(&mut command).success(), "EAGAIN\n");
        world.end();
    }

    #[test]
    fn reading_never_waits() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        for reader in [&a, &b, &c] {
            assert_eq!(reader.ask("read('f')"), "'old'");
            assert_eq!(reader.ask("os.stat('f').st_size"), "3");
        }
        // What was written is seen at once, here and there.
        a.does("write(x, 'newer')");
        for reader in [&a, &b, &c] {
            assert_eq!(reader.ask("read('f')"), "'newer'");
        }
        a.closes();
        drop((a, b, c));
        world.end();
    }

    #[test]
    fn files_are_made_under_the_lock() {
        let world = World::new("update = \"open\"");
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.does("x = os.open('f', os.O_RDWR | os.O_CREAT)");
        b.waits("x = os.open('f', os.O_RDWR | os.O_CREAT); seen = os.read(x, 10); os.close(x)");
        c.waits("x = os.open('f', os.O_RDWR | os.O_CREAT); seen = os.read(x, 10); os.close(x)");
        a.does("write(x, 'made')");
        a.closes();
        assert_eq!((b.answer(), c.answer()), ("ok".into(), "ok".into()));
        assert_eq!(
            (b.ask("seen"), c.ask("seen")),
            ("b'made'".into(), "b'made'".into())
        );
        assert_eq!(
            c.ask("os.open('f', os.O_RDWR | os.O_CREAT | os.O_EXCL)"),
            "EEXIST"
        );
        drop((a, b, c));
        world.end();
    }

    #[test]
    fn truncation_waits_for_the_lock() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        b.waits("os.truncate('f', 1)");
        c.waits("subprocess.call(['sh', '-c', 'echo x >f'])");
        assert_eq!(world.text("f"), "old");
        b.still_waits();
        assert_eq!(a.ask("os.read(x, 10)"), "b'old'");
        a.closes();
        assert_eq!((b.answer(), c.answer()), ("ok".into(), "0".into()));
        assert!(
            matches!(&*world.text("f"), "x\n" | "x"),
            "{:?}",
            world.text("f")
        );
        drop((a, b, c));
        world.end();
    }

    #[test]
    fn the_holder_may_put_another_in_its_place() {
        let world = world();
        let b = Agent::new(&world.two);
        script(
            r#"cd "$1"; exec 9<>f; echo new >f.tmp; mv f.tmp f; cat f; exec 9>&-"#,
            &[world.one.path()],
        );
        assert_eq!(
            (world.text("f"), b.ask("read('f')")),
            ("new\n".into(), r"'new\n'".into())
        );

        let a = Agent::new(&world.one);
        a.opens("f");
        b.waits("x = os.open('f', os.O_RDWR); seen = os.read(x, 10); os.close(x)");
        a.does("replace('f', 'newest')");
        b.still_waits();
        a.closes();
        assert_eq!(b.answer(), "ok");
        assert_eq!(b.ask("seen"), "b'newest'");
        drop((a, b));
        world.end();
    }

    /// The kernel lets only one program at a time write to a file of the mount: while an append
    /// waits for the holder, the holder must not have to wait for it.
    #[test]
    fn an_append_that_waits_does_not_hold_up_the_holder() {
        let world = World::new("update = \"open\"").with("f", "old");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.one));
        a.opens("f");
        b.waits("with open('f', 'a') as file: file.write('here')");
        a.does("write(x, 'new')");
        a.closes();
        assert_eq!(b.answer(), "ok");
        assert_eq!(world.text("f"), "newhere");
        drop((a, b));
        world.end();
    }

    #[test]
    fn of_two_who_wait_for_each_other_one_is_told_so() {
        let world = world().with("g", "old");
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("f");
        b.opens("g");
        a.waits("y = os.open('g', os.O_RDWR)");
        // Nothing is wrong yet.
        b.begin("y = os.open('f', os.O_RDWR)");
        assert_eq!(b.answer(), "EDEADLK");
        a.still_waits();
        b.closes();
        assert_eq!(a.answer(), "ok");
        c.waits("os.open('g', os.O_RDWR) and None");
        drop(a);
        assert_eq!(c.answer(), "ok");
        drop((b, c));
        world.end();
    }
}

mod atomic {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn world() -> World {
        World::new("update = \"atomic\"").with("f", "old")
    }

    #[test]
    fn others_see_the_old_content_until_the_close() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        let see = |content: &str| {
            for reader in [&b, &c] {
                assert_eq!(reader.ask("read('f')"), content);
                assert_eq!(reader.ask("os.listdir()").matches(", ").count(), 1);
            }
        };
        for open in [
            "x = os.open('f', os.O_WRONLY | os.O_TRUNC)",
            "x = os.open('f', os.O_RDWR); os.truncate(x, 1)",
            "x = os.open('f', os.O_RDWR); write(x, 'else')",
        ] {
            see("'old'");
            b.does("r = open('f')");
            a.does(open);
            see("'old'");
            a.does("write(x, 'new')");
            a.does("os.fsync(x)");
            see("'old'");
            a.does("write(x, 'newest'); os.ftruncate(x, 6)");
            c.waits("y = os.open('f', os.O_RDWR); os.close(y)");
            assert_eq!(b.ask("read('f')"), "'old'");
            let seen = b.ask("os.fstat(r.fileno()).st_size, os.pread(r.fileno(), 9, 0)");
            assert_eq!(seen, "(3, b'old')");
            assert_eq!(a.ask("os.fstat(x).st_size"), "6");
            a.closes();
            assert_eq!(c.answer(), "ok");
            assert_eq!(c.ask("read('f')"), "'newest'");
            assert_eq!(b.ask("read('f')"), "'newest'");
            // Who had it open reads on in the old one.
            assert_eq!(b.ask("r.read()"), "'old'");
            b.does("r.close()");
            a.does("replace('f', 'old')");
        }
        drop((a, b, c));
        world.end_at_rest();
    }

    #[test]
    fn nobody_ever_sees_half_an_update() {
        let world = World::new("update = \"atomic\"\nreplace = \"off\"\nlock_timeout = \"5min\"")
            .with("f", "");
        let program = r#"
os.chdir(sys.argv[1])
for i in range(25):
    with open("f", "w", buffering=1000) as file:
        for _ in range(20):
            file.write(sys.argv[2][-4:] * 250)
    for _ in range(5):
        seen = read("f")
        assert len(seen) in (0, 20000) and len(set(seen)) <= 4, (len(seen), set(seen))
        assert seen in (seen[:4] * 5000, "")
"#;
        world.all_python(2, program);
        assert_eq!(world.text("f").len(), 20000);
        world.end();
    }

    #[test]
    fn counters_are_exact() {
        let world = World::new("update = \"atomic\"\nlock_timeout = \"5min\"").with("n", "0");
        let counter = r#"
os.chdir(sys.argv[1])
for i in range(50):
    with open("n", "r+") as file:
        n = int(file.read())
        file.seek(0)
        file.write(str(n + 1))
"#;
        world.all_python(2, counter);
        assert_eq!(world.text("n"), "200");
        world.end();
    }

    #[test]
    fn a_program_that_was_killed_has_changed_nothing() {
        let world = world();
        for open in [
            "O_RDWR",
            "O_WRONLY | os.O_TRUNC",
            "O_WRONLY | os.O_CREAT | os.O_TRUNC",
        ] {
            let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
            a.does(&format!("x = os.open('f', os.{open})"));
            a.does("write(x, 'half')");
            b.waits("y = os.open('f', os.O_RDWR)");
            a.kill();
            assert_eq!(b.answer(), "ok");
            assert_eq!(b.ask("os.read(y, 10)"), "b'old'");
            b.does("os.close(y)");
        }
        let a = Agent::new(&world.one);
        a.does("x = os.open('n', os.O_WRONLY | os.O_CREAT); write(x, 'half')");
        a.kill();
        let gone = || world.left(&[".turn.", ".done.", ".claim."]).is_empty();
        assert!(wait_until(DEADLINE, gone), "{:?}", world.left(&[]));
        assert!(!world.path("n").exists());
        assert_eq!(world.text("f"), "old");
        world.end();
    }

    #[test]
    fn who_only_opens_and_closes_changes_nothing() {
        let world = world();
        let a = Agent::new(&world.one);
        let before = fs::metadata(world.path("f")).expect("stat");
        a.opens("f");
        assert_eq!(a.ask("os.read(x, 10)"), "b'old'");
        a.closes();
        drop(a);
        let after = fs::metadata(world.path("f")).expect("stat");
        assert_eq!(
            (before.ino(), before.mtime_nsec()),
            (after.ino(), after.mtime_nsec())
        );
        assert_eq!(before.ctime_nsec(), after.ctime_nsec());
        world.end();
    }

    #[test]
    fn owner_mode_and_attributes_stay() {
        let world = world();
        let a = Agent::new(&world.one);
        let path = world.path("f");
        std::os::unix::fs::chown(&path, Some(1000), Some(2000)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2640)).expect("chmod");
        a.does("os.setxattr('f', 'user.x', b'value')");
        // While it is open its inode number cannot come again.
        let original = fs::File::open(&path).expect("open");
        let before = original.metadata().expect("stat");
        for (write, content) in [
            ("open('f', 'r+')", "neW"),
            ("open('f', 'w')", "neWer"),
            ("open('f', 'w')", "neWest"),
        ] {
            a.does(&format!("x = {write}; x.write({content:?}); x.close()"));
            // The close is on its way.
            assert!(
                wait_until(DEADLINE, || world.text("f") == content),
                "{}",
                world.text("f")
            );
        }
        let after = fs::metadata(&path).expect("stat");
        assert_ne!(before.ino(), after.ino());
        assert_eq!(
            (after.uid(), after.gid(), after.mode()),
            (1000, 2000, before.mode())
        );
        assert_eq!(a.ask("os.getxattr('f', 'user.x')"), "b'value'");
        drop(a);
        world.end();
    }

    #[test]
    fn a_new_file_appears_when_it_is_whole() {
        let world = World::new("update = \"atomic\"");
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.does("x = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o604)");
        a.does("write(x, 'whole')");
        for other in [&b, &c] {
            assert_eq!(other.ask("read('f')"), "ENOENT");
            assert_eq!(other.ask("os.listdir()"), "['.dotlockfs.toml']");
        }
        a.closes();
        for other in [&b, &c] {
            assert!(wait_until(DEADLINE, || other.ask("read('f')") == "'whole'"));
            assert_eq!(other.ask("oct(os.stat('f').st_mode)"), "'0o100604'");
        }
        drop((a, b, c));
        world.end();
    }

    /// It closes the file, and what it has written is there when it looks.
    #[test]
    fn a_program_finds_what_it_has_written() {
        let world = world();
        let program = r#"
os.chdir(sys.argv[1])
wrong = []
for i in range(200):
    with open("f", "w") as file:
        file.write(str(i))
    if (seen := read("f")) != str(i):
        wrong.append((i, seen))
assert not wrong, (len(wrong), wrong[:5])
"#;
        let mut command = alone("python3");
        command
            .args(["-B", "-c", &format!("{PRELUDE}{program}")])
            .arg(world.one.path());
        finish(&mut command).success();
        let shell =
            r#"cd "$1"; for i in $(seq 100); do echo $i >f; test "$(cat f)" = $i || echo $i; done"#;
        assert_eq!(script(shell, &[world.one.path()]), "");
        world.end();
    }
}

#[test]
fn where_updates_are_denied_files_are_read_and_appended_to() {
    let world = World::new("update = \"deny\"\nappend = \"write\"").with("f", "old");
    for mount in [&world.one, &world.two] {
        let a = Agent::new(mount);
        for flags in [
            "O_RDWR",
            "O_WRONLY",
            "O_WRONLY | os.O_TRUNC",
            "O_RDWR | os.O_NONBLOCK",
        ] {
            assert_eq!(
                a.ask(&format!("os.open('f', os.{flags})")),
                "EROFS",
                "{flags}"
            );
        }
        assert_eq!(a.ask("os.open('n', os.O_WRONLY | os.O_CREAT)"), "EROFS");
        assert!(a.ask("read('f')").starts_with("'old"));
        a.does("with open('f', 'a') as file: file.write('+')");
    }
    assert_eq!(world.text("f"), "old++");
    world.end();
}

mod replacing {
    use super::*;

    fn world() -> World {
        World::new("replace = \"check\"").with("f", "0")
    }

    #[test]
    fn who_has_read_an_older_version_is_told_so() {
        let world = world();
        for (other, text) in [(&world.two, "b"), (&world.one, "c")] {
            let (a, b) = (Agent::new(&world.one), Agent::new(other));
            a.does("seen = read('f') and None");
            b.does("seen = read('f') and None");
            b.does(&format!("replace('f', {text:?})"));
            assert_eq!(a.ask("replace('f', 'mine')"), "ESTALE");
            assert_eq!(a.ask("replace('f', 'mine')"), "ESTALE");
            assert_eq!(world.text("f"), text);
            // So is who would write it anew.
            assert_eq!(a.ask("open('f', 'w')"), "ESTALE");
            assert_eq!(world.text("f"), text);
            assert_eq!(a.ask("read('f')"), format!("'{text}'"));
            a.does("replace('f', 'mine')");
            assert_eq!(world.text("f"), "mine");
        }
        world.end();
    }

    #[test]
    fn what_was_changed_in_place_or_appended_to_is_newer_too() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        for change in ["'r+'", "'a'", "'w'"] {
            a.does("seen = read('f') and None");
            b.does(&format!(
                "with open('f', {change}) as file: file.write('more')"
            ));
            assert_eq!(a.ask("replace('f', 'mine')"), "ESTALE", "{change}");
            assert_eq!(a.ask("open('f', 'w')"), "ESTALE", "{change}");
            b.does("seen = read('f') and None");
        }
        drop((a, b));
        world.end();
    }

    #[test]
    fn who_has_read_nothing_or_its_own_goes_on() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        for i in 0..3 {
            a.does(&format!("replace('f', 'a{i}')"));
            b.does(&format!("replace('f', 'b{i}')"));
            assert_eq!(world.text("f"), format!("b{i}"));
        }
        assert_eq!(a.ask("read('f')"), "'b2'");
        a.does("for i in range(10): replace('f', str(i))");
        a.does("with open('f', 'w') as file: file.write('anew')");
        a.does("replace('f', 'end')");
        assert_eq!(world.text("f"), "end");
        drop((a, b));
        world.end();
    }

    /// Others may have appended in between, so what is known is what was read.
    #[test]
    fn who_has_appended_reads_again_before_it_replaces() {
        let world = world();
        let a = Agent::new(&world.one);
        a.does("seen = read('f') and None");
        a.does("with open('f', 'a') as file: file.write('!')");
        assert_eq!(a.ask("replace('f', 'end')"), "ESTALE");
        a.does("seen = read('f') and None");
        a.does("replace('f', 'end')");
        assert_eq!(world.text("f"), "end");
        drop(a);
        world.end();
    }

    /// What somebody else has appended before is not in what it has read.
    #[test]
    fn who_has_appended_after_another_may_not_replace() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.does("seen = read('f') and None");
        b.does("with open('f', 'a') as file: file.write('?')");
        a.does("with open('f', 'a') as file: file.write('!')");
        assert_eq!(a.ask("replace('f', 'end')"), "ESTALE");
        assert_eq!(world.text("f"), "0?!");
        drop((a, b));
        world.end();
    }

    #[test]
    fn what_a_script_has_read_counts_for_its_mv() {
        let world = world();
        let text = r#"
cd "$1"
x=$(cat f)
printf theirs >"$2/f.tmp"
setsid -w mv "$2/f.tmp" "$2/f"
echo "$x+1" >g.tmp
mv g.tmp f 2>&1 | sed 's/.*: //'
x=$(cat f)
printf "$x+1" >g.tmp
mv g.tmp f"#;
        for other in [&world.two, &world.one] {
            let said = script(text, &[world.one.path(), other.path()]);
            assert_eq!(said, "Stale file handle\n");
            assert_eq!(world.text("f"), "theirs+1");
            assert!(wait_until(DEADLINE, || !world.path("f.tmp").exists()));
        }
        world.end();
    }

    /// Read, change, write aside, rename; each tries again when it is told that it came too late.
    const UPDATER: &str = r#"
os.chdir(sys.argv[1])
refused = 0
for i in range(COUNT):
    while True:
        state = json.loads(read("f"))
        state["n"] += 1
        state["done"].append(f"{sys.argv[2]}.{i}")
        try:
            replace("f", json.dumps(state))
            break
        except OSError as error:
            assert error.errno == errno.ESTALE, error
            refused += 1
print(refused)
"#;

    #[track_caller]
    fn all_kept(world: &World, count: usize) {
        let text = world.text("f");
        assert!(
            text.starts_with(&format!("{{\"n\": {}, ", 4 * count)),
            "{text}"
        );
        for host in ["one0", "one1", "two0", "two1"] {
            for i in 0..count {
                let word = format!("\"{host}.{i}\"");
                assert_eq!(text.matches(&word).count(), 1, "{word} in {text}");
            }
        }
    }

    const EMPTY: &str = r#"{"n": 0, "done": []}"#;

    #[test]
    fn whoever_tries_again_loses_nothing() {
        let world = World::new("replace = \"check\"\nlock_timeout = \"5min\"").with("f", EMPTY);
        world.all_python(2, &UPDATER.replace("COUNT", "25"));
        all_kept(&world, 25);
        world.end();
    }

    #[test]
    fn who_reads_keeps_the_lock_until_it_replaces() {
        let rules = "replace = \"hold\"\nlock_timeout = \"5min\"";
        let world = World::new(rules).with("f", EMPTY);
        let refused = world.all_python(2, &UPDATER.replace("COUNT", "50"));
        // One who has read and does not go on within a second loses the lock.
        let refused = refused.iter().map(|count| count.trim().parse::<u32>());
        let refused: u32 = refused.map(|count| count.expect("a number")).sum();
        assert!(refused <= 5, "{refused} updates were refused");
        all_kept(&world, 50);
        world.end();
    }

    /// The mount hears of the last close a while after the program went on.
    #[test]
    fn what_a_process_has_written_it_knows_as_soon_as_it_is_closed() {
        let world = World::new("update = \"open\"\nreplace = \"check\"").with("f", "old");
        let a = Agent::new(&world.one);
        a.does("f = open('f', 'r+'); f.read(); f.seek(0); f.write('new'); f.flush()");
        let path = world.path("f").display().to_string();
        let slow = Faults::delay(&world.one, "close", Duration::from_millis(500), &[path]);
        a.does("f.close()");
        a.does("with open('g', 'w') as out: out.write('newer')");
        a.does("os.rename('g', 'f')");
        slow.end();
        assert_eq!(world.text("f"), "newer");
        drop(a);
        world.end();
    }

    /// What was open before the file was replaced does not count for what is read after that.
    #[test]
    fn who_closes_the_old_file_keeps_the_lock_on_the_new_one() {
        let rules = "replace = \"hold\"\nlock_timeout = \"20s\"";
        let world = World::new(rules).with("f", "old");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.does("one = open('f')");
        a.does("replace('f', 'new')");
        a.does("two = open('f')");
        a.does("one.close()");
        b.begin("read('f')");
        // Longer than a program has to begin a new file after it has closed the old one.
        for _ in 0..8 {
            b.still_waits();
        }
        a.does("two.close()");
        assert_eq!(b.answer(), "'new'");
        drop((a, b));
        world.end();
    }

    #[test]
    fn who_only_reads_does_not_keep_the_lock() {
        let rules = "replace = \"hold\"\nlock_timeout = \"20s\"";
        let world = World::new(rules).with("f", "old");
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        for i in 0..2 {
            // They live on.
            for reader in [&a, &b, &c] {
                assert_ne!(reader.ask("read('f')"), "EAGAIN");
            }
            script(
                r#"cat "$1/f" "$2/f""#,
                &[world.two.path(), world.one.path()],
            );
            c.does(&format!("replace('f', 'c{i}')"));
            a.does("seen = read('f') and None");
            a.does(&format!("replace('f', 'a{i}')"));
            assert_eq!(world.text("f"), format!("a{i}"));
        }
        // As long as it is open, it is held.
        a.does("r = open('f')");
        b.waits("seen = read('f')");
        // One who has read nothing, and so is not refused.
        let d = Agent::new(&world.two);
        d.waits("replace('f', 'new')");
        a.kill();
        assert_eq!((b.answer(), d.answer()), ("ok".into(), "ok".into()));
        drop((b, c, d));
        world.end();
    }

    #[test]
    fn serialised_replaces_wait_and_are_not_refused() {
        let world = World::new("replace = \"serialise\"").with("f", "old");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.does("seen = read('f') and None");
        b.does("replace('f', 'b')");
        a.does("replace('f', 'a')");
        assert_eq!(world.text("f"), "a");
        a.opens("f");
        b.waits("replace('f', 'b')");
        assert_eq!(world.text("f"), "a");
        a.closes();
        assert_eq!(b.answer(), "ok");
        assert_eq!(world.text("f"), "b");
        drop((a, b));
        world.end();
    }

    #[test]
    fn two_files_are_exchanged_under_both_locks() {
        let rules = "replace = \"check\"\nlock_timeout = \"5min\"";
        let world = World::new(rules).with("f", "F").with("g", "G");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        for held in ["f", "g"] {
            a.opens(held);
            b.waits("rename('f', 'g', 2)");
            assert_eq!(
                world.text("f") + &world.text("g"),
                if held == "f" { "FG" } else { "GF" }
            );
            a.closes();
            assert_eq!(b.answer(), "ok");
        }
        assert_eq!(world.text("f") + &world.text("g"), "FG");
        // Whoever has read one of them is told that it is another now.
        a.does("seen = read('g') and None");
        b.does("rename('g', 'f', 2)");
        assert_eq!(a.ask("rename('g', 'f', 2)"), "ESTALE");
        assert_eq!(a.ask("read('g') + read('f')"), "'FG'");
        a.does("rename('g', 'f', 2)");
        drop((a, b));
        let program = r#"
os.chdir(sys.argv[1])
names = ("f", "g") if "0" in sys.argv[2] else ("g", "f")
for _ in range(20):
    rename(*names, 2)
"#;
        world.all_python(2, program);
        assert_eq!(world.text("f") + &world.text("g"), "FG");
        world.end();
    }

    #[test]
    fn a_name_that_is_there_is_not_replaced_where_that_is_asked() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        for agent in [&a, &b] {
            agent.does("open('x.tmp', 'w').close()");
            assert_eq!(agent.ask("rename('x.tmp', 'f', 1)"), "EEXIST");
            assert_eq!(agent.ask("os.link('x.tmp', 'f')"), "EEXIST");
            agent.does("rename('x.tmp', 'g', 1)");
            agent.does("os.remove('g')");
        }
        assert_eq!(world.text("f"), "0");
        drop((a, b));
        world.end();
    }

    #[test]
    fn replacing_by_unlink_and_link_works() {
        let world = world();
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.does("def relink(old, new): os.remove(new); os.link(old, new); os.remove(old)");
        b.does("r = open('f')");
        a.does("replace('f', 'linked', relink)");
        assert_eq!(
            (a.ask("read('f')"), b.ask("read('f')")),
            ("'linked'".into(), "'linked'".into())
        );
        assert_eq!(b.ask("r.read()"), "'0'");
        b.does("replace('f', 'then')");
        assert_eq!(a.ask("replace('f', 'late')"), "ESTALE");
        assert_eq!(world.text("f"), "then");
        drop((a, b));
        world.end();
    }
}

mod advisory {
    use super::*;

    /// The program that the manual of lockf(3) asks for, except that it replaces the file.
    const UPDATER: &str = r#"
os.chdir(sys.argv[1])
for i in range(50):
    file = open("f", "r+")
    TAKE
    state = json.load(file)
    state["n"] += 1
    replace("f", json.dumps(state))
    if i % 2:
        GIVE
    file.close()
"#;

    const LOCKF: (&str, &str) = (
        "fcntl.lockf(file, fcntl.LOCK_EX)",
        "fcntl.lockf(file, fcntl.LOCK_UN)",
    );
    const FLOCK: (&str, &str) = (
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "fcntl.flock(file, fcntl.LOCK_UN)",
    );

    fn world() -> World {
        let rules = "update = \"off\"\nlock_timeout = \"5min\"";
        World::new(rules).with("f", "{\"n\": 0}")
    }

    #[test]
    fn updates_under_a_lock_are_kept() {
        for (lock, unlock) in [LOCKF, FLOCK] {
            let world = world();
            let program = UPDATER.replace("TAKE", lock).replace("GIVE", unlock);
            world.all_python(2, &program);
            assert_eq!(world.text("f"), "{\"n\": 200}", "{lock}");
            world.end();
        }
    }

    /// The mount hears of the last close a while after the program went on. By then it may have
    /// locked the file again.
    #[test]
    fn an_open_file_that_ends_late_takes_no_other_lock_along() {
        let world = World::new("").with("f", "0");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.one));
        a.does("f = open('f', 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); write(f.fileno(), '1')");
        let path = world.path("f").display().to_string();
        let slow = Faults::delay(&world.one, "close", Duration::from_millis(500), &[path]);
        a.does("f.close()");
        a.does("f = open('f'); fcntl.lockf(f, fcntl.LOCK_SH)");
        // One descriptor is closed while the program waits, and the file's own when it is told.
        let has_ended = || slow.count() >= 2;
        assert!(
            wait_until(DEADLINE, has_ended),
            "no file has come to its end"
        );
        // Nothing follows in the daemon but what it does about locks; that is not slow.
        slow.end();
        b.does("import struct; wanted = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)");
        b.does("held = lambda: fcntl.fcntl(open('f'), fcntl.F_GETLK, wanted)");
        let kind = "struct.unpack('hhqqi4x', held())[0] == fcntl.F_RDLCK";
        assert!(
            !wait_until(WAITS, || b.ask(kind) == "False"),
            "it was let go"
        );
        a.does("f.close()");
        assert!(
            wait_until(DEADLINE, || b.ask(kind) == "False"),
            "it is still held"
        );
        drop((a, b));
        world.end();
    }

    #[test]
    fn updates_in_place_under_a_lock_are_kept() {
        for (lock, _) in [LOCKF, FLOCK] {
            let world = World::new("update = \"off\"\nlock_timeout = \"5min\"").with("n", "0");
            let program = r#"
os.chdir(sys.argv[1])
file = open("n", "r+b", buffering=0)
for i in range(50):
    TAKE
    file.seek(0)
    n = int(file.read())
    write(file.fileno(), str(n + 1))
    GIVE
"#;
            let unlock = lock.replace("LOCK_EX", "LOCK_UN");
            let program = program.replace("TAKE", lock).replace("GIVE", &unlock);
            world.all_python(2, &program);
            assert_eq!(world.text("n"), "200", "{lock}");
            world.end();
        }
    }

    #[test]
    fn a_lock_keeps_the_other_host_out_until_it_is_given_up() {
        let world = world();
        for (lock, unlock) in [LOCKF, FLOCK] {
            for end in [unlock, "file.close()", "kill"] {
                let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
                for agent in [&a, &b] {
                    agent.does("file = open('f', 'r+')");
                }
                a.does(lock);
                let at_once = lock.replace("LOCK_EX", "LOCK_EX | fcntl.LOCK_NB");
                assert_eq!(b.ask(&at_once), "EAGAIN", "{lock}");
                let shared = at_once.replace("LOCK_EX", "LOCK_SH");
                assert_eq!(b.ask(&shared), "EAGAIN", "{lock}");
                b.waits(lock);
                if end == "kill" {
                    a.kill();
                } else {
                    a.does(end);
                }
                assert_eq!(b.answer(), "ok", "{lock} {end}");
            }
        }
        world.end();
    }

    #[test]
    fn waiting_for_a_lock_can_be_interrupted() {
        let world = world();
        for (lock, _) in [LOCKF, FLOCK] {
            let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
            for agent in [&a, &b] {
                agent.does("file = open('f', 'r+')");
            }
            a.does(lock);
            b.waits(lock);
            assert_eq!(b.interrupt(libc::SIGINT), "interrupted");
            b.waits(lock);
            b.kill();
            a.does("file.close()");
        }
        world.end();
    }

    #[test]
    fn a_lock_is_told_of_on_the_other_host() {
        let world = world();
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        for agent in [&a, &b, &c] {
            agent.does("file = open('f', 'r+')");
            agent.does(concat!(
                "import struct\n",
                "def held():\n",
                "    lock = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)\n",
                "    lock = fcntl.fcntl(file, fcntl.F_GETLK, lock)\n",
                "    kind, _, _, _, pid = struct.unpack('hhqqi4x', lock)\n",
                "    return 'free' if kind == fcntl.F_UNLCK else (kind == fcntl.F_WRLCK, pid)"
            ));
            // The one before may have the lock for a moment, to look.
            assert!(wait_until(DEADLINE, || agent.ask("held()") == "'free'"));
        }
        a.does("fcntl.lockf(file, fcntl.LOCK_EX)");
        assert_eq!(a.ask("held()"), "'free'");
        assert_eq!(b.ask("held()"), format!("(True, {})", a.child.id()));
        assert_eq!(c.ask("held()"), "(True, 0)");
        a.does("fcntl.lockf(file, fcntl.LOCK_UN)");
        for agent in [&b, &c] {
            // Nobody has it; the other host may have it for a moment, to look.
            assert!(wait_until(DEADLINE, || agent.ask("held()") == "'free'"));
        }
        drop((a, b, c));
        world.end();
    }
}

mod lock_files {
    use super::*;

    #[test]
    fn who_made_one_goes_on_and_all_others_wait() {
        let world = World::new("update = \"open\"").with("f", "old");
        for (make, remove) in [
            (
                "os.close(os.open('f.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY))",
                "os.remove('f.lock')",
            ),
            (
                "open('mine', 'w').close(); os.link('mine', 'f.lock')",
                "os.remove('f.lock')",
            ),
            ("os.mkdir('f.lock')", "os.rmdir('f.lock')"),
            ("os.symlink('nowhere', 'f.lock')", "os.remove('f.lock')"),
            ("os.rename('mine', 'f.lock')", "os.rename('f.lock', 'mine')"),
        ] {
            let (a, b, c) = (
                Agent::new(&world.one),
                Agent::new(&world.one),
                Agent::new(&world.two),
            );
            a.does("with open('f', 'a') as file: file.write('before')");
            a.does(make);
            b.waits("x = os.open('f', os.O_RDWR); os.lseek(x, 0, 2); os.write(x, b'here') and os.close(x)");
            c.waits("x = os.open('f', os.O_RDWR); write(x, 'there'); os.close(x)");
            a.does("with open('f', 'a') as file: file.write('+')");
            a.does("with open('f', 'r+') as file: file.write('new')");
            a.does("with open('f', 'w') as file: file.write('newer')");
            a.does("with open('f', 'a') as file: file.write('more')");
            a.does("assert subprocess.call(['sh', '-c', 'echo kid >>f']) == 0");
            assert_eq!(world.text("f"), "newermorekid\n", "{make}");
            a.does("seen = read('f') and None");
            a.does("replace('f', 'replaced ')");
            b.still_waits();
            c.still_waits();
            assert_eq!(world.text("f"), "replaced ", "{make}");
            a.does(remove);
            assert_eq!(
                (b.answer(), c.answer()),
                ("ok".into(), "ok".into()),
                "{make}"
            );
            let text = world.text("f");
            assert!(
                text.starts_with("there") && text.contains("here"),
                "{make}: {text:?}"
            );
        }
        world.end();
    }

    #[test]
    fn an_append_that_waits_does_not_hold_up_who_made_one() {
        let world = World::new("update = \"open\"").with("f", "old");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.one));
        a.does("os.mkdir('f.lock')");
        b.waits("with open('f', 'a') as file: file.write('here')");
        a.does("with open('f', 'a') as file: file.write('+')");
        a.does("os.rmdir('f.lock')");
        assert_eq!(b.answer(), "ok");
        assert_eq!(world.text("f"), "old+here");
        drop((a, b));
        world.end();
    }

    #[test]
    fn one_is_made_at_once_after_ones_own_writing() {
        let world = World::new("update = \"open\"").with("f", "");
        let program = r#"
os.chdir(sys.argv[1])
for i in range(40):
    with open("f", "a") as file: file.write("x")
    os.close(os.open("f.lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    with open("f", "a") as file: file.write("y")
    os.remove("f.lock")
    with open("f", "r+") as file: file.write("z")
    os.mkdir("f.lock")
    with open("f", "r+") as file: file.write("z")
    os.rmdir("f.lock")
"#;
        let mut command = alone("python3");
        command
            .args(["-B", "-c", &format!("{PRELUDE}{program}")])
            .arg(world.one.path());
        finish(&mut command).success();
        assert_eq!(world.text("f").len(), 80);
        world.end();
    }

    #[test]
    fn only_one_gets_it() {
        let world = World::new("update = \"open\"\nlock_timeout = \"5min\"").with("n", "0");
        let program = r#"
os.chdir(sys.argv[1])
for i in range(25):
    while True:
        try:
            os.close(os.open("n.lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            time.sleep(0.002)
    n = int(read("n"))
    with open("n", "r+") as file:
        file.write(str(n + 1))
    os.remove("n.lock")
"#;
        world.all_python(2, program);
        assert_eq!(world.text("n"), "100");
        world.end();
    }

    #[test]
    fn one_becomes_the_file_as_with_git() {
        let rules = "update = \"atomic\"\nlock_timeout = \"5min\"";
        let world = World::guarding("index", rules).with("index", "0");
        let program = r#"
os.chdir(sys.argv[1])
for i in range(25):
    while True:
        try:
            lock = os.open("index.lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            time.sleep(0.002)
    os.write(lock, str(int(read("index")) + 1).encode())
    os.close(lock)
    os.rename("index.lock", "index")
"#;
        world.all_python(2, program);
        assert_eq!(world.text("index"), "100");
        world.end();
    }
}

mod directories {
    use super::*;

    #[test]
    fn one_with_an_open_file_is_not_empty() {
        let world = World::new("update = \"open\"");
        fs::create_dir(world.path("dir")).expect("mkdir");
        fs::write(world.path("dir/f"), "old").expect("write");
        let (a, b, c) = (
            Agent::new(&world.one),
            Agent::new(&world.one),
            Agent::new(&world.two),
        );
        a.opens("dir/f");
        for agent in [&a, &b, &c] {
            assert_eq!(agent.ask("os.rmdir('dir')"), "ENOTEMPTY");
        }
        a.closes();
        c.does("os.remove('dir/f')");
        // The mount hears of the close a moment later.
        assert!(wait_until(DEADLINE, || b.ask("os.rmdir('dir')") == "ok"));
        assert!(!world.path("dir").exists());
        drop((a, b, c));
        world.end();
    }

    /// On a plain directory it would work; here the lock stands in it.
    #[test]
    fn one_whose_file_is_open_and_removed_can_be_removed_after_the_close() {
        let world = World::new("update = \"open\"");
        fs::create_dir(world.path("dir")).expect("mkdir");
        fs::write(world.path("dir/f"), "old").expect("write");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.one));
        a.opens("dir/f");
        b.does("os.remove('dir/f')");
        let said = b.ask("os.rmdir('dir')");
        assert!(matches!(&*said, "ok" | "ENOTEMPTY"), "{said}");
        a.does("write(x, 'new')");
        assert_eq!(a.ask("os.lseek(x, 0, 0), os.read(x, 10)"), "(0, b'new')");
        a.closes();
        let gone = || !world.path("dir").exists() || b.ask("os.rmdir('dir')") == "ok";
        assert!(wait_until(DEADLINE, gone), "{:?}", world.left(&[]));
        assert!(!world.path("dir").exists());
        drop((a, b));
        world.end();
    }

    /// The kernel tells of the last close after the program has gone on.
    #[test]
    fn one_can_be_removed_at_once_after_the_close() {
        let world = World::new("update = \"open\"");
        let slowly = Faults::delay_what_is_read(&world.one, Duration::from_millis(3));
        let script = "import os, sys
os.chdir(sys.argv[1])
for _ in range(10):
    os.mkdir('dir')
    file = os.open('dir/f', os.O_RDWR | os.O_CREAT)
    os.write(file, b'x')
    os.close(file)
    os.remove('dir/f')
    os.rmdir('dir')";
        let mut program = command(Who::Root, "python3");
        finish(program.args(["-c", script]).arg(world.one.path())).success();
        slowly.end();
        world.end();
    }

    /// On a plain directory it would work; but the caller is not left waiting.
    #[test]
    fn one_whose_removed_file_is_appended_to_all_the_time_is_not_empty() {
        let world = World::new("update = \"open\"");
        let script = "import errno, os, sys, threading
os.chdir(sys.argv[1])
os.mkdir('dir')
files = [os.open('dir/f', os.O_WRONLY | os.O_APPEND | os.O_CREAT) for _ in range(4)]
os.remove('dir/f')
stop = threading.Event()
def append(file):
    while not stop.is_set():
        os.write(file, b'line\\n')
threads = [threading.Thread(target=append, args=[file]) for file in files]
for thread in threads:
    thread.start()
try:
    os.rmdir('dir')
    print('ok')
except OSError as error:
    print(errno.errorcode[error.errno])
stop.set()
for thread in threads:
    thread.join()";
        let mut program = command(Who::Root, "timeout");
        program
            .args(["60", "python3", "-c", script])
            .arg(world.one.path());
        let said = finish(&mut program).success();
        assert!(matches!(said.trim(), "ok" | "ENOTEMPTY"), "{said}");
        world.end();
    }

    #[test]
    fn a_tree_can_be_removed_after_updates() {
        for update in ["open", "atomic"] {
            let world = World::new(&format!("update = \"{update}\""));
            script(r#"mkdir -p "$1/t/a/b""#, &[world.one.path()]);
            let update = r#"
cd "$1/t"
for i in 1 2 3; do
    for f in f a/g a/b/h; do
        echo $i >$f
        echo $i 1<>$f
        echo $i >$f.tmp; mv $f.tmp $f
        echo $i >>$f; cat $f >/dev/null
    done
done"#;
            script(update, &[world.one.path()]);
            script(update, &[world.two.path()]);
            script(r#"rm -rf "$1/t""#, &[world.two.path()]);
            assert!(!world.path("t").exists());
            assert_eq!(world.left(&[]), [""; 0]);
            world.end();
        }
    }
}

mod unmounting {
    use super::*;

    fn umount(option: &str, mount: &Mount) -> bool {
        let mut umount = command(Who::Root, "umount");
        finish(umount.arg(option).arg(mount.path()))
            .status
            .success()
    }

    #[test]
    fn a_mount_with_an_open_file_is_busy() {
        let world = World::new("update = \"open\"").with("f", "old");
        let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
        a.does("path = os.path.abspath('f'); os.chdir('/'); x = os.open(path, os.O_RDWR)");
        assert!(!umount("--no-canonicalize", &world.one));
        b.waits("x = os.open('f', os.O_RDWR); seen = os.read(x, 10)");
        a.does("write(x, 'new')");
        a.closes();
        assert_eq!(b.answer(), "ok");
        assert_eq!(b.ask("seen"), "b'new'");
        drop((a, b));
        world.end();
    }

    #[test]
    fn a_lazy_one_ends_with_the_last_file() {
        for rule in ["open", "atomic"] {
            let world = World::new(&format!("update = \"{rule}\"")).with("f", "old");
            let (a, b) = (Agent::new(&world.one), Agent::new(&world.two));
            a.does("path = os.path.abspath('f'); os.chdir('/'); x = os.open(path, os.O_RDWR)");
            let daemon = world.one.daemon();
            assert!(umount("--lazy", &world.one));
            b.waits("x = os.open('f', os.O_RDWR); seen = os.read(x, 10); os.close(x)");
            a.does("write(x, 'new')");
            assert_eq!(world.one.daemon(), daemon, "it has ended too early");
            a.closes();
            assert_eq!(b.answer(), "ok", "{rule}");
            assert_eq!(b.ask("seen"), "b'new'", "{rule}");
            let ended = || daemons(world.one.path()).is_empty();
            assert!(wait_until(DEADLINE, ended), "the daemon goes on");
            let left = || world.left(&[".turn.", ".done."]);
            drop((a, b));
            let World { two, .. } = &world;
            assert!(wait_until(DEADLINE, || umount("--no-canonicalize", two)));
            assert!(wait_until(DEADLINE, || daemons(two.path()).is_empty()));
            assert!(left().is_empty(), "{:?}", left());
        }
    }
}
