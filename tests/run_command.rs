//! `dotlockfs run`: one command with a directory guarded at its own path.

mod common;

#[path = "run_command/ends.rs"]
mod ends;
#[path = "run_command/terminal.rs"]
mod terminal;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use common::{
    ALICE, DEADLINE, Finished, Mount, Who, command, daemons, finish, home_of_a_user, is_mounted,
    require_program, send, wait_until,
};

/// A directory of [`ALICE`], and the command in a place where she may run it.
struct World {
    home: TempDir,
    dir: PathBuf,
}

impl World {
    fn new() -> World {
        World::named(OsStr::new("source"))
    }

    /// The directory has this name.
    fn named(name: &OsStr) -> World {
        require_program("setpriv", "util-linux");
        let home = home_of_a_user();
        let dir = home.path().join(name);
        if !dir.exists() {
            fs::create_dir(&dir).expect("mkdir");
            chown(&dir, Some(1000), Some(1000)).expect("chown");
        }
        World { home, dir }
    }

    /// `dotlockfs run` of a program, to which arguments can be added. It names the directory, so
    /// that its processes are found by that.
    fn run(&self, who: Who, options: &[&str], program: &str) -> Command {
        let mut run = command(who, self.home.path().join("dotlockfs"));
        run.args(["run", "--source"]).arg(&self.dir).args(options);
        run.args(["--", program]).current_dir(&self.dir);
        run
    }

    /// The same for a shell script.
    fn script(&self, who: Who, script: &str) -> Command {
        let mut run = self.run(who, &[], "sh");
        run.args(["-euc", script]);
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("it is there")
    }

    /// No mount that others see, no process, no lock. `dotlockfs run` has waited for that, unless
    /// it was killed, or one of its processes has taken long to end.
    #[track_caller]
    fn nothing_is_left(&self) {
        assert!(!is_mounted(&self.dir), "a mount is seen outside");
        let gone = wait_until(DEADLINE, || daemons(&self.dir).is_empty());
        assert!(gone, "left: {:?}", daemons(&self.dir));
        let mut locks = command(Who::Root, self.home.path().join("dotlockfs"));
        let said = finish(locks.arg("locks").arg(&self.dir)).success();
        assert!(said.starts_with("no lock is held"), "{said}");
    }
}

impl Drop for World {
    /// Where a test has failed, what it has started ends with it.
    fn drop(&mut self) {
        let home = self.home.path().as_os_str().as_bytes();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line.windows(home.len()).any(|part| part == home)
                && let Some(pid) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
            {
                send(pid, libc::SIGKILL);
            }
        }
    }
}

#[test]
fn what_a_command_gives_is_handed_through() {
    let world = World::new();
    for who in [Who::Root, ALICE] {
        let script = "cat; echo out; echo error >&2; pwd; exit 7";
        fs::write(world.home.path().join("input"), "from input\n").expect("write");
        let input = fs::File::open(world.home.path().join("input")).expect("open");
        let ended = finish(world.script(who, script).stdin(input));
        assert_eq!(ended.status.code(), Some(7), "{ended:?}");
        let pwd = world.dir.to_str().expect("UTF-8");
        assert_eq!(ended.stdout, format!("from input\nout\n{pwd}\n"));
        assert_eq!(ended.stderr, "error\n");
        world.nothing_is_left();

        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGINT, libc::SIGSEGV] {
            let ended = finish(&mut world.script(who, &format!("kill -{signal} $$")));
            assert_eq!(ended.status.signal(), Some(signal), "{ended:?}");
            assert_eq!((ended.stdout + &ended.stderr).as_str(), "");
            world.nothing_is_left();
        }
    }
}

#[test]
fn what_cannot_be_run_has_a_status_and_a_line_of_its_own() {
    let world = World::new();
    fs::write(world.path("plain"), "").expect("write");
    fs::write(
        world.home.path().join("bad.toml"),
        "version = 1\nnone = 1\n",
    )
    .expect("write");
    let bad = world.home.path().join("bad.toml");
    let bad = bad.to_str().expect("UTF-8");
    let other = |dir: &str| {
        let mut run = command(ALICE, world.home.path().join("dotlockfs"));
        run.args(["run", "--source", dir, "--", "echo", "was run"]);
        run
    };
    let missing = world.path("missing");
    let plain = world.path("plain");
    for (mut run, code, words) in [
        (
            world.run(ALICE, &[], "no-such-program"),
            127,
            "no-such-program",
        ),
        (world.run(ALICE, &[], "./plain"), 126, "./plain"),
        (
            world.run(ALICE, &["--config", bad], "echo"),
            125,
            "bad.toml",
        ),
        (world.run(ALICE, &["--guard", "a["], "echo"), 125, "a["),
        (
            world.run(ALICE, &["--no-such-option"], "echo"),
            125,
            "--no-such-option",
        ),
        (other(missing.to_str().expect("UTF-8")), 125, "missing"),
        (
            other(plain.to_str().expect("UTF-8")),
            125,
            "Not a directory",
        ),
        (other("/"), 125, "root directory"),
    ] {
        let ended = finish(&mut run);
        assert_eq!(ended.status.code(), Some(code), "{run:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{run:?}");
        assert!(ended.stderr.contains(words), "{run:?}: {ended:?}");
    }
    world.nothing_is_left();
}

#[test]
fn runs_at_the_same_time_lose_nothing() {
    let world = World::new();
    const LINES: usize = 500;
    let script = |name: &str| {
        format!(
            "i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); echo {name} $i >> results.csv; done"
        )
    };
    let runs: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let mut run = world.script(ALICE, &script(name));
            std::thread::spawn(move || finish(&mut run))
        })
        .collect();
    for run in runs {
        let ended = run.join().expect("no panic");
        assert_eq!(ended.stderr, "");
        ended.success();
    }
    world.nothing_is_left();
    let found = world.read("results.csv");
    for name in ["one", "two"] {
        let own: Vec<_> = found
            .lines()
            .filter(|line| line.starts_with(name))
            .collect();
        let expected: Vec<_> = (1..=LINES).map(|i| format!("{name} {i}")).collect();
        assert_eq!(own, expected);
    }
    assert_eq!(found.lines().count(), 2 * LINES);
    assert_eq!(
        fs::metadata(world.path("results.csv")).expect("stat").uid(),
        1000
    );
}

#[test]
fn the_command_is_who_it_was() {
    let world = World::new();
    let look = r"
        id -u; id -g; id -ru; umask; pwd; ulimit -n; ulimit -c; echo $KEPT
        grep -E 'Cap(Inh|Prm|Eff|Amb)|Sig(Blk|Ign)|NoNewPrivs|Seccomp:' /proc/self/status
        ls /proc/self/fd | wc -l";
    for who in [Who::Root, ALICE] {
        // By its path, like the other: the standard library starts programs in two ways, and one
        // of them ignores two signals.
        let mut plain = command(who, "/bin/sh");
        plain
            .args(["-euc", look])
            .current_dir(&world.dir)
            .env("KEPT", "1");
        let plain = finish(&mut plain).success();
        let inside = finish(world.script(who, look).env("KEPT", "1")).success();
        assert_eq!(inside, plain);
    }
    // What `nohup` and a shell that has lost its interest in children hand on.
    let look = "grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let trapped = |inner: &str| format!("trap '' HUP CHLD USR1; exec {inner}");
    let mut plain = command(ALICE, "sh");
    plain.args(["-euc", &trapped(look)]);
    let mut inside = command(ALICE, "sh");
    let run = format!(
        "'{}' run --source '{}' -- {look}",
        world.home.path().join("dotlockfs").display(),
        world.dir.display()
    );
    inside.args(["-euc", &trapped(&run)]);
    assert_eq!(finish(&mut inside).success(), finish(&mut plain).success());
}

#[test]
fn a_directory_of_a_group_can_be_worked_in() {
    let world = World::new();
    // ALICE is in the group 2000.
    let set = |path: &Path, mode| {
        chown(path, Some(0), Some(2000)).expect("chown");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    for (name, mode) in [("log", 0o664), ("edited", 0o664), ("secret", 0o600)] {
        fs::write(world.path(name), "first\n").expect("write");
        set(&world.path(name), mode);
    }
    set(&world.dir, 0o2775);
    let script = "
        echo made > made; echo line >> log
        sed -i s/first/second/ edited
        cp -p log copy
        ! cat secret 2>/dev/null
        ! chown 0 made 2>/dev/null
        mkdir sub; echo x >> sub/file; rm -r sub
        [ -w log ]; ! [ -w secret ]";
    finish(&mut world.script(ALICE, script)).success();
    assert_eq!(world.read("log"), "first\nline\n");
    assert_eq!(world.read("edited"), "second\n");
    assert_eq!(world.read("secret"), "first\n");
    for (name, uid) in [("made", 1000), ("log", 0), ("edited", 1000), ("copy", 1000)] {
        let stat = fs::metadata(world.path(name)).expect("stat");
        assert_eq!((stat.uid(), stat.gid()), (uid, 2000), "{name}");
    }
}

#[test]
fn root_runs_for_other_users_too() {
    let world = World::new();
    let script = "
        setpriv --reuid=1000 --regid=1000 --clear-groups -- sh -c 'echo hers >> log'
        stat -c '%u %g' log";
    assert_eq!(
        finish(&mut world.script(Who::Root, script)).success(),
        "1000 1000\n"
    );
    world.nothing_is_left();
}

#[test]
fn odd_names_of_directories() {
    let names = [
        OsString::from("two words"),
        OsString::from("a\nline"),
        OsString::from("back\\slash, comma"),
        OsString::from_vec(b"no UTF-8 \xff\xfe".to_vec()),
    ];
    for name in names {
        let world = World::named(&name);
        // She first, since the file is hers then.
        for who in [ALICE, Who::Root] {
            let ended = finish(&mut world.script(who, "echo x >> log; cat log; pwd"));
            assert_eq!(ended.stderr, "");
            ended.success();
        }
        assert_eq!(world.read("log"), "x\nx\n");
        assert!(wait_until(DEADLINE, || daemons(&world.dir).is_empty()));
    }
}

#[test]
fn a_run_within_a_run_or_in_a_mount_uses_what_is_there() {
    let world = World::new();
    let run = world.home.path().join("dotlockfs");
    let script = format!(
        "'{0}' run -- sh -c 'echo inner >> log; grep -cF \"fuse.dotlockfs $PWD \" /proc/self/mountinfo'
         '{0}' run --guard log -- true",
        run.display()
    );
    let ended = finish(&mut world.script(ALICE, &script));
    assert_eq!(ended.stdout, "1\n");
    assert!(ended.stderr.contains("is guarded already"), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    ended.success();
    world.nothing_is_left();

    let mount = Mount::at(&world.dir, &world.dir, &["-o", "allow_other"]);
    let count = "echo mounted >> log; grep -cF \"fuse.dotlockfs $PWD \" /proc/self/mountinfo";
    let ended = finish(&mut world.script(ALICE, count));
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("1\n", ""));
    mount.unmount();
    assert_eq!(world.read("log"), "inner\nmounted\n");
}

#[test]
fn rules_come_from_the_directory_or_the_command_line() {
    let world = World::new();
    let rules = "version = 1\n[[guard]]\nfiles = ['closed']\nupdate = 'deny'\n";
    fs::write(world.path(".dotlockfs.toml"), rules).expect("write");
    fs::write(
        world.home.path().join("other.toml"),
        rules.replace("closed", "shut"),
    )
    .expect("write");
    let other = world.home.path().join("other.toml");
    for name in ["closed", "shut"] {
        fs::write(world.path(name), "").expect("write");
        chown(world.path(name), Some(1000), Some(1000)).expect("chown");
    }
    let may_write = |options: &[&str], name: &str| {
        let mut run = world.run(ALICE, options, "sh");
        run.args(["-c", &format!("echo x 2>/dev/null > {name}")]);
        finish(&mut run).status.success()
    };
    assert!(!may_write(&[], "closed") && may_write(&[], "shut"));
    let other = ["--config", other.to_str().expect("UTF-8")];
    assert!(may_write(&other, "closed") && !may_write(&other, "shut"));
    assert!(may_write(
        &["--guard", "shut", "--guard", "closed"],
        "closed"
    ));
}

#[test]
fn all_is_on_disk_when_it_returns() {
    let world = World::new();
    let rules = "version = 1\n[[guard]]\nfiles = ['whole']\nupdate = 'atomic'\n\
                 [[guard]]\nfiles = ['log']\nack = 'close'\nrecord = \"\\n\"\n";
    fs::write(world.path(".dotlockfs.toml"), rules).expect("write");
    for number in 0..10 {
        let script = format!("echo {number} > whole; printf 'half {number}' >> log");
        finish(&mut world.script(ALICE, &script)).success();
        assert_eq!(world.read("whole"), format!("{number}\n"));
        assert!(world.read("log").ends_with(&format!("half {number}")));
        world.nothing_is_left();
    }
}

#[test]
fn a_kernel_without_user_namespaces_is_explained() {
    require_program("unshare", "util-linux");
    let world = World::new();
    // Only in a user namespace of the test's own is it forbidden.
    let script = r#"
        echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --ambient-caps=-all --inh-caps=-all -- "$@""#;
    let mut unshare = command(ALICE, "unshare");
    unshare.args([
        "--user",
        "--map-current-user",
        "--keep-caps",
        "sh",
        "-euc",
        script,
        "sh",
    ]);
    let run = world.run(ALICE, &[], "echo");
    // Without the part by which the user is changed.
    let own = world.home.path().join("dotlockfs");
    let words = run.get_args().skip_while(|word| *word != own.as_os_str());
    let Finished {
        status,
        stdout,
        stderr,
    } = finish(unshare.args(words));
    assert_eq!(
        (status.code(), stdout.as_str()),
        (Some(125), ""),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let dir = world.dir.to_str().expect("UTF-8");
    for part in [
        "making a user namespace",
        "sysctl user.max_user_namespaces=",
        &format!("dotlockfs {dir} ~/guarded"),
    ] {
        assert!(stderr.contains(part), "{stderr}");
    }
    world.nothing_is_left();
}

/// Whether a process has ended, waited for or not.
fn has_ended(pid: &str) -> bool {
    fs::read(Path::new("/proc").join(pid).join("cmdline")).map_or(true, |line| line.is_empty())
}

/// Starts a run that says, in a line, which processes it has; both ends of its speech are kept.
#[track_caller]
fn start(run: &mut Command) -> (std::process::Child, Vec<String>) {
    use std::io::{BufRead, BufReader};
    let mut child = run.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    assert!(
        common::is_readable_within(stdout, DEADLINE),
        "it says nothing"
    );
    // It says one line only.
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it talks");
    let pids = line.split_whitespace().map(str::to_owned).collect();
    (child, pids)
}
