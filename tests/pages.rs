//! What is read about the command: its help, the man pages, and what shells complete.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{DEADLINE, Who, command, directory, dotlockfs, finish, require_program};
use tempfile::TempDir;

/// What `dotlockfs generate` makes, in a directory that is removed at the end.
fn generated() -> TempDir {
    let made = directory();
    let mut generate = command(Who::Root, dotlockfs());
    generate.arg("generate").arg(made.path());
    assert_eq!(finish(&mut generate).success(), "");
    made
}

/// The subcommands that the help lists, but `help`.
fn subcommands() -> Vec<String> {
    let help = help(&[], "-h");
    let commands = help.split("Commands:\n").nth(1).expect("commands");
    let commands = commands.split("\n\n").next().expect("a list");
    let names = commands.lines().filter(|line| !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.map(str::to_owned).collect();
    let (help, others) = names.split_last().expect("some");
    assert_eq!(help, "help");
    assert!(others.contains(&"locks".to_owned()), "{others:?}");
    others.to_vec()
}

fn help(subcommand: &[&str], flag: &str) -> String {
    let mut asked = command(Who::Root, dotlockfs());
    asked.args(subcommand).arg(flag).env("COLUMNS", "80");
    finish(&mut asked).success()
}

/// The pages of the repository that are written by hand.
fn by_hand() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let pages: Vec<PathBuf> = fs::read_dir(folder)
        .expect("packaging/man")
        .map(|entry| entry.expect("entry").path())
        .collect();
    assert_eq!(pages.len(), 2, "{pages:?}");
    pages
}

/// In both lengths, and without a terminal.
#[test]
fn every_help_fits_80_columns_and_has_examples() {
    let subcommands = subcommands();
    let of_subcommands = subcommands.iter().map(|name| vec![name.as_str()]);
    for asked in of_subcommands.chain([vec![]]) {
        for flag in ["-h", "--help"] {
            let help = help(&asked, flag);
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{asked:?} {flag}: {line}");
            }
            // It has no argument that is needed.
            let plain = ["demo"];
            if asked != plain {
                assert!(help.contains("\nExamples:\n"), "{asked:?} {flag}: {help}");
            }
        }
        let long = help(&asked, "--help");
        assert!(long.contains("\nExit status:\n"), "{asked:?}: {long}");
    }
}

/// Those that are made, and those that are written by hand.
#[test]
fn man_and_mandoc_have_nothing_to_say_about_the_pages() {
    require_program("mandoc", "mandoc");
    require_program("man", "man-db");
    let made = generated();
    let folder = made.path().join("man1");
    let mut names = vec!["dotlockfs.1".to_owned()];
    names.extend(subcommands().iter().map(|sub| format!("dotlockfs-{sub}.1")));
    let pages = names.iter().map(|name| folder.join(name)).chain(by_hand());
    for page in pages {
        let mut lint = command(Who::Root, "mandoc");
        lint.args(["-T", "lint", "-W", "warning"]).arg(&page);
        assert_eq!(finish(&mut lint).success(), "", "{page:?}");

        let mut show = command(Who::Root, "man");
        show.args(["--warnings", "-E", "UTF-8", "-l"]).arg(&page);
        let shown = finish(show.env("MANWIDTH", "80"));
        assert_eq!(shown.stderr, "", "{page:?}");
        let shown = shown.success();
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{page:?}: {line}");
        }
        for part in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
            let heading = format!("\n{part}\n");
            assert!(shown.contains(&heading), "{page:?}: no {part}: {shown}");
        }
    }
    let made = fs::read_dir(&folder).expect("man1").count();
    assert_eq!(
        made,
        names.len(),
        "a page for each subcommand, and no other"
    );
}

/// The same source gives the same pages, by the date that it is given.
#[test]
fn pages_bear_the_date_of_the_source() {
    let made = directory();
    let generate = |epoch: &str| {
        let mut generate = command(Who::Root, dotlockfs());
        generate.arg("generate").arg(made.path());
        finish(generate.env("SOURCE_DATE_EPOCH", epoch))
    };
    generate("1700000000").success();
    let page = fs::read_to_string(made.path().join("man1/dotlockfs.1")).expect("a page");
    let title = page.lines().find(|line| line.starts_with(".TH"));
    assert!(title.expect("a title").contains("2023-11-14"), "{title:?}");
    for wrong in ["", "yesterday", "-1", "999999999999999999"] {
        let refused = generate(wrong);
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("SOURCE_DATE_EPOCH"), "{refused:?}");
    }
}

#[test]
fn a_place_where_nothing_can_be_made_is_named() {
    let made = directory();
    let file = made.path().join("file");
    fs::write(&file, "").expect("write");
    let mut generate = command(Who::Root, dotlockfs());
    let refused = finish(generate.arg("generate").arg(&file));
    assert_eq!(refused.status.code(), Some(1));
    let name = file.to_str().expect("UTF-8");
    assert!(refused.stderr.contains(name), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
}

/// Each shell, as somebody types: a subcommand, one of its options, the directories of a mount, and
/// nothing that is hidden.
#[test]
fn shells_complete_subcommands_options_and_directories() {
    let made = generated();
    fs::create_dir_all(made.path().join("netdata")).expect("mkdir");
    let script = |name: &str| {
        let script = made.path().join("completions").join(name);
        let text = fs::read_to_string(&script).expect("a script");
        for hidden in ["generate", "writer", "--job"] {
            assert!(!text.contains(hidden), "{name}: {hidden}");
        }
        script.to_str().expect("UTF-8").to_owned()
    };
    let folder = made.path().to_str().expect("UTF-8");
    let typed = format!(
        "cd {folder}\t\n\
         dotlockfs lo^\tdotlockfs locks \n\
         ~dotlockfs locks --js^\t--json \n\
         ~dotlockfs netd^\tnetdata/\n\
         ~dotlockfs /net/data netd^\tnetdata/\n"
    );
    let bash = format!(". {}\t\n{typed}", script("dotlockfs"));
    type_into(&["bash", "--norc", "--noprofile", "-i"], &bash);

    require_program("zsh", "zsh");
    script("_dotlockfs");
    let load =
        format!("fpath=({folder}/completions $fpath); autoload -Uz compinit; compinit -u -D");
    type_into(&["zsh", "-f", "-i"], &format!("{load}\t\n{typed}"));

    require_program("fish", "fish");
    let load = format!("source {}; complete -C $argv[1]", script("dotlockfs.fish"));
    for (line, wanted) in [
        ("dotlockfs lo", "locks"),
        ("dotlockfs locks --js", "--json"),
        ("dotlockfs netd", "netdata/"),
        ("dotlockfs /net/data netd", "netdata/"),
    ] {
        let mut fish = command(Who::Root, "fish");
        fish.env("HOME", folder).current_dir(folder);
        let offered = finish(fish.args(["--no-config", "-c", &load, line])).success();
        let offered: Vec<&str> = offered
            .lines()
            .filter_map(|line| line.split('\t').next())
            .collect();
        assert_eq!(offered, [wanted], "{line}");
    }
}

/// Types into a shell; see tests/pages/type.py.
#[track_caller]
fn type_into(shell: &[&str], steps: &str) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages/type.py");
    let mut typing = command(Who::Root, "python3");
    typing
        .arg("-B")
        .arg(program)
        .arg(DEADLINE.as_secs().to_string())
        .args(shell)
        .env("PS1", "READY> ")
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = typing.spawn().expect("python3 starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(steps.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell:?}: {said}");
}
