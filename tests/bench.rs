//! `dotlockfs bench` as a user runs it: every measure has its figures, nothing is left behind, and
//! what does not work is said in one line. How fast anything is, is not asked here.

mod common;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{
    ALICE, DEADLINE, Finished, Who, command, directory, dotlockfs, end_of, finish, home_of_a_user,
    leftovers, python, read_aside, require_root, wait_until,
};
use serde_json::Value;
use tempfile::TempDir;

/// Amounts that are over in no time.
const TINY: [&str; 10] = [
    "--rounds=1",
    "--seconds=0.02",
    "--size=1MiB",
    "--files=50",
    "--inodes=300",
    // Every group but those that a test is not about.
    "--json",
    "--only",
    "appends,large,random,small,walk,memory",
    "--svg",
    "chart.svg",
];

/// A directory to measure in, and another for what is temporary; so that all that is left can be
/// found.
struct Field {
    root: TempDir,
}

impl Field {
    fn new() -> Field {
        require_root();
        let root = directory();
        fs::create_dir(root.path().join("dir")).expect("mkdir");
        fs::create_dir(root.path().join("tmp")).expect("mkdir");
        Field { root }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("dir")
    }

    fn bench(&self, arguments: &[&str]) -> Command {
        let mut command = command(Who::Root, dotlockfs());
        command
            .arg("bench")
            .args(arguments)
            .env("TMPDIR", self.root.path().join("tmp"))
            .current_dir(self.root.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(self.bench(arguments).arg(self.dir()))
    }

    #[track_caller]
    fn assert_nothing_is_left(&self) {
        // Mounts and processes first: what is in a directory could be seen through a mount.
        let nothing = Vec::<String>::new();
        assert_eq!(leftovers::mounts(self.root.path()), nothing);
        assert_eq!(leftovers::processes(self.root.path()), nothing);
        for part in ["dir", "tmp"] {
            assert_eq!(
                files_in(&self.root.path().join(part)),
                Vec::<PathBuf>::new()
            );
        }
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("readdir");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every figure under this name, anywhere in the report.
fn all_of<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| match key == name {
                true => vec![value],
                false => all_of(value, name),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(|value| all_of(value, name)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_measure_has_its_figures_and_nothing_is_left() {
    let field = Field::new();
    let report = json(&field.run(&TINY).success());
    field.assert_nothing_is_left();

    let measures = report["measures"].as_array().expect("a list");
    let of_group = |group: &str| measures.iter().filter(|row| row["group"] == group).count();
    let groups = ["appends", "large", "random", "small", "walk"];
    assert_eq!(groups.map(of_group), [12, 3, 2, 4, 2], "{report}");
    for row in measures {
        for subject in ["plain", "dotlockfs"] {
            let median = row["subjects"][subject]["median"].as_f64();
            assert!(
                median.is_some_and(|median| median > 0.0),
                "{subject}: {row}"
            );
        }
        let ratio = &row["subjects"]["dotlockfs"]["to_plain"];
        assert!(
            ratio["median"].as_f64().is_some_and(|ratio| ratio > 0.0),
            "{row}"
        );
        assert!(
            row["subjects"]["dotlockfs"]["cpu_microseconds"].is_number(),
            "{row}"
        );
    }
    assert!(
        all_of(&report, "median")
            .iter()
            .all(|figure| figure.as_f64() > Some(0.0))
    );
    let memory = report["memory"].as_array().expect("a list");
    assert_eq!(
        (&memory[0]["subject"], &memory[0]["inodes"]),
        (&"dotlockfs".into(), &202.into())
    );

    let records = &report["records"]["dotlockfs"];
    // 2 kinds of rules, held or not, 1, 2 and 8 writers: 44 processes with a record each at least.
    assert!(records["appended"].as_u64() >= Some(44), "{records}");
    for fault in ["lost", "torn", "doubled", "disordered_files"] {
        assert_eq!(records[fault], 0, "{records}");
    }
    let place = &report["places"][0];
    assert!(
        place["file_system"]
            .as_str()
            .is_some_and(|kind| !kind.is_empty()),
        "{place}"
    );

    let program = "
import sys, xml.etree.ElementTree as tree
root = tree.parse(sys.argv[1]).getroot()
assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
names = [text.text for text in root.iter('{http://www.w3.org/2000/svg}text')]
print(names.count('8 writers, held'), names.count('rename'))
";
    let chart = field.root.path().join("chart.svg");
    assert_eq!(python(Who::Root, program, &[&chart]), "2 1\n");
}

#[test]
fn the_table_fits_a_terminal_and_names_what_it_ran_on() {
    let field = Field::new();
    let tiny = &TINY[..5];
    let text = field
        .run(&[tiny, &["--only", "appends,large,random,small,walk,memory"]].concat())
        .success();
    // The kernel, the path and the mount's options are given, and may be one long word.
    let wide = |line: &&str| line.chars().count() > 80 && line.contains("  ");
    assert_eq!(
        text.lines().filter(wide).collect::<Vec<_>>(),
        Vec::<&str>::new(),
        "{text}"
    );
    for part in [
        "dotlockfs 0.",
        " on Linux ",
        field.dir().to_str().expect("text"),
        "x plain",
        "guarded appends, ack = \"close\", records/s",
        "memory of dotlockfs: ",
        "all kept: none lost, torn or doubled",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    field.assert_nothing_is_left();
}

#[test]
fn an_idle_daemon_is_seen_to_sleep() {
    let field = Field::new();
    let report = json(&field.run(&["--only", "idle", "--json"]).success());
    // Whether it sleeps tests/mount.rs asks, and waits for it as long as a busy machine needs.
    let idle = &report["idle"][0];
    assert!(
        idle["woken"].is_u64() && idle["seconds"].as_f64() > Some(0.0),
        "{report}"
    );
    assert!(idle["after_seconds"].as_f64() >= Some(10.0), "{idle}");
    assert_eq!(report["measures"], Value::Array(Vec::new()));
    field.assert_nothing_is_left();
}

#[test]
fn an_interruption_leaves_nothing() {
    let field = Field::new();
    let mut command = field.bench(&["--only=appends", "--rounds=1000", "--svg=chart.svg"]);
    let mut bench = Running(
        command
            .args(["--seconds", "0.05"])
            .arg(field.dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts"),
    );
    let grows = || {
        let below = files_in(&field.dir());
        let guarded = below.iter().map(|made| made.join("source/dotlockfs"));
        let names = guarded
            .filter_map(|path| fs::read_dir(path).ok())
            .flatten()
            .flatten();
        let mut names =
            names.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        names.any(|entry| entry.metadata().is_ok_and(|file| file.len() > 0))
    };
    assert!(wait_until(DEADLINE, grows), "nothing is appended");
    assert!(!leftovers::mounts(field.root.path()).is_empty());
    common::shell(
        Who::Root,
        "kill -INT $1",
        &[Path::new(&bench.0.id().to_string())],
    );
    let (stdout, stderr) = (bench.0.stdout.take(), bench.0.stderr.take());
    let (stdout, stderr) = (
        read_aside(stdout.expect("piped")),
        read_aside(stderr.expect("piped")),
    );
    let status = end_of(&mut bench.0, "bench");
    let said = stderr.join().expect("the reader does not panic");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(stdout.join().expect("the reader does not panic"), "");
    assert!(!field.root.path().join("chart.svg").exists());
    field.assert_nothing_is_left();
}

/// Interrupted if the test fails, so that it takes down what it has mounted.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let pid = self.0.id().to_string();
            let _ = Command::new("kill").args(["-INT", &pid]).status();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn hosts_append_to_one_file_at_the_same_time() {
    let field = Field::new();
    let host = |role: &str| {
        let arguments = [
            "--role",
            role,
            "--hosts",
            "2",
            "--rounds=1",
            "--seconds=0.02",
            "--json",
        ];
        let mut command = field.bench(&arguments);
        command.arg(field.dir());
        std::thread::spawn(move || finish(&mut command))
    };
    let hosts = [host("b"), host("a")].map(|host| host.join().expect("no panic").success());
    for (report, role) in hosts.iter().zip(["b", "a"]) {
        let report = json(report);
        assert_eq!(report["role"], role);
        assert_eq!(report["measures"].as_array().map(Vec::len), Some(12));
        let records = &report["records"]["dotlockfs"];
        // Each judges what both have appended.
        assert!(records["appended"].as_u64() >= Some(88), "{records}");
        assert_eq!((&records["lost"], &records["torn"]), (&0.into(), &0.into()));
    }
    field.assert_nothing_is_left();
}

#[test]
fn a_user_measures_by_fusermount() {
    let home = home_of_a_user();
    let source = home.path().join("source");
    let temporary = home.path().join("mountpoint");
    let finished = finish(
        command(ALICE, home.path().join("dotlockfs"))
            .args(["bench", "--only=appends,large", "--json"])
            .args(&TINY[..5])
            .arg(&source)
            .env("TMPDIR", &temporary),
    );
    let report = json(&finished.success());
    assert_eq!(report["host"]["root"], false);
    assert_eq!(report["places"][0]["passthrough"], false);
    assert!(
        report["measures"][0]["subjects"]
            .get("nopassthrough")
            .is_none()
    );
    assert_eq!(report["records"]["dotlockfs"]["lost"], 0);
    assert_eq!(leftovers::mounts(home.path()), Vec::<String>::new());
    assert_eq!(
        (files_in(&source).len(), files_in(&temporary).len()),
        (0, 0)
    );
}

#[track_caller]
fn assert_one_line(finished: &Finished, part: &str) {
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(part), "{}", finished.stderr);
}

#[test]
fn what_does_not_work_is_said_in_one_line() {
    let field = Field::new();
    let missing = finish(field.bench(&["/no/such/directory"]).arg("--quick"));
    assert_one_line(&missing, "/no/such/directory");
    let chart = field.run(&["--svg", "no/such/chart.svg"]);
    assert_one_line(&chart, "no/such/chart.svg");
    let two = field.run(&["--role=a", "--hosts=2", "other"]);
    assert_one_line(&two, "one DIR");
    field.assert_nothing_is_left();

    let home = home_of_a_user();
    let mut user = command(ALICE, home.path().join("dotlockfs"));
    let user = user
        .arg("bench")
        .env("TMPDIR", home.path().join("mountpoint"));
    let closed = home.path().join("closed");
    fs::create_dir(&closed).expect("mkdir");
    chown(&closed, Some(0), Some(0)).expect("chown");
    let closed_to_her = finish(user.arg(&closed));
    assert_one_line(&closed_to_her, closed.to_str().expect("text"));
    let mut without_helper = command(ALICE, "env");
    without_helper.arg("PATH=/nowhere");
    without_helper
        .arg(home.path().join("dotlockfs"))
        .arg("bench");
    let without_helper = finish(&mut without_helper);
    assert_one_line(&without_helper, "fusermount3");
}

#[test]
fn the_help_explains_the_groups_and_hides_the_workings() {
    let field = Field::new();
    let help = finish(&mut field.bench(&["--help"])).success();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in ["appends", "--role NAME --hosts N", "--quick", "Exit status"] {
        assert!(help.contains(word), "{word} is missing: {help}");
    }
    assert!(!help.contains("--job"), "{help}");
    let refused = finish(&mut field.bench(&["--seconds", "0"]));
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
}
