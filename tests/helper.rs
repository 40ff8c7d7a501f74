//! The helper that mount(8) calls, by itself: its arguments and exit statuses, and `remount`.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use common::machine::{MOUNT_FAILED, Machine, assert_failed, has};
use common::{ALICE, DEADLINE, Who, daemons, end_of, read_aside, send, wait_until};

/// The exit statuses of mount(8), and its flags.
#[test]
fn the_helper_ends_as_mount_wants_it() {
    let machine = Machine::with_helpers();
    let (source, place) = (machine.name("source"), machine.name("mountpoint"));
    let (source, place) = (source.as_str(), place.as_str());
    let helper = |arguments: &[&str]| machine.run(Who::Root, "/sbin/mount.dotlockfs", arguments);
    let code = |arguments: &[&str]| helper(arguments).status.code();
    for arguments in [
        [].as_slice(),
        &[source],
        &[source, place, "-q"],
        &[source, place, "-t", "ext4"],
        &[source, place, "-o", "nonsense"],
        &[source, place, "-o", "threads=0"],
    ] {
        let refused = helper(arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert_eq!(refused.stdout, "");
        assert_ne!(refused.stderr, "");
    }
    let missing = machine.name("missing");
    for arguments in [
        [missing.as_str(), place],
        [source, &missing],
        [source, "/etc/hostname"],
    ] {
        assert_failed(
            &helper(&arguments),
            arguments[usize::from(arguments[0] == source)],
        );
    }
    let elsewhere = helper(&[source, place, "-N", &missing]);
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");
    assert_eq!(machine.mounts(), []);

    // -f mounts nothing, but says what would be wrong.
    let fake = helper(&[source, place, "-fv", "-o", "ro"]);
    assert_eq!(
        fake.success(),
        format!("mount.dotlockfs: {source} could be mounted at {place}\n")
    );
    assert_failed(&helper(&[&missing, place, "-f"]), &missing);
    assert_eq!(machine.mounts(), []);

    // -s leaves out what is not known, and says so.
    let sloppy = helper(&[
        source,
        place,
        "-snv",
        "-t",
        "fuse.dotlockfs",
        "-o",
        "wsize=9,ro",
    ]);
    assert_eq!(
        sloppy.stderr.lines().next(),
        Some("mount.dotlockfs: left out, since it is not known: wsize=9")
    );
    assert_eq!(
        sloppy.success(),
        format!("mount.dotlockfs: {source} is mounted at {place}\n")
    );
    assert!(has(&machine.options_at("mountpoint"), "ro"));
    assert_eq!(code(&[source, place]), MOUNT_FAILED, "it is there");
    machine.unmount("mountpoint");
}

/// `mount -N`, and the helper with it: into another mount namespace than its own.
#[test]
fn the_helper_mounts_in_another_namespace() {
    let (machine, other) = (Machine::with_helpers(), Machine::new());
    let arguments = [
        other.name("source"),
        other.name("mountpoint"),
        "-N".to_owned(),
        other.namespace(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    machine
        .run(Who::Root, "/sbin/mount.dotlockfs", &arguments)
        .success();
    assert_eq!(machine.mounts(), []);
    assert_eq!(other.mounts().len(), 1);
    other.unmount("mountpoint");
}

/// Whoever interrupts it finds nothing mounted, and nothing running; by Ctrl-C, by the end of the
/// terminal, and by SIGKILL, after which only the background process is left to notice.
#[test]
fn an_interrupt_before_the_mount_answers_takes_it_back() {
    let machine = Machine::with_helpers();
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("chmod");
    for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGKILL] {
        interrupt(&machine, signal);
    }
}

#[track_caller]
fn interrupt(machine: &Machine, signal: i32) {
    // A fusermount3 that waits.
    let bin = machine.path().join(format!("bin{signal}"));
    fs::create_dir(&bin).expect("mkdir");
    chown(&bin, Some(1000), Some(1000)).expect("chown");
    let script = format!(
        "#!/bin/sh\ntouch {0}/reached\nuntil [ -e {0}/go ]; do sleep 0.05; done\n\
         exec /usr/bin/fusermount3 \"$@\"\n",
        bin.display()
    );
    // By another process: see copy_command.
    common::shell(
        Who::Root,
        r#"printf %s "$2" > "$1"; chmod 755 "$1""#,
        &[&bin.join("fusermount3"), Path::new(&script)],
    );
    let place = machine.name("mountpoint");
    // exec all the way: it is the process that we know.
    let line = r#"PATH="$1:$PATH"; exec /sbin/mount.dotlockfs "$2" "$3""#;
    let mut helper = machine
        .command(ALICE, "sh")
        .args(["-euc", line, "sh"])
        .args([&bin, &machine.path().join("source"), Path::new(&place)])
        .stderr(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    let said = read_aside(helper.stderr.take().expect("piped"));
    let catches = || signal == libc::SIGKILL || catches(helper.id(), signal);
    let waits = wait_until(DEADLINE, || bin.join("reached").exists() && catches());
    send(helper.id(), signal);
    if signal == libc::SIGKILL {
        let _ = helper.wait();
    }
    fs::write(bin.join("go"), "").expect("write");
    assert!(waits, "it has not called fusermount3");
    let status = end_of(&mut helper, "the helper");
    if signal == libc::SIGKILL {
        assert_eq!(status.signal(), Some(signal), "{status}");
    } else {
        assert_eq!(status.code(), Some(8), "{status}");
        assert_eq!(machine.mounts(), [], "when it says so, all is gone");
        assert_eq!(daemons(Path::new(&place)), [] as [u32; 0]);
    }
    machine.assert_ended("mountpoint");
    let _ = said.join();
}

/// Whether a process has a handler for a signal.
fn catches(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// What the background process says of a failure is taken for one, whatever the path is called:
/// fusermount3's line ends with it.
#[test]
fn a_failure_is_one_whatever_the_mountpoint_is_called() {
    let machine = Machine::with_helpers();
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("chmod");
    let place = machine.path().join("already");
    fs::create_dir(&place).expect("mkdir");
    let (source, place) = (machine.name("source"), machine.name("already"));
    let refused = machine.run(ALICE, "/sbin/mount.dotlockfs", &[&source, &place]);
    assert_failed(&refused, "cannot mount there: fusermount3: ");
    assert!(refused.stderr.ends_with("already\n"), "{refused:?}");
    assert_eq!(machine.mounts(), []);
}

/// As systemd does it for `x-systemd.automount`: autofs lets the process group of mount(8) pass to
/// the mountpoint, and everybody else waits until that has ended.
const AUTOMOUNT: &str = r#"
import ctypes, fcntl, os, struct, subprocess, sys
READY, FAIL = 0x9360, 0x9361
source, place = sys.argv[1:]
os.setpgid(0, 0)
asks, kernel = os.pipe()
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={kernel},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
if libc.mount(b"auto", place.encode(), b"autofs", 0, options.encode()) != 0:
    sys.exit("autofs (modprobe autofs4): " + os.strerror(ctypes.get_errno()))
top = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
user = subprocess.Popen(["ls", place], stdout=subprocess.PIPE, start_new_session=True)
token = struct.unpack_from("=iiI", os.read(asks, 4096))[2]
mount = ["mount", "-t", "dotlockfs", "-o", "x-systemd.automount", source, place]
try:
    mounted = subprocess.run(mount, timeout=float(sys.stdin.readline())).returncode
except subprocess.TimeoutExpired:
    mounted = "waits for itself"
fcntl.ioctl(top, READY if mounted == 0 else FAIL, token)
print(mounted, user.communicate()[0].decode(), flush=True)
os.close(top)
sys.stdin.read()
"#;

#[test]
fn autofs_mounts_it_when_somebody_asks() {
    let machine = Machine::with_helpers();
    fs::write(machine.path().join("source/file"), "").expect("write");
    let (source, place) = (machine.name("source"), machine.name("mountpoint"));
    let mut automounter = machine
        .command(Who::Root, "python3")
        .args(["-B", "-c", AUTOMOUNT, &source, &place])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut input = automounter.stdin.take().expect("piped");
    writeln!(input, "{}", DEADLINE.as_secs_f64() / 2.0).expect("write");
    let mut said = BufReader::new(automounter.stdout.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("read");
    let mounts = machine.mounts();
    for mounted in 0..=mounts.len() {
        // The last is autofs itself.
        let lazily = ["-l", &place];
        let how = if mounted < mounts.len() {
            &lazily[1..]
        } else {
            &lazily
        };
        let unmounted = || machine.run(Who::Root, "umount", how).status.success();
        assert!(wait_until(DEADLINE, unmounted), "{place} is busy");
    }
    drop(input);
    end_of(&mut automounter, "the automounter");
    assert_eq!(line, "0 file\n");
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    machine.assert_ended("mountpoint");
}

/// `remount,ro` and back, while the daemon serves.
#[test]
fn a_mount_is_made_read_only_and_writable_again() {
    let machine = Machine::with_helpers();
    let place = machine.name("mountpoint");
    let at = Path::new(&place);
    let append = r#"echo line >> "$1/log""#;
    let mount = |arguments: &[&str]| machine.run(Who::Root, "mount", arguments);
    for line in [
        "DIR/source DIR/mountpoint dotlockfs allow_other,noexec,guard=log 0 0\n",
        "",
    ] {
        machine.fstab("DIR/source DIR/mountpoint dotlockfs allow_other,noexec,guard=log 0 0\n");
        mount(&["-a"]).success();
        // mount(8) goes by the line in fstab, or by what the kernel shows.
        machine.fstab(line);
        machine.shell(Who::Root, append, &[at]);
        mount(&["-o", "remount,ro", &place]).success();
        let seen = machine.options_at("mountpoint");
        for option in ["ro", "nosuid", "nodev", "noexec", "allow_other"] {
            assert!(has(&seen, option), "{option}: {seen}");
        }
        let refused = machine.run(Who::Root, "sh", &["-c", append, "sh", &place]);
        assert!(
            refused.stderr.contains("Read-only file system"),
            "{refused:?}"
        );

        mount(&["-o", "remount,rw,exec", &place]).success();
        assert!(!has(&machine.options_at("mountpoint"), "noexec"));
        machine.shell(ALICE, r#"touch "$1/of-a-user""#, &[at]);
        machine.shell(Who::Root, append, &[at]);
        let log = fs::read_to_string(machine.path().join("source/log")).expect("read");
        assert_eq!(log, "line\nline\n");
        fs::remove_file(machine.path().join("source/log")).expect("remove");

        // While a file is open for writing.
        let mut writer = machine
            .command(Who::Root, "sh")
            .args(["-euc", r#"exec 9>> "$1/log"; echo open; cat"#, "sh", &place])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut opened = [0; 5];
        let mut said = writer.stdout.take().expect("piped");
        std::io::Read::read_exact(&mut said, &mut opened).expect("it opens the file");
        let busy = mount(&["-o", "remount,ro", &place]);
        drop(writer.stdin.take());
        end_of(&mut writer, "the shell");
        assert_eq!(busy.status.code(), MOUNT_FAILED, "{busy:?}");
        assert!(
            busy.stderr.contains("programs have files open for writing"),
            "{busy:?}"
        );
        fs::remove_file(machine.path().join("source/log")).expect("remove");
        machine.unmount("mountpoint");
    }

    // What there is no mount of ours for, and what only a new mount can have.
    let helper = |options: &str| {
        let arguments = [&machine.name("source"), &place, "-o", options];
        machine.run(Who::Root, "/sbin/mount.dotlockfs", &arguments)
    };
    assert_failed(&helper("remount,ro"), "no dotlockfs is mounted there");
    machine.fstab("DIR/source DIR/mountpoint dotlockfs defaults 0 0\n");
    mount(&["-a"]).success();
    assert_failed(
        &helper("remount,allow_other"),
        "cannot remount it with allow_other",
    );
    machine.unmount("mountpoint");
}

#[test]
fn a_read_only_directory_is_not_remounted_for_writing() {
    let machine = Machine::with_helpers();
    machine.fstab("none DIR/source tmpfs ro 0 0\nDIR/source DIR/mountpoint dotlockfs ro 0 0\n");
    machine.run(Who::Root, "mount", &["-a"]).success();
    let place = machine.name("mountpoint");
    let refused = machine.run(Who::Root, "mount", &["-o", "remount,rw", &place]);
    assert_failed(
        &refused,
        "the directory below is on a read-only file system",
    );
    assert!(has(&machine.options_at("mountpoint"), "ro"));
    machine.unmount("mountpoint");
}
