//! `dotlockfs check-config` as a user runs it: a rule file in, words out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A directory with a rule file in it, and the command run there.
struct World {
    dir: TempDir,
}

/// What a run of the command left: status, standard output, standard error.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: i32,
    out: String,
    err: String,
}

impl World {
    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn with(rules: impl AsRef<[u8]>) -> Self {
        let world = Self::empty();
        world.write(".dotlockfs.toml", rules);
        world
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), contents).unwrap();
    }

    /// Runs `dotlockfs check-config` with these arguments.
    fn check<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_dotlockfs"))
            .arg("check-config")
            .args(arguments)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        Outcome {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn check_here(&self) -> Outcome {
        self.check::<&str>(&[])
    }
}

fn success(out: &str) -> Outcome {
    Outcome {
        status: 0,
        out: out.to_owned(),
        err: String::new(),
    }
}

fn failure(err: &str) -> Outcome {
    Outcome {
        status: 1,
        out: String::new(),
        err: err.to_owned(),
    }
}

const GOOD: &str = r#"version = 1

[[guard]]
files = ["scratch/**", "*.tmp"]
append = "off"
update = "off"
replace = "off"
advisory = false

[[guard]]
files = ["logs/**/*.log", "results.csv"]
record = "\n"
ack = "close"
lock_timeout = "2m"

[[guard]]
files = ["**"]
update = "off"
replace = "off"
advisory = false
dotlock = false
"#;

#[test]
fn a_good_file_is_told_rule_by_rule() {
    let expected = r#".dotlockfs.toml: 3 rules. The first that matches a file applies; files that
match none are not guarded.

rule 1: scratch/**, *.tmp
  everything     not guarded: these files pass straight through

rule 2: logs/**/*.log, results.csv
  appends        locked for a batch of writes, on the server before close(),
                 fsync() or a read of the file returns
  records        end in "\n"; only whole records reach the file
  truncation     under the same lock
  other writes   locked from open to the last close
  renames over   under the lock; ESTALE if the program has read an older version
  flock, fcntl   hold across hosts, by the same lock
  X.lock         respected, and taken too, for programs that lock a file X so
  waiting        2m at most, then EAGAIN; flock and fcntl as long as it takes
  dead locks     broken after 1m without a sign of life; X.lock of other
                 programs after 30m
  late writes    of a broken lock's holder meet the old file, a copy takes its
                 place; not if it is larger than 1.0 GiB

rule 3: **
  appends        locked for each write, on the server before write() returns
  truncation     under the same lock
  other writes   not guarded
  renames over   not guarded
  flock, fcntl   passed on to the file system below
  X.lock         not taken: programs that lock a file X in this way are not kept
                 out
  waiting        30s at most, then EAGAIN
  dead locks     broken after 1m without a sign of life
  late writes    of a broken lock's holder meet the old file, a copy takes its
                 place; not if it is larger than 1.0 GiB
"#;
    let world = World::with(GOOD);
    assert_eq!(world.check_here(), success(expected));
    assert_eq!(world.check(&[".dotlockfs.toml"]), success(expected));
    let by_directory = expected.replacen(".dotlockfs.toml", "./.dotlockfs.toml", 1);
    assert_eq!(world.check(&["."]), success(&by_directory));
}

#[test]
fn a_directory_without_a_rule_file_guards_every_file_for_appends_and_locks() {
    let expected = r#".dotlockfs.toml does not exist: no rules, so every file is guarded for appends
and locks.

every file:
  appends        locked for each write, on the server before write() returns
  truncation     under the same lock
  other writes   not guarded
  renames over   not guarded
  flock, fcntl   hold across hosts, by the same lock
  X.lock         respected, and taken too, for programs that lock a file X so
  waiting        30s at most, then EAGAIN; flock and fcntl as long as it takes
  dead locks     broken after 1m without a sign of life; X.lock of other
                 programs after 30m
  late writes    of a broken lock's holder meet the old file, a copy takes its
                 place; not if it is larger than 1.0 GiB
"#;
    let world = World::empty();
    assert_eq!(world.check_here(), success(expected));
    let by_directory = world.check(&["."]);
    assert!(
        by_directory
            .out
            .starts_with("./.dotlockfs.toml does not exist: ")
    );
    assert_eq!(
        world.check(&[".", "--path", "a/b"]),
        success("a/b: guarded for appends and locks; there are no rules\n")
    );
}

#[test]
fn a_file_without_rules_is_like_no_file() {
    let outcome = World::with("version = 1\n").check_here();
    let expected = ".dotlockfs.toml: no rules, so every file is guarded for appends and locks.\n";
    assert!(outcome.out.starts_with(expected), "{outcome:?}");
    assert_eq!(outcome.status, 0);
}

#[test]
fn any_other_missing_file_is_an_error() {
    let world = World::empty();
    assert_eq!(
        world.check(&["rules.toml"]),
        failure(
            "dotlockfs: cannot read the rule file rules.toml: \
             No such file or directory (os error 2)\n"
        )
    );
    assert_eq!(world.check(&["missing/.dotlockfs.toml"]).status, 1);
}

#[test]
fn the_rule_of_a_path_is_told_in_one_line() {
    let world = World::with(
        "version = 1\n\
         [[guard]]\nfiles = ['*.tmp']\nappend = 'off'\nupdate = 'off'\nreplace = 'off'\n\
         advisory = false\n\
         [[guard]]\nfiles = ['logs/**/*.log', 'results.csv']\n",
    );
    let table = [
        ("results.csv", "rule 2 (results.csv) applies"),
        ("deep/down/results.csv", "rule 2 (results.csv) applies"),
        ("logs/a.log", "rule 2 (logs/**/*.log) applies"),
        ("/logs//x/./a.log", "rule 2 (logs/**/*.log) applies"),
        ("logs/a.tmp", "rule 1 (*.tmp) applies; not guarded"),
        ("a.log", "not guarded; no rule matches"),
        ("RESULTS.CSV", "not guarded; no rule matches"),
        (".dotlockfs.toml", "not guarded; it is the rule file"),
    ];
    let mut arguments = Vec::new();
    let mut expected = String::new();
    for (path, answer) in table {
        arguments.extend(["--path", path]);
        expected.push_str(&format!("{path}: {answer}\n"));
    }
    assert_eq!(world.check(&arguments), success(&expected));
}

#[test]
fn paths_with_odd_names_are_matched_and_shown_on_one_line() {
    let world = World::with("version = 1\n[[guard]]\nfiles = ['*.log', 'größe/*', '\\*']\n");
    let table: [(&[u8], &str); 6] = [
        (b"caf\xe9.log", "caf\\xe9.log: rule 1 (*.log) applies\n"),
        (
            b"two\nlines.log",
            "two\\nlines.log: rule 1 (*.log) applies\n",
        ),
        (
            b"a\x1b[31m.log",
            "a\\u{1b}[31m.log: rule 1 (*.log) applies\n",
        ),
        (b" .log", " .log: rule 1 (*.log) applies\n"),
        ("größe/ä".as_bytes(), "größe/ä: rule 1 (größe/*) applies\n"),
        (b"*", "*: rule 1 (\\\\*) applies\n"),
    ];
    for (path, expected) in table {
        let arguments = [OsStr::new("--path"), OsStr::from_bytes(path)];
        assert_eq!(world.check(&arguments), success(expected));
    }
}

#[test]
fn paths_outside_the_mount_are_refused() {
    let world = World::with(GOOD);
    for path in ["..", "../a", "a/../b", "/", "."] {
        let expected = format!(
            "dotlockfs: {path}: a path below the root of the mount, without \"..\", is needed\n"
        );
        assert_eq!(world.check(&["--path", path]), failure(&expected));
    }
}

/// The rules, and the message after `dotlockfs: .dotlockfs.toml`.
const FAULTS: &[(&str, &str)] = &[
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nappend = \"wirte\" # slip\n",
        r#":4:10: append cannot be "wirte"
  4 | append = "wirte" # slip
    |          ^^^^^^^
  use "write", "open" or "off""#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nlock_timout = \"3s\"\n",
        r#":4:1: unknown key "lock_timout"
  4 | lock_timout = "3s"
    | ^^^^^^^^^^^
  did you mean lock_timeout?
  the keys of [[guard]] are: files, append, ack, record, update, replace,
  advisory, dotlock, lock_timeout, stale_after, foreign_stale_after, fence,
  fence_limit"#,
    ),
    (
        "version = 1\nguards = []\n",
        r#":2:1: unknown key "guards"
  2 | guards = []
    | ^^^^^^
  did you mean guard?
  the keys of a rule file are: version, guard"#,
    ),
    (
        "version = 1\nappend = \"off\"\n",
        r#":2:1: unknown key "append"
  2 | append = "off"
    | ^^^^^^
  append belongs to a rule, below a line [[guard]]"#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\", \"logs/[a-\"]\n",
        r#":3:15: not a pattern: unclosed character class; missing ']'
  3 | files = ["a", "logs/[a-"]
    |               ^^^^^^^^^^
  put a backslash before [, ], {, }, * or ? to mean the character itself"#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"../other\"]\n",
        r#":3:10: a pattern may not hold ".."
  3 | files = ["../other"]
    |          ^^^^^^^^^^
  patterns are relative to the root of the mount, and match nothing outside it"#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = []\n",
        r#":3:9: files is empty, so this guard is for no file
  3 | files = []
    |         ^^
  for every file, write files = ["**"]"#,
    ),
    (
        "version = 1\n\n[[guard]]\nrecord = \"\\n\"\n",
        r#":3:1: this guard does not say which files it is for
  3 | [[guard]]
    | ^^^^^^^^^
  add a line such as: files = ["*.log"]"#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nlock_timeout = 30\n",
        r#":4:16: lock_timeout must be a string, not an integer
  4 | lock_timeout = 30
    |                ^^
  write: lock_timeout = "30s""#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nlock_timeout = \"30\"\n",
        r#":4:16: lock_timeout is not a duration: "30"
  4 | lock_timeout = "30"
    |                ^^^^
  write a number and a unit, such as "500ms", "30s" or "5m""#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nstale_after = \"3s\"\n",
        r#":4:15: stale_after cannot be "3s"
  4 | stale_after = "3s"
    |               ^^^^
  it may be from 4s to 1day"#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nrecord = \"\"\n",
        r#":4:10: record is empty; it must say what ends a record
  4 | record = ""
    |          ^^
  for lines, write record = "\n"; to let each write be a record, leave it out"#,
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nadvisory = \"yes\"\n",
        r#":4:12: advisory must be true or false, not a string
  4 | advisory = "yes"
    |            ^^^^^
  write true or false, without quotes"#,
    ),
    (
        "version = 1\n[guard]\nfiles = [\"a\"]\n",
        r#":2:1: guard must be a list of tables, not a table
  2 | [guard]
    | ^^^^^^^
  begin each rule with a line [[guard]], with two brackets"#,
    ),
    (
        "version = 2\n",
        r#":1:11: rule files of version 2 are not understood
  1 | version = 2
    |           ^
  this dotlockfs reads version = 1"#,
    ),
    (
        "",
        ": the version is missing\n  begin the file with the line: version = 1",
    ),
    (
        "version = 1\n[[guard]]\nfiles = [\"a\"]\nappend = write\n",
        r#":4:10: string values must be quoted, expected literal string
  4 | append = write
    |          ^^^^^"#,
    ),
];

#[test]
fn each_fault_is_shown_at_its_place_with_what_would_be_right() {
    for (rules, message) in FAULTS {
        let expected = failure(&format!("dotlockfs: .dotlockfs.toml{message}\n"));
        assert_eq!(World::with(rules).check_here(), expected, "{rules}");
    }
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let world = World::with(b"version = 1\n# \xe9\n");
    let expected = "dotlockfs: .dotlockfs.toml:2:3: the byte 0xe9 is not UTF-8\n  2 | # \u{fffd}\n    \
                    |   ^\n  save the file as UTF-8\n";
    assert_eq!(world.check_here(), failure(expected));

    world.write(".dotlockfs.toml", vec![b'#'; 1024 * 1024 + 1]);
    let expected = "dotlockfs: .dotlockfs.toml: larger than 1 MiB; this is not a rule file\n";
    assert_eq!(world.check_here(), failure(expected));
}

#[test]
fn a_fifo_is_refused_without_waiting_for_a_writer() {
    let world = World::empty();
    let made = Command::new("mkfifo")
        .arg(world.dir.path().join("fifo"))
        .status();
    assert!(made.unwrap().success());
    let expected = "dotlockfs: fifo: not a regular file\n";
    assert_eq!(world.check(&["fifo"]), failure(expected));
}

#[test]
fn a_rule_file_in_a_directory_with_an_odd_name_is_found() {
    let world = World::empty();
    let odd = Path::new(OsStr::from_bytes(b"a b\xff\n"));
    std::fs::create_dir(world.dir.path().join(odd)).unwrap();
    let rules = world.dir.path().join(odd).join(".dotlockfs.toml");
    std::fs::write(rules, "version = 2\n").unwrap();
    let outcome = world.check(&[odd]);
    let expected = "dotlockfs: a b\\xff\\n/.dotlockfs.toml:1:11: rule files of version 2";
    assert!(outcome.err.starts_with(expected), "{outcome:?}");
}
