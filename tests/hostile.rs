//! Whoever may write the directory of a guarded file can put anything under the names of its lock,
//! and take them away. Programs go on: none hangs, the daemon does not fall over, no lock is had
//! twice, and nothing outside the directory is changed.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use common::program::Program;
use common::world::{STALE, World, append};
use common::{
    ALICE, BOB, DEADLINE, Mount, Who, command, directory, dotlockfs, end_of, finish, python,
    read_aside, shell, wait_until,
};
use dotlockfs::lock::LockNames;
use dotlockfs::lock::names::Step;
use tempfile::TempDir;

/// What can stand under a name; see [`PLANT`].
const KINDS: &[&str] = &[
    "empty",
    "sparse",
    "binary",
    "record",
    "numbers",
    "link to a file",
    "link to nothing",
    "link to itself",
    "directory",
    "full directory",
    "pipe",
    "socket",
    "device",
    "file from outside",
    "the file itself",
    "of nobody",
];

/// The names of a lock, apart from turns and their ends.
const ASIDE: &[&str] = &[
    "claim.host.1.0123456789abcdef",
    "fence.3",
    "stage.5",
    "copy.5",
    "note.5",
    "tail.0",
    "part.0",
    "kept.5",
    "see.5",
];

/// Puts something of a kind under each of some names in a directory. There may be something.
const PLANT: &str = r#"
import errno, os, socket, stat, sys
folder, victim, kind, guarded = sys.argv[1:5]
os.chdir(folder)
record = ("0\ndotlockfs 1\nhost " + os.uname().nodename + "\nboot "
    + open("/proc/sys/kernel/random/boot_id").read().strip()
    + f"\npidns {os.stat('/proc/self/ns/pid').st_ino}\npid %s\nstart %s\ntoken 0123456789abcdef\n")
def write(name, data):
    with open(name, "xb") as f:
        f.write(data)
def plant(name):
    if kind == "empty": write(name, b"")
    elif kind == "sparse":
        write(name, b"")
        os.truncate(name, 1 << 30)
    elif kind == "binary": write(name, os.urandom(5000))
    # A process that lives, but began at another time; it is none of dotlockfs.
    elif kind == "record": write(name, (record % (1, 1) + "writes 1 1 0\n").encode())
    elif kind == "numbers":
        texts = {
            "fence": f"dotlockfs fence 1\nturn {2**64-1}\nold {2**64-1}\nsize {2**64-1}\nnew 0\nstage {2**64-1}\n",
            "tail": "9999999999999999999999\n",
            "part": f"{2**64-1} {2**64-1}\n",
        }
        text = record % (2**32 - 1, 2**64 - 1) + f"writes {2**64-1} {2**64-1} {2**64-1}\n"
        texts = [text for word, text in texts.items() if f".{word}." in name] or [text]
        write(name, texts[0].encode())
    elif kind == "link to a file": os.symlink(victim, name)
    elif kind == "link to nothing": os.symlink("nowhere/at/all", name)
    elif kind == "link to itself": os.symlink(name, name)
    elif kind == "directory": os.mkdir(name)
    elif kind == "full directory":
        os.mkdir(name)
        write(name + "/x", b"")
    elif kind == "pipe": os.mkfifo(name)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as s: s.bind(name)
    elif kind == "device": os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "file from outside": os.link(victim, name)
    elif kind == "the file itself": os.link(guarded, name)
    elif kind == "of nobody":
        write(name, b"secret")
        os.chmod(name, 0)
        if os.geteuid() == 0: os.chown(name, 65534, 65534)
    else: raise Exception(kind)
for name in sys.argv[5:]:
    try:
        plant(name)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.EADDRINUSE): raise
"#;

/// How many turns the daemon of a mount has lost so far.
fn turns_lost(mount: &Mount) -> u64 {
    let mut status = command(Who::Root, dotlockfs());
    status.args(["status", "--json"]).arg(mount.join("."));
    let told = finish(&mut status).success();
    let told: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
    let lost = &told["mounts"][0]["totals"]["turns_lost"];
    lost.as_u64().expect("a number")
}

/// Two mounts whose daemons log to files, and a file outside that nobody must change.
struct Field {
    one: Mount,
    two: Mount,
    source: PathBuf,
    outside: PathBuf,
    _place: TempDir,
    victim: (Vec<u8>, i64, i64, u32, u32, u64),
}

impl Field {
    /// Guards the files whose names begin with `log`, and `doc`.
    fn new(keys: &str) -> Field {
        Field::of(Who::Root, keys, |_| {})
    }

    /// Mounted by somebody, after the directory was prepared.
    fn of(who: Who, keys: &str, prepare: impl FnOnce(&Path)) -> Field {
        // In memory: a disk that takes its time with each record would set the pace.
        let place = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        open_up(place.path(), 0o755);
        let [source, outside] = ["source", "outside"].map(|name| {
            let path = place.path().join(name);
            fs::create_dir(&path).expect("mkdir");
            path
        });
        let rules = format!(
            "version = 1\n[[guard]]\nfiles = [\"log*\", \"doc\"]\nstale_after = \"4s\"\n\
             foreign_stale_after = \"4s\"\n{keys}\n"
        );
        fs::write(source.join(".dotlockfs.toml"), rules).expect("write the rules");
        let victim = outside.join("victim");
        fs::write(&victim, "0\ndotlockfs 1\nwhat others rely on\n").expect("write");
        open_up(&victim, 0o666);
        prepare(&source);
        let mount = |log: &str| Mount::logging(who, &source, &outside.join(log));
        let (one, two) = (mount("one"), mount("two"));
        Field {
            victim: state(&victim),
            one,
            two,
            source,
            outside,
            _place: place,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    /// Plants something of a kind under names in a directory, beside a guarded file.
    fn plant(&self, who: Who, place: &str, (kind, guarded): (&str, &str), names: &[String]) {
        let victim = self.outside.join("victim");
        let mut python = command(who, "python3");
        python.args(["-Bc", PLANT]).arg(self.path(place));
        python.arg(victim).args([kind, guarded]).args(names);
        finish(&mut python).success();
    }

    /// Ends both mounts, and makes them anew.
    fn remount(&mut self) {
        self.is_sound();
        for mount in [&self.one, &self.two] {
            mount.end();
        }
        let mount = |log: &str| Mount::logging(Who::Root, &self.source, &self.outside.join(log));
        (self.one, self.two) = (mount("one"), mount("two"));
    }

    /// What the daemons have logged.
    fn logged(&self) -> String {
        ["one", "two"]
            .map(|log| fs::read_to_string(self.outside.join(log)).expect("read a log"))
            .concat()
    }

    /// Both daemons live and have never panicked, and the file outside is as it was.
    #[track_caller]
    fn is_sound(&self) {
        self.one.daemon();
        self.two.daemon();
        let logged = self.logged();
        assert!(!logged.contains("panicked"), "{logged}");
        assert_eq!(state(&self.outside.join("victim")), self.victim);
    }
}

fn open_up(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

/// All of a file that must not change.
fn state(path: &Path) -> (Vec<u8>, i64, i64, u32, u32, u64) {
    let stat = fs::metadata(path).expect("stat");
    let text = fs::read(path).expect("read");
    (
        text,
        stat.mtime(),
        stat.mtime_nsec(),
        stat.mode(),
        stat.uid(),
        stat.size(),
    )
}

/// A name of the lock of a guarded file.
fn name_of(guarded: &str, step: &str) -> String {
    let names = LockNames::new(guarded.as_ref());
    let base = String::from_utf8(names.base().to_vec()).expect("UTF-8");
    format!("{base}.{step}")
}

/// Appends records to a log, some of them while it is locked, and replaces a document, until told to
/// stop; then prints what was acknowledged of each. A call that fails in one of the ways in
/// `allowed` may have been done or not.
const WRITER: &str = r#"
import errno, fcntl, json, os, sys, time
log, doc, name, stop, allowed = sys.argv[1:6]
allowed = {getattr(errno, word) for word in allowed.split()}
done, doubtful, replaced, number, held = [], [], 0, 0, False
f = os.open(log, os.O_WRONLY | os.O_APPEND)
def attempt(call):
    try:
        return call() is not False
    except OSError as error:
        if error.errno not in allowed:
            raise
        return False
def replace():
    while True:
        try:
            with open(doc) as d: names = json.load(d)
            names.append(f"{name} {number}")
            with open(f"{doc}.{name}", "w") as d: json.dump(names, d)
            os.rename(f"{doc}.{name}", doc)
            return True
        except OSError as error:
            # Somebody was faster.
            if error.errno != errno.ESTALE: raise
while number < 20 or not os.path.exists(stop):
    if number % 8 == 0: held = attempt(lambda: fcntl.flock(f, fcntl.LOCK_EX))
    record = f"{name} {number} {'x' * (number * 97 % 3000)}\n".encode()
    written = attempt(lambda: os.write(f, record) == len(record))
    (done if written else doubtful).append(number)
    if number % 8 == 1: attempt(lambda: fcntl.flock(f, fcntl.LOCK_UN))
    if doc and number % 8 == 4 and attempt(replace): replaced += 1
    number += 1
# What follows may have to wait until somebody reads it, and another may wait for the lock.
attempt(lambda: os.close(f))
print(json.dumps([done, doubtful, replaced]))
"#;

/// What a [`WRITER`] says at its end.
struct Said {
    name: String,
    done: Vec<u64>,
    doubtful: Vec<u64>,
    replaced: u64,
}

/// Starts a writer.
fn writer(
    mount: &Mount,
    who: Who,
    (log, doc): (&str, &str),
    name: &str,
    stop: &Path,
    allowed: &str,
) -> Child {
    let mut python = command(who, "python3");
    python.args(["-Bc", WRITER]).arg(mount.join(log));
    if doc.is_empty() {
        python.arg("");
    } else {
        python.arg(mount.join(doc));
    }
    python.arg(name).arg(stop).arg(allowed);
    python.stdout(Stdio::piped()).stderr(Stdio::piped());
    python.spawn().expect("python3 starts")
}

#[track_caller]
fn said(field: &Field, name: &str, mut child: Child) -> Said {
    let output = read_aside(child.stdout.take().expect("piped"));
    let error = read_aside(child.stderr.take().expect("piped"));
    let status = end_of(&mut child, name);
    let [output, error] = [output, error].map(|read| read.join().expect("it is read"));
    assert!(status.success(), "{name}: {error}\n{}", field.logged());
    let (done, doubtful, replaced) = serde_json::from_str(&output).expect("a list");
    Said {
        name: name.to_owned(),
        done,
        doubtful,
        replaced,
    }
}

/// All that was acknowledged is in the log, once and in order, and nothing else but what is in
/// doubt.
#[track_caller]
fn check_log(text: &str, said: &[Said]) {
    let mut lines = 0;
    for Said {
        name,
        done,
        doubtful,
        ..
    } in said
    {
        let mut found = Vec::new();
        for line in text.lines() {
            let mut words = line.split(' ');
            if words.next() != Some(name) {
                continue;
            }
            let number: u64 = words.next().expect("number").parse().expect("number");
            let x = words.next().expect("x").len() as u64;
            assert_eq!(x, number * 97 % 3000, "torn: {line:.40}");
            found.push(number);
            lines += 1;
        }
        assert!(
            found.is_sorted_by(|one, next| one < next),
            "{name}: {found:?}"
        );
        let lost: Vec<_> = done
            .iter()
            .filter(|number| !found.contains(number))
            .collect();
        assert!(lost.is_empty(), "{name}: of {} lost: {lost:?}", done.len());
        let stray = found
            .iter()
            .find(|number| !done.contains(number) && !doubtful.contains(number));
        assert_eq!(stray, None, "{name}: nobody wrote it");
    }
    assert_eq!(text.lines().count(), lines, "lines of nobody");
}

/// Under the names of the lock stands anything, at first and again while programs are at work.
#[test]
fn whatever_stands_under_the_names_of_a_lock_all_is_kept() {
    let field = Field::new("lock_timeout = \"60s\"\nrecord = \"\\n\"");
    let stop = field.outside.join("stop");
    // The longest name that can have a lock file beside it.
    let long = "log".repeat(83) + "g";
    // A directory for each, since the kernel lets one rename at a time wait in a directory.
    let places: Vec<(String, &str, &str)> = (KINDS.iter().map(|kind| ("log", *kind)))
        .chain([(&*long, "binary")])
        .enumerate()
        .map(|(i, (log, kind))| (i.to_string(), log, kind))
        .collect();
    let plant = |(place, log, kind): &(String, &str, &str), steps: &[&str]| {
        for guarded in [log, "doc"] {
            let mut names: Vec<_> = steps.iter().map(|step| name_of(guarded, step)).collect();
            names.push(format!("{guarded}.lock"));
            field.plant(Who::Root, place, (kind, guarded), &names);
        }
    };
    let mut writers = Vec::new();
    for this @ (place, log, _) in &places {
        fs::create_dir(field.path(place)).expect("mkdir");
        let (log, doc) = (format!("{place}/{log}"), format!("{place}/doc"));
        fs::write(field.path(&log), "").expect("write");
        fs::write(field.path(&doc), "[]").expect("write");
        plant(this, &[ASIDE, &["done.6", "turn.7"]].concat());
        for (mount, name) in [(&field.one, "a"), (&field.two, "b")] {
            let child = writer(mount, Who::Root, (&log, &doc), name, &stop, "");
            writers.push((log.clone(), name, child));
        }
    }
    // Those logs that are not longer in the end.
    let short_of = |least: u64| {
        let path = |(place, log, _): &(String, &str, &str)| field.path(place).join(log);
        let size = |this| fs::metadata(path(this)).expect("stat").len();
        let short = || places.iter().find(|this| size(this) <= least);
        wait_until(DEADLINE, || short().is_none());
        short().map(|(_, log, kind)| (log, kind))
    };
    assert_eq!(short_of(10_000), None, "{}", field.logged());
    for this in &places {
        plant(this, &[ASIDE, &["turn.1000000"]].concat());
    }
    assert_eq!(short_of(40_000), None, "{}", field.logged());
    // Who looks at it from outside comes to an end too.
    for command_line in [&["locks", "--all"][..], &["locks", "--json"], &["doctor"]] {
        let mut tool = command(Who::Root, dotlockfs());
        tool.args(command_line).arg(&field.source);
        let finished = finish(&mut tool);
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        assert!(matches!(finished.status.code(), Some(0 | 1)));
    }
    fs::write(&stop, "").expect("stop");
    let told = writers.into_iter();
    let mut told: Vec<_> = told
        .map(|(log, name, child)| (log, said(&field, name, child)))
        .collect();
    for (place, log, kind) in &places {
        let path = format!("{place}/{log}");
        let these: Vec<Said> = told
            .extract_if(.., |(of, _)| *of == path)
            .map(|(_, said)| said)
            .collect();
        check_log(&field.text(&path), &these);
        let names: Vec<String> =
            serde_json::from_str(&field.text(&format!("{place}/doc"))).expect("whole");
        let replaced: u64 = these.iter().map(|said| said.replaced).sum();
        assert_eq!(names.len() as u64, replaced, "{kind}: {names:?}");
    }
    field.is_sound();
}

/// Claims go while two hosts append: nothing is lost, for a claim that is gone is made anew, and a
/// turn whose claim is gone is given up.
#[test]
fn claims_can_be_removed_while_programs_are_at_work() {
    let field = Field::new("lock_timeout = \"60s\"\nrecord = \"\\n\"");
    fs::write(field.path("log"), "").expect("write");
    let stop = field.outside.join("stop");
    let mut writers = Vec::new();
    for (mount, names) in [(&field.one, ["a", "b"]), (&field.two, ["c", "d"])] {
        for name in names {
            // Who has locked the file is told that the lock is lost.
            let child = writer(mount, Who::Root, ("log", ""), name, &stop, "EIO");
            writers.push((name, child));
        }
    }
    remove_while_it_grows(&field, |step| step == Step::Claim);
    fs::write(&stop, "").expect("stop");
    let told: Vec<Said> = writers
        .into_iter()
        .map(|(name, child)| said(&field, name, child))
        .collect();
    check_log(&field.text("log"), &told);
    assert!(
        told.iter()
            .all(|said| said.done.len() > said.doubtful.len())
    );
    assert!(field.logged().contains("fenced after"), "none was missed");
    field.is_sound();
}

/// Names of turns go too. Then a number that was used comes again, two hosts may have a turn at once,
/// and what one has written the other may write over: that is not promised. But nobody hangs, and all
/// goes well again when the daemons were started anew.
#[test]
fn when_names_of_turns_are_removed_all_is_well_again_afterwards() {
    let mut field = Field::new("lock_timeout = \"20s\"");
    fs::write(field.path("log"), "").expect("write");
    let stop = field.outside.join("stop");
    let allowed = "EIO EAGAIN";
    let writers: Vec<_> = [(&field.one, "a"), (&field.two, "b")]
        .map(|(mount, name)| {
            let child = writer(mount, Who::Root, ("log", ""), name, &stop, allowed);
            (name, child)
        })
        .into();
    remove_while_it_grows(&field, |_| true);
    fs::write(&stop, "").expect("stop");
    for (name, child) in writers {
        said(&field, name, child);
    }
    fs::remove_file(&stop).expect("remove");
    field.remount();
    fs::write(field.path("log"), "").expect("empty it");
    let writers = [(&field.one, "a"), (&field.two, "b")].map(|(mount, name)| {
        let child = writer(mount, Who::Root, ("log", ""), name, &stop, "");
        (name, child)
    });
    let grown = wait_until(DEADLINE, || field.text("log").len() > 100_000);
    assert!(grown, "{}", field.logged());
    fs::write(&stop, "").expect("stop");
    let told = writers.map(|(name, child)| said(&field, name, child));
    check_log(&field.text("log"), &told);
    field.is_sound();
}

/// Removes one name of the log's lock after another, of those that `which` chooses, each time when
/// the log has grown.
fn remove_while_it_grows(field: &Field, which: impl Fn(Step) -> bool) {
    let names = LockNames::new("log".as_ref());
    let size = || fs::metadata(field.path("log")).map_or(0, |stat| stat.len());
    // As random as needed, and the same each time.
    let mut random: u64 = 1;
    for _ in 0..150 {
        let before = size();
        let grown = wait_until(DEADLINE, || size() != before);
        assert!(grown, "nobody writes: {}", field.logged());
        let mut chosen: Vec<String> = names_in(&field.source, ".log.")
            .into_iter()
            .filter(|name| names.step(name.as_bytes()).is_some_and(&which))
            .collect();
        chosen.sort();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        if !chosen.is_empty() {
            let name = &chosen[(random >> 33) as usize % chosen.len()];
            // Its maker may have been faster.
            let _ = fs::remove_file(field.path(name));
        }
    }
}

/// Every name that is made, written or touched leads to a file outside, and what is made is replaced
/// by a link to that: it is never followed.
#[test]
fn nothing_outside_the_directory_is_written() {
    let field = Field::new("lock_timeout = \"60s\"\nrecord = \"\\n\"");
    fs::write(field.path("log"), "").expect("write");
    let victim = field.outside.join("victim");
    for kind in ["link to a file", "file from outside"] {
        let steps = [
            "tail.0", "part.0", "fence.1", "fence.2", "note.1", "stage.1", "copy.1",
        ];
        let names = steps.map(|step| name_of("log", step));
        field.plant(Who::Root, "", (kind, "log"), &names);
        field.plant(Who::Root, "", (kind, "log"), &["log.lock".to_owned()]);
        // An unfinished record is noted in `tail.0`, a long one in the claim.
        for mount in [&field.one, &field.two] {
            let script = r#"printf 'half' >> "$1"; head -c 10000 /dev/zero | tr '\0' x >> "$1"
                echo >> "$1""#;
            shell(Who::Root, script, &[&mount.join("log")]);
        }
        // What holds the lock shows a sign of life on its claim, and notes there what it writes.
        for write in ["os.write(f, b'x' * 9000 + b'\\n')", "os.write(f, b'y\\n')"] {
            let lost_so_far = turns_lost(&field.one);
            let mut holder = Program::on(&field.one);
            holder.does("f = os.open('log', os.O_WRONLY | os.O_APPEND)");
            holder.does("fcntl.flock(f, fcntl.LOCK_EX)");
            for claim in names_in(&field.source, ".log.claim.") {
                // The one of the other mount goes by itself, some time.
                let _ = fs::remove_file(field.path(&claim));
                field.plant(Who::Root, "", (kind, "log"), &[claim]);
            }
            // The lock is lost as soon as the sign is due.
            let lost = wait_until(DEADLINE, || {
                holder.does(write);
                turns_lost(&field.one) > lost_so_far
            });
            assert!(lost, "{}", field.logged());
        }
        // A broken turn: everything that a fence makes or reads.
        let newest = names_in(&field.source, ".log.done.");
        let newest = newest
            .iter()
            .filter_map(|name| name.rsplit('.').next()?.parse::<u64>().ok());
        let next = newest.max().expect("an end") + 100;
        let turn = name_of("log", &format!("turn.{next}"));
        field.plant(Who::Root, "", (kind, "log"), &[turn]);
        let line = format!("after a {kind}");
        shell(
            Who::Root,
            r#"echo "$2" >> "$1""#,
            &[&field.two.join("log"), Path::new(&line)],
        );
        assert!(field.text("log").contains(&line));
        assert_eq!(state(&victim), field.victim, "{kind}");
        for name in names_in(&field.source, ".log.") {
            // What the plants were needs not be left for the next kind.
            if !name.contains(".done.") {
                let _ = fs::remove_file(field.path(&name));
            }
        }
    }
    field.is_sound();
}

/// The names in a directory that begin so.
fn names_in(folder: &Path, beginning: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("list");
    let names = entries.filter_map(|entry| entry.expect("entry").file_name().into_string().ok());
    names.filter(|name| name.starts_with(beginning)).collect()
}

/// A later turn is forged while a program has the lock: before anybody else can get it, which takes
/// `stale_after`, the holder is told that it is lost.
#[test]
fn a_forged_turn_does_not_give_the_lock_to_two() {
    let world = World::new("");
    append(&world.one, "line");
    let mut holder = Program::on(&world.one);
    holder.does("f = open('log', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)");
    fs::write(world.source.path().join(".log.turn.50"), "").expect("forge");
    let mut other = Program::on(&world.two);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let locks = scope.spawn(|| {
            other.does("f = open('log', 'r+'); fcntl.flock(f, fcntl.LOCK_EX)");
            Instant::now()
        });
        let mut wrote = began;
        let lost = wait_until(DEADLINE, || {
            let asked = Instant::now();
            let answer = holder.ask("os.pwrite(f.fileno(), b'L', 0)");
            if answer != "EIO" {
                wrote = asked;
            }
            answer == "EIO"
        });
        assert!(lost, "it goes on");
        let locked = locks.join().expect("it locks");
        assert!(locked > wrote, "two had the lock");
    });
}

/// A number so large that none follows: calls fail at once, with an error and a line that says what
/// to do; and that helps.
#[test]
fn numbers_that_are_used_up_are_told() {
    let field = Field::new("");
    fs::write(field.path("log"), "").expect("write");
    let last = name_of("log", "done.4611686018427387903");
    fs::write(field.path(&last), "").expect("forge");
    // So large a number is none.
    fs::write(field.path(&name_of("log", "done.18446744073709551615")), "").expect("forge");
    for mount in [&field.one, &field.two] {
        let mut program = Program::on(mount);
        program.does("f = os.open('log', os.O_WRONLY | os.O_APPEND)");
        let began = Instant::now();
        assert_eq!(program.ask("os.write(f, b'line')"), "EUCLEAN");
        assert!(began.elapsed() < 4 * STALE);
    }
    assert!(field.logged().contains("numbers of turns are used up"));
    fs::remove_file(field.path(&last)).expect("remove");
    for mount in [&field.one, &field.two] {
        append(mount, "line");
    }
    assert_eq!(field.text("log"), "line\nline\n");
    field.is_sound();
}

/// In a directory where anybody may make names, but not remove those of others, another user plants
/// forgeries against a file of somebody who mounts without root.
#[test]
fn another_user_in_a_sticky_directory_is_survived() {
    let field = Field::of(ALICE, "lock_timeout = \"20s\"", |source| {
        open_up(source, 0o1777);
        fs::write(source.join("log"), "").expect("write");
        std::os::unix::fs::chown(source.join("log"), Some(1000), Some(1000)).expect("chown");
    });
    let line = |mount: &Mount, text: &str| {
        let mut sh = command(ALICE, "sh");
        let script = r#"echo "$2" >> "$1""#;
        finish(
            sh.args(["-euc", script, "sh"])
                .arg(mount.join("log"))
                .arg(text),
        )
    };
    let mut expected = String::new();
    let mut turn = 10;
    let kinds = [
        "empty",
        "of nobody",
        "record",
        "numbers",
        "link to a file",
        "pipe",
        "full directory",
    ];
    for kind in kinds {
        let steps = [
            "claim.host.1.0123456789abcdef",
            "fence.3",
            "tail.0",
            "part.0",
            "kept.5",
            "see.5",
        ];
        let mut names = steps.map(|step| name_of("log", step)).to_vec();
        names.push(name_of("log", &format!("turn.{turn}")));
        turn += 10;
        field.plant(BOB, "", (kind, "log"), &names);
        for mount in [&field.one, &field.two] {
            line(mount, kind).success();
            expected += &format!("{kind}\n");
        }
        shell(
            BOB,
            r#"cd "$1"; rm -rf "$2" "$3" "$4""#,
            &[
                &field.source,
                Path::new(&names[1]),
                Path::new(&names[2]),
                Path::new(&names[3]),
            ],
        );
    }
    assert_eq!(field.text("log"), expected);
    // What might be a late step of a holder must go before the file is gone on with. Who may not
    // remove it is told so; and when it is gone all is well.
    let plant = |step: &str| field.plant(BOB, "", ("empty", "log"), &[name_of("log", step)]);
    plant("note.7");
    plant(&format!("turn.{turn}"));
    // Who has just had the lock need not look for a second.
    let refused = wait_until(DEADLINE, || {
        let began = Instant::now();
        let done = line(&field.one, "still").status.success();
        assert!(began.elapsed() < 4 * STALE);
        expected += if done { "still\n" } else { "" };
        !done
    });
    assert!(refused, "{}", field.logged());
    assert!(
        field
            .logged()
            .contains("could not remove .log.note.7, and calls fail until it is gone")
    );
    fs::remove_file(field.path(&name_of("log", "note.7"))).expect("remove");
    line(&field.two, "well").success();
    assert_eq!(field.text("log"), expected + "well\n");
    field.is_sound();
}

/// Nobody gets a file replaced that he could not replace himself, by forging a fence that a daemon
/// of root would complete.
#[test]
fn a_forged_fence_replaces_nothing() {
    let source = directory();
    open_up(source.path(), 0o1777);
    let log = source.path().join("log");
    let rules = "version = 1\n[[guard]]\nfiles = [\"log\"]\nstale_after = \"4s\"\n";
    fs::write(source.path().join(".dotlockfs.toml"), rules).expect("write the rules");
    fs::write(&log, "hers\n").expect("write");
    std::os::unix::fs::chown(&log, Some(1000), Some(1000)).expect("chown");
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let forge = r#"
import os, sys
os.chdir(sys.argv[1])
open(".log.stage.5", "w").write("his\n")
open(".log.fence.1", "w").write(f"dotlockfs fence 1\nturn 30\nold {os.stat('log').st_ino}\nsize 4\n"
    f"new {os.stat('.log.stage.5').st_ino}\nstage 5\n")
open(".log.turn.30", "w").close()
"#;
    python(BOB, forge, &[source.path()]);
    append(&mount, "more");
    assert_eq!(fs::read_to_string(&log).expect("read"), "hers\nmore\n");
    assert_eq!(fs::metadata(&log).expect("stat").uid(), 1000);
}
