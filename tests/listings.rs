//! The kernel keeps listings of directories, and no program can tell, but by the speed: what is
//! changed below, or through another mount, is in the next listing.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::faults::Faults;
use common::talker::Talker;
use common::{ALICE, DEADLINE, Mount, directory, shell, wait_until};
use tempfile::TempDir;

/// Rules by which only `guarded` is guarded.
const RULES: &str = "version = 1\n\n[[guard]]\nfiles = [\"guarded\"]\nupdate = \"open\"\n";

/// Directories of old: the kernel keeps no listing of what has just been changed.
fn source(directories: usize) -> TempDir {
    let source = directory();
    fs::write(source.path().join(".dotlockfs.toml"), RULES).expect("write");
    for number in 0..directories {
        let path = source.path().join(number.to_string());
        fs::create_dir(&path).expect("mkdir");
        fs::write(path.join("a"), "").expect("write");
        fs::write(path.join("b"), "").expect("write");
    }
    leave_alone();
    source
}

/// Waits until what was changed so far is of old.
fn leave_alone() {
    let changed = SystemTime::now();
    assert!(wait_until(DEADLINE, || {
        changed.elapsed().expect("the clock goes on") > Duration::from_millis(3500)
    }));
}

fn list(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("the directory is read");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.into_string().expect("a name of these tests")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

#[test]
fn a_directory_that_is_listed_again_is_not_read_again() {
    let source = source(1);
    let mount = Mount::new(source.path());
    assert_eq!(list(&mount.join("0")), ["a", "b"]);
    let reads = Faults::delay(&mount, "getdents64", Duration::from_micros(1), &[]);
    for _ in 0..3 {
        assert_eq!(list(&mount.join("0")), ["a", "b"]);
    }
    assert_eq!(reads.count(), 0);
    // But it is when something has changed.
    fs::write(source.path().join("0/c"), "").expect("write");
    assert_eq!(list(&mount.join("0")), ["a", "b", "c"]);
    reads.end();
}

/// One change after another, each followed by a listing at once: most come within one tick of the
/// file system's clock.
#[test]
fn every_change_is_in_the_next_listing() {
    type Change = fn(&Path);
    let changes: [(Change, &[&str]); 5] = [
        (
            |dir| fs::write(dir.join("c"), "").expect("write"),
            &["a", "b", "c"],
        ),
        (
            |dir| fs::remove_file(dir.join("a")).expect("unlink"),
            &["b", "c"],
        ),
        (
            |dir| fs::rename(dir.join("b"), dir.join("d")).expect("rename"),
            &["c", "d"],
        ),
        (
            |dir| fs::create_dir(dir.join("b")).expect("mkdir"),
            &["b", "c", "d"],
        ),
        (
            |dir| fs::hard_link(dir.join("c"), dir.join("e")).expect("link"),
            &["b", "c", "d", "e"],
        ),
    ];
    let source = source(60);
    let (mount, other) = (Mount::new(source.path()), Mount::new(source.path()));
    let places = [source.path(), mount.path(), other.path()];
    for directory in 0..60 {
        let directory = directory.to_string();
        for place in places {
            assert_eq!(list(&place.join(&directory)), ["a", "b"]);
        }
    }
    for directory in 0..60 {
        // Below, through this mount, and through another.
        let changed = places[directory % 3];
        let directory = directory.to_string();
        for (change, expected) in &changes {
            change(&changed.join(&directory));
            for place in places {
                let place = place.join(&directory);
                assert_eq!(&list(&place), expected, "{}", place.display());
            }
        }
    }
}

/// Whoever sets the time of a directory back to what it was cannot hide a change.
#[test]
fn a_change_whose_time_was_set_back_is_in_the_next_listing() {
    let source = source(1);
    let mount = Mount::new(source.path());
    let below = source.path().join("0");
    assert_eq!(list(&mount.join("0")), ["a", "b"]);
    let before = fs::metadata(&below)
        .expect("stat")
        .modified()
        .expect("mtime");
    fs::write(below.join("c"), "").expect("write");
    let opened = fs::File::open(&below).expect("open");
    opened.set_modified(before).expect("utimens");
    assert_eq!(list(&mount.join("0")), ["a", "b", "c"]);
}

/// A user who may list a directory, but not search it, sees no name that is the lock's own; nor does
/// anybody after that.
#[test]
fn who_may_only_list_a_directory_sees_what_others_see() {
    let source = source(1);
    let mount = Mount::with(source.path(), &["-o", "allow_other"]);
    let mut holder = Talker::new(
        "import os, sys\nheld = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n\
         print('held', flush=True)\nsys.stdin.read()",
        &[&mount.join("0/guarded")],
    );
    holder.hears("held");
    let below = source.path().join("0");
    assert!(below.join("guarded.lock").exists());
    fs::set_permissions(&below, fs::Permissions::from_mode(0o744)).expect("chmod");
    leave_alone();
    for _ in 0..2 {
        let seen = shell(ALICE, "ls \"$1\" || :", &[&mount.join("0")]);
        assert_eq!(seen, "a\nb\nguarded\n");
        assert_eq!(list(&mount.join("0")), ["a", "b", "guarded"]);
    }
    drop(holder);
}
