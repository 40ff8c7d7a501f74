//! mount(8), lines in `/etc/fstab`, and the helper that mount(8) calls, each on a machine of its own
//! as far as mounts go.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::machine::{MOUNT_FAILED, Machine, assert_failed, has};
use common::{
    ALICE, BOB, DEADLINE, Who, command, daemons, directory, finish, require_program, send,
    wait_until,
};

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
            let options =
                r#"allow_other,noatime,guard="*.{log,txt}:b",_netdev,nofail,x-a.b=c,threads=1"#;
            machine.fstab(&format!("DIR/source DIR/mountpoint {kind} {options} 0 0\n"));
            let place = machine.name("mountpoint");
            machine.run(Who::Root, "mount", &["-a"]).success();
            assert_tables(&machine);
            let script = r#"echo one >> "$1/a.log"; echo two >> "$1/a.log"; cat "$1/a.log""#;
            let said = machine.shell(ALICE, script, &[Path::new(&place)]);
            assert_eq!(said, "one\ntwo\n");
            fs::remove_file(machine.path().join("source/a.log")).expect("remove");
            machine.unmount("mountpoint");

            let source = machine.name("source");
            let line = ["-t", kind, &source, &place, "-o", "ro,noexec"];
            machine.run(Who::Root, "mount", &line).success();
            let options = machine.options_at("mountpoint");
            for option in ["ro", "noexec", "nosuid", "nodev", "relatime"] {
                assert!(has(&options, option), "{option}: {options}");
            }
            machine.unmount("mountpoint");
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
        machine.unmount("source");
        machine.unmount_once("source");
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

/// The table of mounts still shows what a killed daemon has left, so `mount -a` has nothing to do;
/// a mount that is asked for by name comes to stand upon it.
#[test]
fn a_killed_daemon_is_started_again_by_mount() {
    let machine = Machine::with_helpers();
    for (place, line, again) in [
        ("mountpoint", "", [].as_slice()),
        // mount(8) takes the first line of a place that it is told, which is the wrong one here.
        (
            "source",
            "none DIR/source tmpfs mode=1777 0 0\n",
            &["-t", "dotlockfs", "-o", "require_mount=tmpfs", "DIR/source"],
        ),
    ] {
        machine.fstab(&format!(
            "{line}DIR/source DIR/{place} dotlockfs defaults 0 0\n"
        ));
        machine.run(Who::Root, "mount", &["-a"]).success();
        let at = machine.path().join(place);
        for daemon in daemons(&at) {
            send(daemon, libc::SIGKILL);
        }
        assert!(wait_until(DEADLINE, || daemons(&at).is_empty()), "killed");
        machine.run(Who::Root, "mount", &["-a"]).success();
        assert_eq!(machine.mounts().len(), 1, "only the dead one");

        let named: Vec<String> = again.iter().map(|word| machine.in_place(word)).collect();
        let mut mount = machine.command(Who::Root, "mount");
        finish(mount.args(named).arg(&at)).success();
        machine.shell(Who::Root, r#"echo line >> "$1/log"; rm "$1/log""#, &[&at]);
        // The dead one goes with the end of the new one.
        machine.unmount_once(place);
        let ended = || daemons(&at).is_empty() && machine.mounts().is_empty();
        assert!(wait_until(DEADLINE, ended), "{:?}", machine.mounts());
    }
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
    machine.unmount("mountpoint");
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
    let options = "allow_other,require_mount,_netdev,nofail,\
                   x-systemd.before=remote-fs.target,x-systemd.requires-mounts-for=/net/data";
    let (outcome, place) = generate(&format!("/net/data /srv/data dotlockfs {options} 0 0\n"));
    outcome.success();
    let unit = fs::read_to_string(place.path().join("units/srv-data.mount")).expect("a unit");
    for line in [
        "RequiresMountsFor=/net/data",
        "Before=remote-fs.target",
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
        let written = machine.in_place(source);
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
        machine.unmount("mountpoint");
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
        let seen = machine.options_at("mountpoint");
        for option in shown.split(',').filter(|option| !option.is_empty()) {
            assert!(has(&seen, option), "{options}: no {option} in {seen}");
        }
        for option in hidden.split(',').filter(|option| !option.is_empty()) {
            assert!(!has(&seen, option), "{options}: {option} in {seen}");
        }
        machine.unmount("mountpoint");
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
    machine.unmount("mountpoint");
}

/// `user` in fstab: mount(8) runs the helper with that user's rights and no others, so it is a mount
/// by fusermount3.
#[test]
fn a_user_mounts_what_fstab_allows() {
    let machine = Machine::with_helpers();
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("chmod");
    let place = machine.name("mountpoint");
    for option in ["user", "users", "owner"] {
        a_user_mounts(&machine, "dotlockfs", option);
    }
    // By mount.fuse3.
    let without_helpers = Machine::new();
    without_helpers.link("dotlockfs");
    a_user_mounts(&without_helpers, "fuse.dotlockfs", "user");

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

/// ALICE mounts by fstab, and it is her mount.
#[track_caller]
fn a_user_mounts(machine: &Machine, kind: &str, option: &str) {
    let place = machine.name("mountpoint");
    machine.fstab(&format!(
        "DIR/source DIR/mountpoint {kind} {option},noauto 0 0\n"
    ));
    machine.run(ALICE, "mount", &[&place]).success();
    let mounts = machine.mounts();
    assert_eq!(mounts.len(), 1, "{option}: {mounts:?}");
    assert_eq!(mounts[0].0, machine.path().join("source"));
    let seen = machine.options_at("mountpoint");
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
    // With `users` anybody may end it. What had it open goes a moment after it is seen to have ended.
    let unmounted = |who| machine.run(who, "umount", &[&place]).status.success();
    if option == "users" {
        assert!(wait_until(DEADLINE, || unmounted(BOB)), "users: it is busy");
    } else {
        assert!(!unmounted(BOB), "{option}: a stranger ends it");
        assert!(wait_until(DEADLINE, || unmounted(ALICE)), "{option}: busy");
    }
    machine.assert_ended("mountpoint");
}
