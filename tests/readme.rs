//! README.md tells the truth: each command in it is run, in a world made for it, and prints what is
//! shown; each rule and each line of fstab is understood; each link leads somewhere.
//!
//! `tests/readme/plan.toml` says what of it is not simply run as it stands, and why.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Finished, Who, command, dotlockfs, finish, require_program, require_root};

/// The directory of the sources.
fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Checks one thing of a page; `sections` are those whose commands are tried, all if there are none.
#[track_caller]
fn check(what: &str, page: &Path, sections: &[&str]) -> Finished {
    require_program("python3", "python3");
    let mut python = command(Who::Root, "python3");
    python
        .arg("-B")
        .arg(checkout().join("tests/readme/check.py"))
        .arg(what)
        .args([page, &dotlockfs()])
        .args(sections);
    finish(&mut python)
}

/// A copy of the page in which something is not so.
struct Altered {
    directory: tempfile::TempDir,
}

impl Altered {
    /// In the copy the first `truth` is replaced.
    #[track_caller]
    fn new(truth: &str, by: &str) -> Altered {
        let page = fs::read_to_string(checkout().join("README.md")).expect("the page");
        assert!(page.contains(truth), "the page has no {truth}");
        let directory = common::directory();
        let altered = Altered { directory };
        fs::write(altered.page(), page.replacen(truth, by, 1)).expect("write");
        altered
    }

    fn page(&self) -> PathBuf {
        self.directory.path().join("README.md")
    }
}

#[test]
fn every_command_does_what_is_shown() {
    require_root();
    let said = check("commands", &checkout().join("README.md"), &[]).success();
    println!("{said}");
}

#[test]
fn every_rule_of_the_tables_is_understood_and_each_default_is_one() {
    check("rules", &checkout().join("README.md"), &[]).success();
}

#[test]
fn every_flag_is_one() {
    check("flags", &checkout().join("README.md"), &[]).success();
}

#[test]
fn every_link_leads_somewhere() {
    for page in ["README.md", "src/ARCHITECTURE.md", "CHANGELOG.md"] {
        check("links", &checkout().join(page), &[]).success();
    }
}

/// Each of these is found, so the tests above cannot pass for want of looking.
#[test]
fn what_is_not_true_is_found() {
    require_root();
    for (what, truth, by, found) in [
        // A command that fails, output that is not so, and what is not understood.
        (
            "commands",
            "check-config /net/data\n",
            "check-config /net/dat\n",
            "status 1, not 0",
        ),
        (
            "commands",
            "rule 1: results.csv, logs",
            "rule 1: result.csv, logs",
            "-rule 1: result.csv",
        ),
        (
            "commands",
            "jobs/7/x.journal: rule 2",
            "jobs/7/x.journal: rule 3",
            "+jobs/7/x.journal: rule 2",
        ),
        (
            "commands",
            "record = \"\\n\"\n",
            "recrod = \"\\n\"\n",
            "unknown key \"recrod\"",
        ),
        (
            "commands",
            "allow_other,require_mount,",
            "allow_others,require_mount,",
            "these lines are not mounted",
        ),
        // A block of which nobody knows what it is.
        (
            "commands",
            "```fstab",
            "```table",
            "a block in no known language",
        ),
        (
            "commands",
            "```console\n# dotlockfs status",
            "```text\n# dotlockfs status",
            "commands in a text block",
        ),
        (
            "rules",
            "| `\"30s\"` |",
            "| `\"31s\"` |",
            "\"31s\" is not the default of lock_timeout",
        ),
        (
            "rules",
            "| `dotlock = false`",
            "| `dotlock = flase`",
            "dotlock = flase",
        ),
        (
            "flags",
            "`--log-level debug`",
            "`--log-levels debug`",
            "no --log-levels",
        ),
        (
            "flags",
            "`dotlockfs check-config DIR`",
            "`dotlockfs check-rules DIR`",
            "no check-rules",
        ),
        (
            "links",
            "](#rules)",
            "](#no-rules)",
            "no heading is #no-rules",
        ),
        (
            "links",
            "](LICENSE-MIT)",
            "](LICENSE-BSD)",
            "there is no LICENSE-BSD",
        ),
    ] {
        let altered = Altered::new(truth, by);
        let sections = match what {
            "commands" => ["Rules", "At boot: fstab"].as_slice(),
            _ => &[],
        };
        let outcome = check(what, &altered.page(), sections);
        assert_eq!(outcome.status.code(), Some(1), "{by}: {outcome:?}");
        assert!(outcome.stdout.contains(found), "{by}: {}", outcome.stdout);
    }
}
