//! `dotlockfs demo` as a user runs it: it keeps every record, and leaves nothing behind, not even
//! when it is interrupted.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::leftovers;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(600);

/// A demo that has a temporary directory for itself, so that all it leaves behind can be found.
struct Demo {
    temporary: TempDir,
    child: Option<Child>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Demo {
        let temporary = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_dotlockfs"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let child = Some(child);
        Demo { temporary, child }
    }

    fn finish(&mut self) -> Output {
        let mut child = self.child.take().unwrap();
        wait(&mut child);
        child.wait_with_output().unwrap()
    }

    /// What the demo has in its temporary directory under any of its own names.
    fn find(&self, path: &str) -> Vec<PathBuf> {
        let made = fs::read_dir(self.temporary.path()).unwrap();
        made.map(|entry| entry.unwrap().path().join(path))
            .filter(|found| found.exists())
            .collect()
    }

    fn mounts(&self) -> Vec<String> {
        leftovers::mounts(self.temporary.path())
    }

    fn assert_nothing_is_left(&self) {
        // Mounts and processes first: what is in the directory could be seen through a mount.
        assert_eq!(self.mounts(), Vec::<String>::new());
        assert_eq!(
            leftovers::processes(self.temporary.path()),
            Vec::<String>::new()
        );
        assert_eq!(self.find(""), Vec::<PathBuf>::new());
    }

    /// Interrupts the demo once `file` of it has content, both mounts standing.
    fn interrupt_when_growing(&mut self, file: &str) -> Output {
        let deadline = Instant::now() + DEADLINE;
        let grows = |demo: &Demo| {
            let mut found = demo.find(file).into_iter();
            found.any(|path| fs::metadata(path).is_ok_and(|file| file.len() > 0))
        };
        while !grows(self) {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "ended early: {:?}", self.finish());
            assert!(Instant::now() < deadline, "nothing was written to {file}");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.mounts().len(), 2);
        let pid = self.child.as_ref().unwrap().id();
        assert!(shell(&format!("kill -INT {pid}")).success());
        self.finish()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only after a failure is there anything to do: let the demo clear up after itself.
        if let Some(child) = &mut self.child {
            shell(&format!("kill -INT {}", child.id()));
            wait(child);
        }
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the demo did not end within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn shell(script: &str) -> ExitStatus {
    Command::new("sh").args(["-c", script]).status().unwrap()
}

/// The fields of the table's lines for this place, without the name of the workload.
fn rows<'a>(text: &'a str, place: &str) -> Vec<Vec<&'a str>> {
    text.lines()
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line.split_once(place))
        .map(|(_, figures)| figures.split_whitespace().collect())
        .collect()
}

#[test]
fn every_record_is_kept_through_dotlockfs_and_nothing_is_left() {
    let mut demo = Demo::start(&["--records", "50"]);
    let output = demo.finish();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(errors, "", "no progress bar where there is no terminal");

    let guarded = rows(&text, " dotlockfs ");
    assert_eq!(guarded.len(), 2, "{text}");
    for figures in guarded {
        // expected, kept, torn, doubled, order
        assert_eq!(figures[..5], ["200", "200", "0", "0", "kept"], "{text}");
    }
    assert_eq!(rows(&text, " plain directory ").len(), 2, "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    demo.assert_nothing_is_left();
}

#[test]
fn the_plain_directory_tears_buffered_lines() {
    let mut demo = Demo::start(&["--records", "300"]);
    let text = String::from_utf8(demo.finish().stdout).unwrap();
    let plain = rows(&text, " plain directory ");
    // With some 40 cuts in the middle of a line, at 1 ms from each other, all four writers
    // would have to miss each other every time.
    assert_ne!(plain[1][2], "0", "{text}");
}

#[test]
fn an_interruption_of_the_plain_run_leaves_nothing() {
    let mut demo = Demo::start(&["--records", "1000000"]);
    let output = demo.interrupt_when_growing("plain/results.csv");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    demo.assert_nothing_is_left();
}

#[test]
fn an_interruption_of_the_guarded_run_leaves_nothing() {
    let mut demo = Demo::start(&["--records", "5000"]);
    let output = demo.interrupt_when_growing("guarded/results.csv");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    demo.assert_nothing_is_left();
}

#[test]
fn with_keep_the_files_stay_and_with_dir_they_are_there() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().to_str().unwrap();
    let mut demo = Demo::start(&["--records", "5", "--keep", "--dir", directory]);
    let output = demo.finish();
    assert!(output.status.success(), "{output:?}");
    demo.assert_nothing_is_left();
    let made: Vec<_> = fs::read_dir(directory).unwrap().collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let made = made[0].as_ref().unwrap().path();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(made.to_str().unwrap()), "{errors}");
    let results = made.join("guarded/results.csv");
    let content = fs::read_to_string(results).unwrap();
    assert_eq!(content.lines().count(), 20);
    assert!(content.contains("w4,5,abcdefghijklmnopqrstuvwxyz,5,w4\n"));
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let mut demo = Demo::start(&["--dir", "/no/such/directory"]);
    let output = demo.finish();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("/no/such/directory"), "{errors}");
    demo.assert_nothing_is_left();
}
