//! The service of the package.

use crate::cluster::SERVER_DATA;
use crate::common::debian::repository;
use crate::machine::{DATA, HOST, MOUNTED, Machines, RULES, UNMOUNTED, append};

/// Its name.
const SERVICE: &str = "dotlockfs@srv-data.service";

#[test]
fn systemd_looks_after_the_service() {
    let machines = Machines::boot(1);
    machines.booted();
    machines.run(&set_up());
    // It is mounted when systemd says that it is started.
    machines.run(MOUNTED);
    let said = format!("/net/data at {DATA}, 1 rule of /net/data/.dotlockfs.toml");
    has_status(&machines, &said);
    appends(&machines, "started", 1);

    reloads(&machines);

    // Killed: it is mounted again over the dead mount, so nothing is written below.
    let restart = |kill: &str| {
        format!(
            "old=$(systemctl show --value -p MainPID {SERVICE})
            {kill}
            until now=$(systemctl show --value -p MainPID {SERVICE})
                [[ $now != 0 && $now != $old ]] && systemctl -q is-active {SERVICE}
            do ((SECONDS < 60)) || exit 1; sleep 0.1; done"
        )
    };
    machines.run(&restart("kill -KILL $old"));
    machines.run(MOUNTED);
    appends(&machines, "killed", 1);
    let said = machines.run(&format!("systemctl show -p NRestarts {SERVICE}"));
    assert_eq!(said, "NRestarts=1\n");

    // It hangs: the watchdog ends it.
    let short = format!(
        "mkdir -p /etc/systemd/system/{SERVICE}.d
        printf '[Service]\nWatchdogSec=3\n' >/etc/systemd/system/{SERVICE}.d/short.conf
        systemctl daemon-reload && systemctl restart {SERVICE}"
    );
    machines.run(&short);
    machines.run(&restart("kill -STOP $old"));
    machines.run(MOUNTED);
    appends(&machines, "stopped", 1);
    let journal = machines.run(&format!("journalctl --no-pager -b -o cat -u {SERVICE}"));
    assert!(journal.contains("Watchdog timeout"), "{journal}");

    // Ended by hand, and started again; nothing stays but the NFS.
    machines.run(&format!("systemctl stop {SERVICE} && {UNMOUNTED}"));
    let ended = format!("systemctl show -p ActiveState -p Result {SERVICE}");
    assert_eq!(
        machines.run(&ended),
        "Result=success\nActiveState=inactive\n"
    );
    machines.run(&format!("systemctl start {SERVICE}"));

    // The machine goes down: the services that need it first, then it, then the NFS; and the boot
    // brings it back.
    machines.start_writer("going", SERVICE);
    machines.power_off();
    let last = machines
        .cluster
        .run_ok("server", &format!("tail -n 1 {SERVER_DATA}/log"));
    let going = machines.records(&format!("{HOST} going "));
    assert_eq!(last, format!("{HOST} going {going}\n"));
    machines.cluster.boot(HOST);
    machines.booted();
    machines.went_down_in_order("Stopped dotlockfs@srv-data.service");
    machines.run(MOUNTED);
    appends(&machines, "booted", 1);

    removed(&machines);
}

/// What the README says to do for the service.
fn set_up() -> String {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("read");
    let commands = readme
        .split("```console\n")
        .find(|block| block.starts_with("# mkdir -p /etc/dotlockfs /srv/data\n"))
        .expect("commands for the service");
    let commands = commands.split("```").next().expect("their end");
    let commands = commands
        .lines()
        .map(|line| line.strip_prefix("# ").expect("a command"));
    let commands: Vec<&str> = commands.collect();
    format!("set -e\n{}\n", commands.join("\n"))
}

/// Waits until `systemctl status` shows this.
#[track_caller]
fn has_status(machines: &Machines, said: &str) {
    machines.until(&format!(
        "[[ $(systemctl status {SERVICE}) == *'Status: \"{said}'* ]]"
    ));
}

/// A user can append.
#[track_caller]
fn appends(machines: &Machines, what: &str, records: usize) {
    let who = format!("{HOST} {what}");
    let done = machines.run_as_user(&append(DATA, &who, records));
    assert!(done.success(), "{done}");
    assert_eq!(machines.records(&format!("{who} ")), records);
}

/// `systemctl reload` takes rules, and leaves bad ones.
fn reloads(machines: &Machines) {
    let write = |rules: &str| {
        let script = format!(
            "cat >{SERVER_DATA}/.new <<'END'\n{rules}\nEND
            mv {SERVER_DATA}/.new {SERVER_DATA}/.dotlockfs.toml"
        );
        machines.cluster.run_ok("server", &script);
        machines.run(&format!("systemctl reload {SERVICE}"));
    };
    write(&format!(
        "{RULES}[[guard]]\nfiles = [\"other\"]\nstale_after = \"4s\"\n"
    ));
    let two = format!("/net/data at {DATA}, 2 rules of /net/data/.dotlockfs.toml");
    has_status(machines, &two);
    write("version = 1\n[[guard]]\nfile = [\"log\"]\n");
    let journal = format!("journalctl --no-pager -b -o cat -u {SERVICE}");
    machines.until(&format!(
        "[[ $({journal}) == *'the rules stay as they were'* ]]"
    ));
    let journal = machines.run(&journal);
    assert!(journal.contains("unknown key \"file\""), "{journal}");
    has_status(machines, &two);
    write(RULES);
    has_status(machines, &format!("/net/data at {DATA}, 1 rule of"));
}

/// The package is removed with the service active and another mount, and purged.
fn removed(machines: &Machines) {
    let other = "mkdir /srv/other && mount -t dotlockfs -o allow_other /net/data /srv/other";
    machines.run(other);
    let said = machines.run("dpkg --remove dotlockfs");
    assert!(said.contains("go on without the package"), "{said}");
    let named: Vec<&str> = said.lines().filter(|line| line.contains("/srv/")).collect();
    assert_eq!(named, ["  /srv/other"], "{said}");
    machines.run(&format!(
        "{UNMOUNTED} && ! systemctl -q is-active {SERVICE}"
    ));
    machines.run(&format!(
        "echo {HOST} removed 1 >>/srv/other/log && umount /srv/other"
    ));
    assert_eq!(machines.records(&format!("{HOST} removed ")), 1);
    // A new installation finds it enabled; after a purge nothing is.
    let links = "ls /etc/systemd/system/multi-user.target.wants | grep dotlockfs";
    assert_eq!(machines.run(links), format!("{SERVICE}\n"));
    machines.run("dpkg --purge dotlockfs");
    machines.run(&format!("! {links}"));
    // What the administrator has written stays.
    machines.run("ls /etc/dotlockfs/srv-data.env");
}
