//! The helper that mount(8) calls, by itself: its arguments and exit statuses, and `remount`.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Stdio;

use common::machine::{MOUNT_FAILED, Machine, assert_failed, has};
use common::{ALICE, DEADLINE, Who, end_of, read_aside, send, wait_until};

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

/// Whoever interrupts it finds nothing mounted, and nothing running.
#[test]
fn an_interrupt_before_the_mount_answers_takes_it_back() {
    let machine = Machine::with_helpers();
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("chmod");
    // A fusermount3 that waits.
    let bin = machine.path().join("bin");
    fs::create_dir(&bin).expect("mkdir");
    chown(&bin, Some(1000), Some(1000)).expect("chown");
    let path = |name: &str| machine.path().join("bin").join(name);
    let script = format!(
        "#!/bin/sh\ntouch {0}/reached\nuntil [ -e {0}/go ]; do sleep 0.05; done\n\
         exec /usr/bin/fusermount3 \"$@\"\n",
        bin.display()
    );
    // By another process: see copy_command.
    common::shell(
        Who::Root,
        r#"printf %s "$2" > "$1"; chmod 755 "$1""#,
        &[&path("fusermount3"), Path::new(&script)],
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
    let ready = || path("reached").exists() && catches(helper.id(), libc::SIGINT);
    let waits = wait_until(DEADLINE, ready);
    send(helper.id(), libc::SIGINT);
    fs::write(path("go"), "").expect("write");
    assert!(waits, "it has not called fusermount3");
    let status = end_of(&mut helper, "the helper");
    assert_eq!(status.code(), Some(8), "{status}");
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
