//! mount(8), lines in `/etc/fstab`, and the helper that mount(8) calls, each on a machine of its own
//! as far as mounts go.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::machine::Machine;
use common::{
    ALICE, BOB, DEADLINE, Finished, Who, command, daemons, directory, end_of, finish, read_aside,
    require_program, send, wait_until,
};

/// What mount(8) gives where the mount has failed.
const MOUNT_FAILED: Option<i32> = Some(32);

/// As a package installs it, and with no more than the package fuse3 has.
#[test]
fn both_types_are_mounted_with_and_without_the_helper() {
    require_program("mount.fuse3", "fuse3");
    for (links, types) in [
        (
            ["mount.dotlockfs", "mount.fuse.dotlockfs"].as_slice(),
            ["dotlockfs", "fuse.dotlockfs"].as_slice(),
        ),
        // mount.fuse3 looks for the command in $PATH.
        (&["dotlockfs"], &["fuse.dotlockfs"]),
    ] {
        let machine = Machine::new();
        for link in links {
            machine.link(link);
        }
        for kind in types {
            let options = "allow_other,noatime,guard=*.log:*.csv,_netdev,nofail,x-a.b=c,threads=1";
            machine.fstab(&format!("DIR/source DIR/mountpoint {kind} {options} 0 0\n"));
            let place = machine.name("mountpoint");
            machine.run(Who::Root, "mount", &["-a"]).success();
            assert_tables(&machine);
            let script = r#"echo one >> "$1/a.log"; echo two >> "$1/a.log"; cat "$1/a.log""#;
            let said = machine.shell(ALICE, script, &[Path::new(&place)]);
            assert_eq!(said, "one\ntwo\n");
            fs::remove_file(machine.path().join("source/a.log")).expect("remove");
            unmount(&machine, "mountpoint");

            let source = machine.name("source");
            let line = ["-t", kind, &source, &place, "-o", "ro,noexec"];
            machine.run(Who::Root, "mount", &line).success();
            let options = options_at(&machine, "mountpoint");
            for option in ["ro", "noexec", "nosuid", "nodev", "relatime"] {
                assert!(has(&options, option), "{option}: {options}");
            }
            unmount(&machine, "mountpoint");
        }
    }
}

/// What the tables of the kernel and the tools say of a mount.
#[track_caller]
fn assert_tables(machine: &Machine) {
    require_program("findmnt", "util-linux");
    let (source, place) = (machine.name("source"), machine.name("mountpoint"));
    let mounts = machine.run(Who::Root, "cat", &["/proc/mounts"]).success();
    let line = mounts.lines().find(|line| line.contains(&place));
    let line: Vec<&str> = line.expect("mounted").split(' ').collect();
    assert_eq!(line[..3], [&source, &place, "fuse.dotlockfs"]);
    for option in ["rw", "nosuid", "nodev", "noatime", "allow_other"] {
        assert!(has(line[3], option), "{option}: {line:?}");
    }
    let columns = ["-no", "FSTYPE,SOURCE,TARGET", &place];
    let found = machine.run(Who::Root, "findmnt", &columns).success();
    let words: Vec<&str> = found.split_whitespace().collect();
    assert_eq!(words, ["fuse.dotlockfs", &source, &place]);
    let columns = ["--output=source,fstype,target,size", &place];
    let free = machine.run(Who::Root, "df", &columns).success();
    let words: Vec<&str> = free
        .lines()
        .last()
        .expect("a line")
        .split_whitespace()
        .collect();
    assert_eq!(words[..3], [&source, "fuse.dotlockfs", &place]);
    assert_ne!(words[3], "0", "the size is that of the file system below");
}

/// The file system first, dotlockfs over it: each boot, and each further `mount -a`, makes both once.
#[test]
fn a_directory_is_mounted_over_itself_after_its_file_system() {
    let machine = Machine::with_helpers();
    let source = machine.name("source");
    let both = "none DIR/source tmpfs mode=1777 0 0\n\
                DIR/source DIR/source dotlockfs allow_other,require_mount=tmpfs 0 0\n";
    for _ in 0..2 {
        machine.fstab(both);
        for _ in 0..3 {
            machine.run(Who::Root, "mount", &["-a"]).success();
            let mounts = machine.mounts();
            assert_eq!(mounts.len(), 1, "{mounts:?}");
            assert_eq!(
                (&mounts[0].0, &mounts[0].1),
                (&source.clone().into(), &source.clone().into())
            );
        }
        machine.shell(
            ALICE,
            r#"echo line >> "$1/log"; rm "$1/log""#,
            &[Path::new(&source)],
        );
        unmount(&machine, "source");
        unmount_at(&machine, &source);
    }

    // The first line fails: nothing guards the bare directory in its place.
    machine.fstab(&both.replace("none DIR/source tmpfs", "none DIR/source no-such-type"));
    let failed = machine.run(Who::Root, "mount", &["-a"]);
    assert!(!failed.status.success());
    let refusal = "and require_mount asks for tmpfs: is the file system mounted there yet?";
    assert!(failed.stderr.contains(refusal), "{}", failed.stderr);
    assert_eq!(machine.mounts(), []);
    assert_eq!(daemons(Path::new(&source)), [] as [u32; 0]);
}

/// What systemd needs in place of two lines for one directory. Nobody else reaches the bare one.
#[test]
fn the_file_system_may_be_mounted_where_only_root_goes() {
    let machine = Machine::with_helpers();
    let bare = machine.path().join("bare");
    fs::create_dir_all(bare.join("data")).expect("mkdir");
    fs::set_permissions(&bare, fs::Permissions::from_mode(0o700)).expect("chmod");
    machine.fstab(
        "none DIR/bare/data tmpfs mode=1777 0 0\n\
         DIR/bare/data DIR/mountpoint dotlockfs allow_other,require_mount=tmpfs 0 0\n",
    );
    machine.run(Who::Root, "mount", &["-a"]).success();
    let script = r#"
        mkdir "$1/sub"; echo one >> "$1/sub/log"; mv "$1/sub/log" "$1/log"; cat "$1/log"
        ! cat "$2/data/log"
    "#;
    let place = machine.path().join("mountpoint");
    let said = machine.run(
        ALICE,
        "sh",
        &[
            "-euc",
            script,
            "sh",
            place.to_str().expect("UTF-8"),
            bare.to_str().expect("UTF-8"),
        ],
    );
    assert!(said.stderr.contains("Permission denied"), "{said:?}");
    assert_eq!(said.success(), "one\n");
    unmount(&machine, "mountpoint");
}

/// systemd makes one unit of each mountpoint: of two lines for one it takes the first, which is why
/// the README has other lines for it.
#[test]
fn systemd_takes_lines_for_two_places_and_not_for_one() {
    let generator = Path::new("/usr/lib/systemd/system-generators/systemd-fstab-generator");
    assert!(
        generator.exists(),
        "this test needs systemd-fstab-generator: install systemd"
    );
    let nfs = "server:/data /net/data nfs4 hard,_netdev,nofail 0 0\n";
    let generate = |line: &str| {
        let place = directory();
        let (fstab, units) = (place.path().join("fstab"), place.path().join("units"));
        fs::write(&fstab, format!("{nfs}{line}")).expect("write");
        fs::create_dir(&units).expect("mkdir");
        let mut command = command(Who::Root, generator);
        command
            .env("SYSTEMD_FSTAB", &fstab)
            .env("SYSTEMD_PROC_CMDLINE", "")
            .args([&units, &units, &units]);
        (finish(&mut command), place)
    };
    let options =
        "allow_other,require_mount,_netdev,nofail,x-systemd.requires-mounts-for=/net/data";
    let (outcome, place) = generate(&format!("/net/data /srv/data dotlockfs {options} 0 0\n"));
    outcome.success();
    let unit = fs::read_to_string(place.path().join("units/srv-data.mount")).expect("a unit");
    for line in [
        "RequiresMountsFor=/net/data",
        "What=/net/data",
        "Type=dotlockfs",
    ] {
        assert!(
            unit.lines().any(|written| written == line),
            "{line}:\n{unit}"
        );
    }
    let wanted = place
        .path()
        .join("units/remote-fs.target.wants/srv-data.mount");
    assert!(
        wanted.symlink_metadata().is_ok(),
        "it is mounted with the network"
    );

    let (_, place) = generate(&format!("/net/data /net/data dotlockfs {options} 0 0\n"));
    let unit = fs::read_to_string(place.path().join("units/net-data.mount")).expect("a unit");
    assert!(
        unit.contains("What=server:/data"),
        "the first line only:\n{unit}"
    );
}

/// However the source is written.
#[test]
fn what_is_mounted_already_is_known_by_its_source() {
    let machine = Machine::with_helpers();
    std::os::unix::fs::symlink(machine.name("source"), machine.name("link")).expect("symlink");
    for source in [
        "DIR/source",
        "DIR/source/",
        "DIR/./source",
        "DIR/link",
        "DIR/link/",
    ] {
        machine.fstab(&format!("{source} DIR/mountpoint dotlockfs defaults 0 0\n"));
        for _ in 0..2 {
            let again = machine.run(Who::Root, "mount", &["-a"]);
            assert!(again.status.success(), "{source}: {again:?}");
            let mounts = machine.mounts();
            assert_eq!(mounts.len(), 1, "{source}: {mounts:?}");
            assert_eq!(mounts[0].0, machine.path().join("source"), "{source}");
        }
        let written = source.replace("DIR", machine.path().to_str().expect("UTF-8"));
        let place = machine.name("mountpoint");
        for who in ["mount.dotlockfs", "dotlockfs"] {
            let program = match who {
                "dotlockfs" => machine.name("dotlockfs"),
                _ => format!("/sbin/{who}"),
            };
            let refused = machine.run(Who::Root, &program, &[&written, &place]);
            assert!(!refused.status.success());
            let line = format!(
                "{who}: {place}: is mounted already, and shows {}; to mount it with other options, \
                 first: umount {place}\n",
                machine.name("source")
            );
            assert_eq!(refused.stderr, line);
        }
        // By mount(8), which looks for nothing itself.
        let refused = machine.run(Who::Root, "mount", &[&place]);
        assert_eq!(refused.status.code(), MOUNT_FAILED, "{refused:?}");
        assert_eq!(machine.mounts().len(), 1);
        unmount(&machine, "mountpoint");
    }
}

#[test]
fn options_of_fstab_mean_what_mount_says() {
    let machine = Machine::with_helpers();
    fs::write(machine.path().join("rules,1.toml"), "version = 1\n").expect("write");
    // What there is to see of each, and what there is not.
    for (options, shown, hidden) in [
        (
            "defaults",
            "rw,nosuid,nodev,relatime",
            "noexec,allow_other,sync",
        ),
        (
            "defaults,nofail,_netdev,auto,x-a,X-b.c=d,comment=e",
            "rw",
            "noexec",
        ),
        ("ro", "ro", "rw"),
        ("ro,rw", "rw", "ro"),
        ("nosuid,nodev,noexec", "nosuid,nodev,noexec", ""),
        // Files that set a user and devices are never heeded.
        ("suid,dev,exec", "nosuid,nodev", "noexec"),
        ("noatime", "noatime", "relatime"),
        ("strictatime", "", "noatime,relatime"),
        ("nodiratime", "nodiratime,relatime", "noatime"),
        ("relatime,lazytime", "relatime,lazytime", ""),
        ("sync,dirsync", "sync,dirsync", ""),
        ("sync,async", "", "sync"),
        ("nosymfollow", "nosymfollow", ""),
        (
            "allow_other,default_permissions",
            "allow_other,default_permissions",
            "",
        ),
        ("user,exec", "nosuid,nodev", "noexec"),
        ("users", "noexec", ""),
        ("subtype=dotlockfs,fsname=DIR/source", "rw", ""),
        (r#"config="DIR/rules,1.toml""#, "rw", ""),
        (r#"guard="*.{log,txt}:x""#, "rw", ""),
        ("threads=4,log-level=warn,nopassthrough", "rw", ""),
    ] {
        machine.fstab(&format!(
            "DIR/source DIR/mountpoint dotlockfs {options} 0 0\n"
        ));
        let mounted = machine.run(Who::Root, "mount", &["-a"]);
        assert!(mounted.status.success(), "{options}: {mounted:?}");
        let seen = options_at(&machine, "mountpoint");
        for option in shown.split(',').filter(|option| !option.is_empty()) {
            assert!(has(&seen, option), "{options}: no {option} in {seen}");
        }
        for option in hidden.split(',').filter(|option| !option.is_empty()) {
            assert!(!has(&seen, option), "{options}: {option} in {seen}");
        }
        unmount(&machine, "mountpoint");
    }
    for (options, line) in [
        ("nonsense", "unknown mount option: nonsense"),
        (
            "allow_root",
            "mount option allow_root: root alone cannot be let in",
        ),
        (
            "auto_unmount",
            "mount option auto_unmount: when dotlockfs is killed",
        ),
        (
            "subtype=other",
            "mount option subtype=other: it is always dotlockfs",
        ),
        (
            "fsname=/other",
            "mount option fsname=/other: the name is always that of the source",
        ),
        (
            "threads=many",
            "mount option threads=many: the number may be from 1 to 64",
        ),
        (
            "config=/no/such/file",
            "cannot read the rule file /no/such/file",
        ),
        // A comma without quotes.
        ("guard=*.{log,txt}", "unknown mount option: txt}"),
    ] {
        machine.fstab(&format!(
            "DIR/source DIR/mountpoint dotlockfs {options} 0 0\n"
        ));
        let refused = machine.run(Who::Root, "mount", &["-a"]);
        assert!(!refused.status.success(), "{options}");
        let first = refused.stderr.lines().next().unwrap_or_default();
        let said = first.strip_prefix("mount.dotlockfs: ").unwrap_or_default();
        assert!(said.starts_with(line), "{options}: {}", refused.stderr);
        assert_eq!(machine.mounts(), []);
    }
}

#[test]
fn a_line_with_noauto_waits_until_it_is_asked_for() {
    let machine = Machine::with_helpers();
    machine.fstab("DIR/source DIR/mountpoint dotlockfs noauto,nofail 0 0\n");
    machine.run(Who::Root, "mount", &["-a"]).success();
    assert_eq!(machine.mounts(), []);
    let place = machine.name("mountpoint");
    machine.run(Who::Root, "mount", &[&place]).success();
    assert_eq!(machine.mounts().len(), 1);
    unmount(&machine, "mountpoint");
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
        let seen = options_at(&machine, "mountpoint");
        for option in ["ro", "nosuid", "nodev", "noexec", "allow_other"] {
            assert!(has(&seen, option), "{option}: {seen}");
        }
        let refused = machine.run(Who::Root, "sh", &["-c", append, "sh", &place]);
        assert!(
            refused.stderr.contains("Read-only file system"),
            "{refused:?}"
        );

        mount(&["-o", "remount,rw,exec", &place]).success();
        assert!(!has(&options_at(&machine, "mountpoint"), "noexec"));
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
        unmount(&machine, "mountpoint");
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
    unmount(&machine, "mountpoint");
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
    assert!(has(&options_at(&machine, "mountpoint"), "ro"));
    unmount(&machine, "mountpoint");
}

/// `user` in fstab: mount(8) runs the helper with that user's rights and no others, so it is a mount
/// by fusermount3.
#[test]
fn a_user_mounts_what_fstab_allows() {
    let machine = Machine::with_helpers();
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("chmod");
    let place = machine.name("mountpoint");
    for option in ["user", "users", "owner"] {
        machine.fstab(&format!(
            "DIR/source DIR/mountpoint dotlockfs {option},noauto 0 0\n"
        ));
        machine.run(ALICE, "mount", &[&place]).success();
        let mounts = machine.mounts();
        assert_eq!(mounts.len(), 1, "{option}: {mounts:?}");
        assert_eq!(mounts[0].0, machine.path().join("source"));
        let seen = options_at(&machine, "mountpoint");
        for wanted in ["nosuid", "nodev", "user_id=1000"] {
            assert!(has(&seen, wanted), "{option}: no {wanted} in {seen}");
        }
        assert_eq!(has(&seen, "noexec"), option != "owner", "{option}: {seen}");
        // Nothing of root's is handed over.
        let served = daemons(Path::new(&place));
        assert_eq!(served.len(), 1, "{served:?}");
        let status = fs::read_to_string(format!("/proc/{}/status", served[0])).expect("status");
        for line in ["Uid:\t1000\t1000\t1000\t1000", "CapPrm:\t0000000000000000"] {
            assert!(status.lines().any(|seen| seen == line), "{line}:\n{status}");
        }
        machine.shell(
            ALICE,
            r#"echo one >> "$1/log"; rm "$1/log""#,
            &[Path::new(&place)],
        );
        // With `users` anybody may end it.
        let stranger = machine.run(BOB, "umount", &[&place]);
        assert_eq!(
            stranger.status.success(),
            option == "users",
            "{option}: {stranger:?}"
        );
        if option != "users" {
            machine.run(ALICE, "umount", &[&place]).success();
        }
        assert_ended(&machine, "mountpoint");
    }

    machine.fstab("DIR/source DIR/mountpoint dotlockfs user,noauto,allow_other 0 0\n");
    assert_failed(
        &machine.run(ALICE, "mount", &[&place]),
        "only root can mount it for other users (allow_other)",
    );
    // Another user may mount by `user`, but fusermount3 lets nobody mount on others' directories.
    machine.fstab("DIR/source DIR/mountpoint dotlockfs user,noauto 0 0\n");
    assert_failed(
        &machine.run(BOB, "mount", &[&place]),
        "cannot mount there: fusermount3: ",
    );
    assert_eq!(machine.mounts(), []);
}

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
    assert!(has(&options_at(&machine, "mountpoint"), "ro"));
    assert_eq!(code(&[source, place]), MOUNT_FAILED, "it is there");
    unmount(&machine, "mountpoint");
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
    unmount(&other, "mountpoint");
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
    assert_ended(&machine, "mountpoint");
    let _ = said.join();
}

/// Whether a process has a handler for a signal.
fn catches(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// What is at a mountpoint, of the mount and of the file system: one list.
#[track_caller]
fn options_at(machine: &Machine, name: &str) -> String {
    let place = machine.name(name);
    let options = ["-no", "VFS-OPTIONS,FS-OPTIONS", &place];
    let found = machine.run(Who::Root, "findmnt", &options).success();
    let words: Vec<&str> = found.split_whitespace().collect();
    let [vfs, fs] = words[..] else {
        panic!("findmnt says {found}");
    };
    // Only a mount that is read-only itself is; the file system says rw of its own.
    let of_file_system = fs.split(',').filter(|word| !matches!(*word, "rw" | "ro"));
    let all: Vec<&str> = vfs.split(',').chain(of_file_system).collect();
    all.join(",")
}

fn has(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// The mount must have failed, with one line that names what is wrong.
#[track_caller]
fn assert_failed(outcome: &Finished, names: &str) {
    assert_eq!(outcome.status.code(), MOUNT_FAILED, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains(names), "{names}: {outcome:?}");
}

/// Unmounts by umount(8), and waits for the daemon's end.
#[track_caller]
fn unmount(machine: &Machine, name: &str) {
    unmount_at(machine, &machine.name(name));
    assert_ended(machine, name);
}

/// What has it open goes a moment after it is seen to have ended.
#[track_caller]
fn unmount_at(machine: &Machine, place: &str) {
    let unmounted = || machine.run(Who::Root, "umount", &[place]).status.success();
    assert!(wait_until(DEADLINE, unmounted), "{place} is busy");
}

#[track_caller]
fn assert_ended(machine: &Machine, name: &str) {
    let place = PathBuf::from(machine.name(name));
    let ended = wait_until(DEADLINE, || daemons(&place).is_empty());
    assert!(ended, "the daemon goes on");
    let left = machine.mounts();
    assert!(left.iter().all(|(_, point, _)| *point != place), "{left:?}");
    assert_eq!(
        fs::metadata(&place).expect("stat").uid(),
        1000,
        "the bare directory"
    );
}
