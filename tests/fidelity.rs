//! A program must not be able to tell the mount from the directory below.
//!
//! `fidelity/ops.py` does a long list of operations and prints what a program sees. It runs once
//! on a plain directory and once on a mount of another plain directory of the same file system,
//! as the same user; both transcripts must be the same, case by case.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use common::transcript::{cases, differences};
use common::{
    ALICE, BOB, Mount, Who, command, directory, end_of, python, require_program, require_root,
};
use tempfile::TempDir;

/// Rules by which none of the files of the cases is guarded.
const GUARD_NOTHING: &str = "version = 1\n\n[[guard]]\nfiles = [\"only-this-name\"]\n";

/// Fewer cases than this mean that the list was cut off.
const CASES_AT_LEAST: usize = 110;

#[test]
fn root_with_every_file_guarded() {
    compare(Who::Root, None);
}

#[test]
fn root_with_no_file_guarded() {
    compare(Who::Root, Some(GUARD_NOTHING));
}

#[test]
fn a_user_with_a_group_with_every_file_guarded() {
    compare(ALICE, None);
}

#[test]
fn a_user_with_a_group_with_no_file_guarded() {
    compare(ALICE, Some(GUARD_NOTHING));
}

#[test]
fn another_user_with_every_file_guarded() {
    compare(BOB, None);
}

#[test]
fn another_user_with_no_file_guarded() {
    compare(BOB, Some(GUARD_NOTHING));
}

/// The one call that the mount refuses and the directory below does not.
#[test]
fn ioctl_of_a_file_is_refused() {
    let source = directory();
    fs::write(source.path().join("file"), "content").expect("write");
    let mount = Mount::new(source.path());
    let program = "
import array, errno, fcntl, os, sys
try:
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x80086601, array.array('l', [0]))
    print('answered')
except OSError as error:
    print(errno.errorcode[error.errno])
";
    assert_eq!(
        python(Who::Root, program, &[&mount.join("file")]),
        "ENOTTY\n"
    );
}

/// Runs the whole list on a plain directory and on a mount.
fn compare(who: Who, rules: Option<&str>) {
    require_root();
    require_program("python3", "python3");
    require_program("setpriv", "util-linux");
    let operations = Operations::new();
    let plain = directory();
    let source = directory();
    for place in [&plain, &source] {
        if let Some(rules) = rules {
            fs::write(place.path().join(".dotlockfs.toml"), rules).expect("write the rules");
        }
        operations.transcript("prepare", place.path(), Who::Root);
    }

    let expected = operations.transcript("run", plain.path(), who);
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let seen = operations.transcript("run", mount.path(), who);
    mount.unmount();

    assert!(
        cases(&expected).len() >= CASES_AT_LEAST && !expected.contains("CASE BROKE"),
        "the list of operations does not run on a plain directory:\n{expected}"
    );
    let report = differences(&cases(&expected), &cases(&seen));
    assert!(
        report.is_empty(),
        "- plain directory, + mount, {who:?}:\n{report}"
    );

    // A fresh mount holds no memory of what was done: this is what reached the source.
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let left = operations.transcript("tree", plain.path(), Who::Root);
    let arrived = operations.transcript("tree", mount.path(), Who::Root);
    let report = differences(&cases(&left), &cases(&arrived));
    assert!(
        report.is_empty(),
        "left behind: - plain directory, + mount, {who:?}:\n{report}"
    );
}

/// The program with the operations, where every user may read it.
struct Operations {
    directory: TempDir,
}

impl Operations {
    fn new() -> Operations {
        let operations = Operations {
            directory: directory(),
        };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity");
        for entry in fs::read_dir(&program).expect("tests/fidelity") {
            let entry = entry.expect("an entry");
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "py")
            {
                fs::copy(entry.path(), operations.path(entry.file_name())).expect("copy");
            }
        }
        operations
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Lets somebody run a part of the program in a directory. The output goes to a file, so that
    /// a process that hangs in the mount cannot keep the test from ending.
    fn transcript(&self, part: &str, place: &Path, who: Who) -> String {
        let output = tempfile::NamedTempFile::new().expect("a temporary file");
        let file = |()| {
            File::options()
                .append(true)
                .open(output.path())
                .expect("open")
        };
        let mut child = command(who, "python3")
            .arg("-B")
            .arg(self.path("ops.py"))
            .arg(part)
            .arg(place)
            .stdout(file(()))
            .stderr(file(()))
            .spawn()
            .expect("python3 starts");
        let status = end_of(&mut child, &format!("ops.py {part} {}", place.display()));
        let text = fs::read_to_string(output.path()).expect("the transcript is ASCII");
        assert!(status.success(), "ops.py {part}: {status}\n{text}");
        text
    }
}
