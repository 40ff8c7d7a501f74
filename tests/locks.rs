//! A program must get the same answers about locks on the mount as on a local disk.
//!
//! `locks/conformance.py` lets several processes lock a file in every way there is, and prints
//! what each is told. It runs on a plain directory and on mounts of others; the transcripts must
//! be the same, case by case.

mod common;

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};

use common::transcript::{cases, differences};
use common::{ALICE, Mount, Who, command, directory, end_of, require_program, require_root};
use tempfile::{NamedTempFile, TempDir};

/// All files are guarded, with their locks, which is what a rule asks for if it does not say
/// otherwise.
const GUARDED: &str =
    "version = 1\n\n[[guard]]\nfiles = [\"**\"]\nupdate = \"off\"\nreplace = \"off\"\n";

/// None of the files of the cases is guarded.
const NOT_GUARDED: &str = "version = 1\n\n[[guard]]\nfiles = [\"only-this-name\"]\n";

/// What is locked is the guarded name, not the file: another name of the same file, be it a hard
/// link or one that it gets while it is locked, is another lock.
const BY_NAME: [&str; 3] = [
    "== together two_names_of_one_file",
    "== fcntl renamed_and_removed_files",
    "== flock renamed_and_removed_files",
];

/// Fewer cases than this mean that the list was cut off.
const CASES_AT_LEAST: usize = 70;

#[test]
fn root_sees_the_locks_of_a_local_disk() {
    compare(Who::Root);
}

#[test]
fn a_user_sees_the_locks_of_a_local_disk() {
    compare(ALICE);
}

#[test]
fn differences_are_found() {
    let report = |plain, mount| differences(&cases(plain), &cases(mount));
    let plain = "== a\n  one\n== b\n  two\n";
    assert_eq!(report(plain, plain), "");
    let other = "== a\n  one\n== b\n  three\n";
    assert_eq!(report(plain, other), "== b\n  -   two\n  +   three\n");
    assert_eq!(report(plain, "== a\n  one\n"), "== b\n  -   two\n");
    assert_eq!(report("", "== a\n  one\n"), "== a\n  +   one\n");
}

/// If nobody locked anything, each case would show it.
#[test]
fn every_case_can_fail() {
    let program = Cases::new();
    let (place, other) = (place(None), place(None));
    let with = program.start(Who::Root, &place.path().join("work"), &[]);
    let without = program.start(Who::Root, &other.path().join("work"), &["--without-locks"]);
    let (with, without) = (with.transcript(), without.transcript());
    let with = cases(&with);
    let without = cases(&without);
    let blind: Vec<_> = with
        .iter()
        .filter(|(name, lines)| without.get(*name) == Some(lines))
        .collect();
    assert!(blind.is_empty(), "the same without locks: {blind:?}");
}

/// Runs the cases on a plain directory, and on mounts of others, and compares.
fn compare(who: Who) {
    let program = Cases::new();
    let plain = place(None);
    let expected = program.start(who, &plain.path().join("work"), &[]);
    let mut runs = Vec::new();
    for rules in [GUARDED, NOT_GUARDED] {
        let source = place(Some(rules));
        let mount = Mount::with(source.path(), &["-o", "allow_other"]);
        let run = program.start(who, &mount.join("work"), &[]);
        runs.push((rules, run, mount, source));
    }

    let expected = expected.transcript();
    let headings = expected.lines().filter(|line| line.starts_with("== "));
    let names: HashSet<&str> = headings.clone().collect();
    assert_eq!(names.len(), headings.count(), "two cases have one name");
    assert!(
        names.len() >= CASES_AT_LEAST && !expected.contains("BROKE") && !expected.contains("BUT"),
        "the cases do not run on a plain directory:\n{expected}"
    );
    for (rules, run, mount, _source) in runs {
        let seen = run.transcript();
        let (mut plain, mut seen) = (cases(&expected), cases(&seen));
        if rules == GUARDED {
            for case in BY_NAME {
                let (there, here) = (plain.remove(case), seen.remove(case));
                assert_ne!(
                    there, here,
                    "{case}: two names share their locks now: say so"
                );
            }
        }
        let report = differences(&plain, &seen);
        assert!(
            report.is_empty(),
            "- plain directory, + mount, {who:?}, with these rules:\n{rules}\n{report}"
        );
        mount.unmount();
    }
}

/// A directory with another in it, `work`, where everybody may make files.
fn place(rules: Option<&str>) -> TempDir {
    let place = directory();
    if let Some(rules) = rules {
        fs::write(place.path().join(".dotlockfs.toml"), rules).expect("write the rules");
    }
    let work = place.path().join("work");
    fs::create_dir(&work).expect("mkdir");
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).expect("chmod");
    place
}

/// The program with the cases, where every user may read it.
struct Cases {
    directory: TempDir,
}

impl Cases {
    fn new() -> Cases {
        require_root();
        require_program("python3", "python3");
        require_program("setpriv", "util-linux");
        require_program("flock", "util-linux");
        let cases = Cases {
            directory: directory(),
        };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/locks");
        for entry in fs::read_dir(&program).expect("tests/locks") {
            let entry = entry.expect("an entry");
            if entry.path().extension().is_some_and(|it| it == "py") {
                fs::copy(entry.path(), cases.directory.path().join(entry.file_name()))
                    .expect("copy");
            }
        }
        cases
    }

    /// Lets somebody run the cases in a directory. The output goes to a file, so that a process
    /// that hangs in the mount cannot keep the test from ending.
    fn start(&self, who: Who, place: &Path, options: &[&str]) -> Run {
        let output = NamedTempFile::new().expect("a temporary file");
        let file = || {
            File::options()
                .append(true)
                .open(output.path())
                .expect("open")
        };
        let mut command = command(who, "python3");
        command
            .arg("-B")
            .arg(self.directory.path().join("conformance.py"))
            .arg(place)
            .args(options)
            .stdout(file())
            .stderr(file());
        let child = command.spawn().expect("python3 starts");
        Run {
            child,
            output,
            command,
        }
    }
}

/// A run of the cases.
struct Run {
    child: Child,
    output: NamedTempFile,
    command: Command,
}

impl Run {
    /// What it has printed when it has ended.
    fn transcript(mut self) -> String {
        let status = end_of(&mut self.child, &format!("{:?}", self.command));
        let text = fs::read_to_string(self.output.path()).expect("the transcript is ASCII");
        assert!(status.success(), "{:?}: {status}\n{text}", self.command);
        text
    }
}
