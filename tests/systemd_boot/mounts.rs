//! Two lines in fstab.

use crate::cluster::SERVER_DATA;
use crate::machine::{DATA, HOST, MACHINE_DOWN, MOUNTED, Machines, OTHER, OTHER_DATA, append};

#[test]
fn debian_boots_goes_down_and_loses_its_power() {
    let machines = Machines::boot(2);
    let cluster = &machines.cluster;

    // The first boot, and programs of ordinary users on both hosts at once.
    machines.booted();
    is_there(&machines);
    machines.mount_on_other();
    let who = format!("{HOST} first");
    let here = cluster.spawn_as(HOST, 1000, DEADLINE, &append(DATA, &who, 100));
    let other = append(OTHER_DATA, &format!("{OTHER} first"), 100);
    let other = cluster.spawn_as(OTHER, 1000, DEADLINE, &other);
    here.wait_ok();
    other.wait_ok();
    for host in [HOST, OTHER] {
        assert_eq!(machines.records(&format!("{host} first ")), 100);
    }

    // In good order: services that use the mount have all the time they need for their last words.
    machines.start_writer("going", "remote-fs.target");
    machines.power_off();
    let last = cluster.run_ok("server", &format!("tail -n 1 {SERVER_DATA}/log"));
    let going = machines.records(&format!("{HOST} going "));
    assert_eq!(last, format!("{HOST} going {going}\n"));
    // No lock was left: it is the other host's at once.
    let lock =
        format!("! ls -A {SERVER_DATA} | grep -e '^log[.]lock$' -e '^[.]log[.]claim[.]{HOST}[.]'");
    cluster.run_ok("server", &lock);
    cluster.boot(HOST);
    machines.booted();
    is_there(&machines);
    machines.went_down_in_order("Unmounted srv-data.mount");
    let said = machines.run("journalctl --no-pager -b -1 -o cat -u writer");
    assert!(!said.contains("error"), "{said}");

    // A power cut while it writes.
    let endless =
        format!("n=0; while :; do n=$((n + 1)); echo {HOST} cut $n >>{DATA}/log || exit; done");
    let cut = cluster.spawn(HOST, &endless);
    let seen = format!("until grep -q '{HOST} cut 10$' {SERVER_DATA}/log; do sleep 0.05; done");
    cluster.run_ok("server", &seen);
    cluster.kill(HOST);
    assert_eq!(cut.wait().status, MACHINE_DOWN);
    // Whatever it has left holds nobody up for much longer than `stale_after`.
    let after = append(OTHER_DATA, &format!("{OTHER} after"), 20);
    cluster.run_ok(OTHER, &format!("{after}; echo $SECONDS; ((SECONDS < 30))"));
    cluster.boot(HOST);
    machines.booted();
    is_there(&machines);
    machines.run(&append(DATA, &format!("{HOST} again"), 20));
    assert!(machines.records(&format!("{HOST} cut ")) >= 10);
    assert_eq!(machines.records(&format!("{OTHER} after ")), 20);
    assert_eq!(machines.records(&format!("{HOST} again ")), 20);

    // Without the server. As the README has it, mount.nfs does not go on asking.
    machines.run("sed -i s/hard,/hard,retry=0,/ /etc/fstab && sync");
    cluster.kill(HOST);
    machines.server_is_away();
    cluster.boot(HOST);
    machines.until("systemctl -q is-active multi-user.target");
    machines.until("[[ $(systemctl is-system-running) == degraded ]]");
    let states = machines.run("systemctl is-active net-data.mount srv-data.mount || :");
    assert_eq!(states, "failed\ninactive\n");
    let bare = machines.run_as_user(&format!("echo lost >>{DATA}/log"));
    assert!(bare.stderr.contains("Permission denied"), "{bare}");
    machines.server_is_back();
    machines.run(&format!("systemctl start srv-data.mount && {MOUNTED}"));
    let back = machines.run_as_user(&append(DATA, &format!("{HOST} back"), 20));
    assert!(back.success(), "{back}");
    assert_eq!(machines.records(&format!("{HOST} back ")), 20);
}

/// How long programs may take.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(100);

/// Both mounts are there, and systemd knows of them.
#[track_caller]
fn is_there(machines: &Machines) {
    let types = machines.run(&format!(
        "findmnt -no FSTYPE -M /net/data; findmnt -no SOURCE,FSTYPE -M {DATA}"
    ));
    let types: Vec<&str> = types.split_whitespace().collect();
    assert_eq!(types, ["nfs4", "/net/data", "fuse.dotlockfs"]);
    let states = machines.run("systemctl is-active net-data.mount srv-data.mount remote-fs.target");
    assert_eq!(states, "active\nactive\nactive\n");
}
