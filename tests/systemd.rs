//! The daemon as a service of systemd: what it says by sd_notify(3), and the units of
//! `packaging/systemd`. The test is the service manager: it runs what stands behind `ExecStart=`, and
//! listens.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    DEADLINE, Who, command, daemons, directory, dotlockfs, finish, is_mounted, require_program,
    require_root, send, unmount_at, wait_until,
};
use tempfile::TempDir;

/// Where the units are.
const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");

/// The watchdog's time in these tests.
const WATCHDOG: Duration = Duration::from_millis(400);

/// A service manager, with a source and a mountpoint for its service.
struct Manager {
    dir: TempDir,
    socket: UnixDatagram,
    child: Option<Child>,
}

impl Manager {
    fn new() -> Manager {
        require_root();
        let dir = directory();
        for name in ["source", "mountpoint"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket
            .set_read_timeout(Some(DEADLINE))
            .expect("a time limit");
        Manager {
            dir,
            socket,
            child: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command behind `ExecStart=`, as systemd makes it of the unit and an environment file.
    fn exec_start(&self, source: &Path, options: &str) -> Command {
        let unit = fs::read_to_string(format!("{UNITS}/dotlockfs@.service")).expect("the unit");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .expect("ExecStart=");
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("/usr/bin/dotlockfs"));
        let mut start = command(Who::Root, dotlockfs());
        for word in words {
            match word {
                "${OPTIONS}" => start.arg(options),
                "${SOURCE}" => start.arg(source),
                "%f" => start.arg(self.path("mountpoint")),
                "$DOTLOCKFS_ARGS" => &mut start,
                other => start.arg(other),
            };
        }
        start
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stderr(Stdio::piped());
        start
    }

    /// Starts the service, and hears that it is ready; gives its status.
    fn start(&mut self, start: &mut Command) -> String {
        self.child = Some(start.spawn().expect("the command starts"));
        let ready = self.hears("READY=1");
        assert!(
            is_mounted(&self.path("mountpoint")),
            "ready, and nothing is mounted"
        );
        ready
    }

    fn daemon(&self) -> u32 {
        self.child.as_ref().expect("started").id()
    }

    /// The next message.
    fn message(&self) -> String {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).expect("a message in time");
        String::from_utf8_lossy(&message[..len]).into_owned()
    }

    /// The next message that has a line that begins so.
    fn hears(&self, wanted: &str) -> String {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let message = self.message();
            if message.lines().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
        panic!("no {wanted} in time");
    }

    /// Ends the service by SIGTERM, and gives what it has logged.
    fn stop(&mut self) -> String {
        send(self.daemon(), libc::SIGTERM);
        self.hears("STOPPING=1");
        let mut child = self.child.take().expect("started");
        let log = common::read_aside(child.stderr.take().expect("piped"));
        let status = common::end_of(&mut child, "the service");
        let log = log.join().expect("the reader does not panic");
        assert!(status.success(), "{status}: {log}");
        assert!(!is_mounted(&self.path("mountpoint")), "still mounted");
        log
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let point = self.path("mountpoint");
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        while is_mounted(&point) {
            let _ = command(Who::Root, "umount").arg("-l").arg(&point).status();
        }
    }
}

#[test]
fn a_service_says_that_it_is_ready_and_that_it_ends() {
    let mut manager = Manager::new();
    let source = manager.path("source");
    fs::write(
        source.join(".dotlockfs.toml"),
        "version = 1\n[[guard]]\nfiles = [\"log\"]\n",
    )
    .expect("write");
    let mut start = manager.exec_start(&source, "allow_other");
    let ready = manager.start(&mut start);
    let status = format!(
        "STATUS={} at {}, 1 rule of {}",
        source.display(),
        manager.path("mountpoint").display(),
        source.join(".dotlockfs.toml").display()
    );
    assert!(ready.lines().any(|line| line == status), "{ready}");
    fs::write(manager.path("mountpoint").join("log"), "a line\n").expect("write");
    manager.stop();
    assert_eq!(
        fs::read_to_string(source.join("log")).expect("read"),
        "a line\n"
    );
}

/// `systemctl reload`: systemd takes it for done when it hears READY=1 again.
#[test]
fn a_reload_is_told_with_its_time_and_its_outcome() {
    let mut manager = Manager::new();
    let source = manager.path("source");
    let rules = source.join(".dotlockfs.toml");
    let mut start = manager.exec_start(&source, "allow_other");
    let ready = manager.start(&mut start);
    assert!(ready.contains("no rules"), "{ready}");
    let reload = |text: &str| {
        fs::write(&rules, text).expect("write");
        send(manager.daemon(), libc::SIGHUP);
        let reloading = manager.hears("RELOADING=1");
        let time = reloading
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(
            time.is_some_and(|time| time.parse::<u64>().is_ok()),
            "{reloading}"
        );
        manager.hears("READY=1")
    };
    let ready = reload("version = 1\n[[guard]]\nfiles = [\"a\"]\n[[guard]]\nfiles = [\"b\"]\n");
    assert!(ready.contains(", 2 rules of "), "{ready}");
    let ready = reload("version = 2\n");
    assert!(ready.contains(" as before: "), "{ready}");
    assert!(ready.contains(", 2 rules of "), "{ready}");
    let log = manager.stop();
    assert!(log.contains("the rules were read again"), "{log}");
    assert!(log.contains("the rules stay as they were"), "{log}");
}

/// systemd starts the service again when it was killed; the dead mount is still there.
#[test]
fn a_service_that_was_killed_is_ready_again_over_its_dead_mount() {
    let mut manager = Manager::new();
    let source = manager.path("source");
    let mut start = manager.exec_start(&source, "allow_other");
    manager.start(&mut start);
    send(manager.daemon(), libc::SIGKILL);
    common::end_of(manager.child.as_mut().expect("started"), "the service");
    let error = fs::read_dir(manager.path("mountpoint")).expect_err("a dead mount");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    manager.start(&mut start);
    fs::write(manager.path("mountpoint").join("file"), "there").expect("write");
    manager.stop();
}

/// What went into the background was started by somebody else than systemd, by `mount -a` for example.
#[test]
fn a_daemon_in_the_background_says_nothing() {
    let manager = Manager::new();
    let (source, point) = (manager.path("source"), manager.path("mountpoint"));
    let mut mount = command(Who::Root, dotlockfs());
    mount
        .args([&source, &point])
        .env("NOTIFY_SOCKET", manager.path("notify"))
        .env("WATCHDOG_USEC", "20000");
    finish(&mut mount).success();
    unmount_at(&point);
    assert!(wait_until(DEADLINE, || daemons(&point).is_empty()));
    manager.socket.set_nonblocking(true).expect("fcntl");
    let mut message = [0; 64];
    let error = manager.socket.recv(&mut message).expect_err("no message");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
}

/// Without a service manager, or with one that has gone, a mount in the foreground is as ever.
#[test]
fn a_service_manager_that_is_gone_does_no_harm() {
    let mut manager = Manager::new();
    let (source, point) = (manager.path("source"), manager.path("mountpoint"));
    let mut start = manager.exec_start(&source, "allow_other");
    start.env("NOTIFY_SOCKET", manager.path("nobody"));
    manager.child = Some(start.spawn().expect("the command starts"));
    let answers = || is_mounted(&point) && fs::write(point.join("file"), "there").is_ok();
    assert!(wait_until(DEADLINE, answers));
    unmount_at(&point);
    let mut child = manager.child.take().expect("started");
    assert!(common::end_of(&mut child, "the daemon").success());
}

/// What stands behind a word in the unit.
fn setting(word: &str) -> String {
    let unit = fs::read_to_string(format!("{UNITS}/dotlockfs@.service")).expect("the unit");
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(word));
    lines.next().expect(word).to_owned()
}

/// What programs of root and of others do through a mount, and what it takes of the daemon.
const WORK: &str = r#"
    cd "$1"
    echo line >>log
    echo new >document; echo newer >document
    touch file; chown 1000:1000 file; chmod 4755 file
    test "$(stat -c '%u %a' file)" = '1000 4755'
    mknod device c 1 3; mkfifo pipe
    mkdir -m 700 private; mv file private/file
    ln private/file other; ln -s other link
    flock log true
    rm other link device pipe
    truncate -s 100 document
    setpriv --reuid=1000 --regid=1000 --clear-groups sh -c 'echo user >>for-all'
    test "$(stat -c %u for-all)" = 0
"#;

/// The rules for it.
const RULES: &str = "version = 1\n[[guard]]\nfiles = [\"log\", \"for-all\"]\n[[guard]]\nfiles = \
                     [\"document\"]\nupdate = \"atomic\"\n";

impl Manager {
    /// Has the work done, through the mount.
    fn work(&self) {
        let source = self.path("source");
        fs::write(source.join("for-all"), "").expect("write");
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(&source, open.clone()).expect("chmod");
        fs::set_permissions(source.join("for-all"), open).expect("chmod");
        common::shell(Who::Root, WORK, &[&self.path("mountpoint")]);
        let read = |name| fs::read_to_string(source.join(name)).expect("read");
        assert_eq!(
            (read("log"), read("for-all")),
            ("line\n".into(), "user\n".into())
        );
    }
}

/// The rights that the unit leaves to the daemon are enough.
#[test]
fn a_service_gets_by_with_the_rights_of_its_unit() {
    let mut manager = Manager::new();
    let source = manager.path("source");
    fs::write(source.join(".dotlockfs.toml"), RULES).expect("write");
    let rights: Vec<String> = setting("CapabilityBoundingSet=")
        .split(' ')
        .map(|right| format!("+{}", right.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    let plain = manager.exec_start(&source, "allow_other");
    let mut start = command(Who::Root, "setpriv");
    start
        .arg("--no-new-privs")
        .arg(format!("--bounding-set=-all,{}", rights.join(",")))
        .arg("--inh-caps=-all")
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("NOTIFY_SOCKET", manager.path("notify"))
        .stderr(Stdio::piped());
    manager.start(&mut start);
    let status = fs::read_to_string(format!("/proc/{}/status", manager.daemon())).expect("status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    manager.work();
    manager.stop();
}

/// The calls that the unit allows, by their names.
fn allowed_calls() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    let mut groups: Vec<String> = setting("SystemCallFilter=")
        .split(' ')
        .map(str::to_owned)
        .collect();
    while let Some(group) = groups.pop() {
        let mut ask = command(Who::Root, "systemd-analyze");
        let text = finish(ask.args(["syscall-filter", &group])).success();
        for word in text.lines().map(str::trim) {
            match word.starts_with('@') {
                true if word != group => groups.push(word.to_owned()),
                true => {}
                false => drop(calls.insert(word.to_owned())),
            }
        }
    }
    calls
}

/// A service under strace(1) with these options, of which the last takes the file `trace`.
fn traced(manager: &Manager, plain: &Command, options: &[&str]) -> Command {
    let mut start = command(Who::Root, "strace");
    start
        .args(options)
        .arg(manager.path("trace"))
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("NOTIFY_SOCKET", manager.path("notify"))
        .stderr(Stdio::piped());
    start
}

/// The calls that the unit allows are all that the daemon makes, also over a dead mount.
#[test]
fn a_service_makes_only_the_calls_that_its_unit_allows() {
    require_program("strace", "strace");
    let allowed = allowed_calls();
    assert!(allowed.contains("pwrite64") && !allowed.contains("reboot"));
    let mut manager = Manager::new();
    let source = manager.path("source");
    fs::write(source.join(".dotlockfs.toml"), RULES).expect("write");
    let plain = manager.exec_start(&source, "allow_other");
    let trace = manager.path("trace");
    for round in 0..2 {
        manager.start(&mut traced(&manager, &plain, &["-f", "-qq", "-D", "-o"]));
        if round == 0 {
            manager.work();
            send(manager.daemon(), libc::SIGHUP);
            manager.hears("READY=1");
            send(manager.daemon(), libc::SIGKILL);
            common::end_of(manager.child.as_mut().expect("started"), "the service");
        } else {
            manager.stop();
        }
        let text = fs::read_to_string(&trace).expect("the trace");
        let made: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
            .map(|(name, _)| name)
            .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        assert!(made.contains("mount"), "{made:?}");
        let more: Vec<_> = made
            .iter()
            .filter(|call| !allowed.contains(**call))
            .collect();
        assert!(more.is_empty(), "{more:?}");
    }
}

/// The families that the unit allows are all that the daemon uses, also where it serves metrics.
#[test]
fn a_service_serves_metrics_within_the_limits_of_its_unit() {
    let setting = setting("RestrictAddressFamilies=");
    let allowed: BTreeSet<&str> = setting.split(' ').collect();
    for family in ["AF_UNIX", "AF_INET", "AF_INET6"] {
        assert!(allowed.contains(family), "{family}: {setting}");
    }
    require_program("strace", "strace");
    let mut manager = Manager::new();
    let trace = manager.path("trace");
    let plain = manager.exec_start(&manager.path("source"), "allow_other,metrics=0");
    let what = ["-f", "-qq", "-D", "-e", "trace=socket,socketpair", "-o"];
    manager.start(&mut traced(&manager, &plain, &what));
    let mut status = command(Who::Root, dotlockfs());
    status.arg("status").arg(manager.path("mountpoint"));
    let said = finish(&mut status).success();
    assert!(said.contains("metrics at 127.0.0.1:"), "{said}");
    manager.stop();
    let text = fs::read_to_string(&trace).expect("the trace");
    let made: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once('(')?.1.split_once(','))
        .map(|(family, _)| family)
        .collect();
    assert!(made.contains("AF_INET"), "{made:?}");
    assert!(made.is_subset(&allowed), "{made:?}");
}

/// Where the service listens for metrics, others have to reach it.
#[test]
fn nothing_in_the_unit_keeps_a_collector_out() {
    let unit = fs::read_to_string(format!("{UNITS}/dotlockfs@.service")).expect("the unit");
    let set = unit.lines().filter(|line| !line.starts_with('#'));
    let found: Vec<&str> = set
        .filter(|line| line.starts_with("IPAddress") || line.starts_with("SocketBind"))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

fn with_watchdog(start: &mut Command) -> &mut Command {
    start.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
}

#[test]
fn the_watchdog_hears_twice_in_its_time_that_all_is_well() {
    let mut manager = Manager::new();
    let mut start = manager.exec_start(&manager.path("source"), "allow_other");
    manager.start(with_watchdog(&mut start));
    let mut last = Instant::now();
    for _ in 0..5 {
        manager.hears("WATCHDOG=1");
        assert!(last.elapsed() < WATCHDOG, "after {:?}", last.elapsed());
        last = Instant::now();
    }
    manager.stop();
}

#[test]
fn the_watchdog_of_another_process_hears_nothing() {
    let mut manager = Manager::new();
    let mut start = manager.exec_start(&manager.path("source"), "allow_other");
    manager.start(with_watchdog(&mut start).env("WATCHDOG_PID", "1"));
    let threads = fs::read_dir(format!("/proc/{}/task", manager.daemon())).expect("threads");
    for thread in threads {
        let name = fs::read_to_string(thread.expect("a thread").path().join("comm"));
        assert_ne!(name.unwrap_or_default().trim(), "watchdog");
    }
    manager.stop();
}

/// A file system below that hangs, as NFS does while its server is away, is no reason to kill the
/// daemon: one that is started anew would hang as well.
#[test]
fn the_watchdog_hears_that_all_is_well_while_the_server_hangs() {
    require_program("bindfs", "bindfs");
    let mut manager = Manager::new();
    let (far, point) = (manager.path("far"), manager.path("mountpoint"));
    fs::create_dir(&far).expect("mkdir");
    let mut server = command(Who::Root, "bindfs")
        .args(["-f", "-o", "attr_timeout=0,entry_timeout=0"])
        .args([&manager.path("source"), &far])
        .spawn()
        .expect("bindfs starts");
    assert!(wait_until(DEADLINE, || is_mounted(&far)));
    let mut start = manager.exec_start(&far, "allow_other");
    manager.start(with_watchdog(&mut start));
    send(server.id(), libc::SIGSTOP);
    // More programs than there are threads to answer them.
    let mut asking: Vec<Child> = (0..4)
        .map(|i| {
            let mut stat = command(Who::Root, "stat");
            let name = point.join(format!("name-{i}"));
            stat.arg(name).stdout(Stdio::null()).stderr(Stdio::null());
            stat.spawn().expect("stat starts")
        })
        .collect();
    let daemon = manager.daemon();
    let hang = || threads_in_a_request(daemon) == 2;
    assert!(wait_until(DEADLINE, hang), "no thread hangs");
    // What was said before does not count.
    let until = Instant::now() + 3 * WATCHDOG;
    while Instant::now() < until {
        manager.hears("WATCHDOG=1");
    }
    assert!(hang(), "the server has answered");
    send(server.id(), libc::SIGCONT);
    for child in &mut asking {
        common::end_of(child, "stat");
    }
    manager.stop();
    unmount_at(&far);
    common::end_of(&mut server, "bindfs");
}

/// How many threads that answer the kernel are within a request: they wait for something else than the
/// next one.
fn threads_in_a_request(daemon: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).expect("threads");
    let is_busy = |task: PathBuf| {
        let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
        let read_call = format!("{} ", libc::SYS_read);
        let call = read("syscall");
        read("comm").starts_with("fuser-") && !call.is_empty() && !call.starts_with(&read_call)
    };
    tasks
        .filter(|task| is_busy(task.as_ref().expect("a thread").path()))
        .count()
}

/// With one of its threads gone the mount answers some requests and not others.
#[test]
fn the_watchdog_hears_nothing_when_a_thread_is_gone() {
    require_program("strace", "strace");
    let mut manager = Manager::new();
    let mut start = manager.exec_start(&manager.path("source"), "allow_other");
    manager.start(with_watchdog(&mut start));
    manager.hears("WATCHDOG=1");
    let daemon = manager.daemon();
    let tasks = || fs::read_dir(format!("/proc/{daemon}/task")).expect("threads");
    let thread = tasks()
        .map(|task| task.expect("a thread").path())
        .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "fuser-1\n"))
        .expect("a thread that answers");
    let mut strace = command(Who::Root, "strace");
    strace
        .args(["-qq", "-e", "trace=read", "-e", "inject=read:error=EBADF"])
        .args(["-o", "/dev/null", "-p"])
        .arg(thread.file_name().expect("a number"));
    let mut strace = strace.spawn().expect("strace starts");
    let point = manager.path("mountpoint");
    let is_gone = || {
        // Something for it to read: the other may be quicker.
        let _ = fs::metadata(point.join("name"));
        !thread.exists()
    };
    assert!(wait_until(DEADLINE, is_gone), "the thread goes on");
    common::end_of(&mut strace, "strace");
    manager
        .socket
        .set_read_timeout(Some(3 * WATCHDOG))
        .expect("a time limit");
    let mut message = [0; 64];
    let silent = || manager.socket.recv(&mut message).is_err();
    // One or two may have been on their way.
    assert!(
        wait_until(Duration::from_secs(5), silent),
        "all is said to be well"
    );
}

/// systemd finds nothing wrong with the units.
#[test]
fn the_units_are_as_systemd_wants_them() {
    require_program("systemd-analyze", "systemd");
    let dir = directory();
    let unit = |name: &str| fs::read_to_string(format!("{UNITS}/{name}")).expect("a unit");
    let service = dir.path().join("dotlockfs@srv-data.service");
    // The command must be there.
    let text = unit("dotlockfs@.service").replace(
        "/usr/bin/dotlockfs",
        dotlockfs().to_str().expect("a plain path"),
    );
    fs::write(&service, text).expect("write");
    let mount = dir.path().join("srv-data.mount");
    fs::write(&mount, unit("srv-data.mount")).expect("write");
    let mut verify = command(Who::Root, "systemd-analyze");
    verify.args(["verify", "--man=no"]).args([&service, &mount]);
    let said = finish(&mut verify);
    assert!(said.status.success(), "{}", said.stderr);
    let ours: Vec<&str> = said
        .stderr
        .lines()
        .filter(|line| line.contains("dotlockfs") || line.contains("srv-data"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");

    let mut security = command(Who::Root, "systemd-analyze");
    security
        .args(["security", "--offline=true", "--threshold=58", "--no-pager"])
        .arg(&service);
    let said = finish(&mut security);
    assert!(said.status.success(), "{}", said.stdout);
}

/// Each of these would give the service a mount namespace of its own, where nobody else sees the mount.
#[test]
fn nothing_in_the_unit_hides_the_mount() {
    let unit = fs::read_to_string(format!("{UNITS}/dotlockfs@.service")).expect("the unit");
    let hiding = [
        "Protect",
        "Private",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "Root",
        "DynamicUser",
        "TemporaryFileSystem",
        "BindPaths",
        "MountFlags",
        "ProcSubset",
    ];
    let set = unit.lines().filter(|line| !line.starts_with('#'));
    let found: Vec<&str> = set
        .filter(|line| hiding.iter().any(|word| line.starts_with(word)))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}
