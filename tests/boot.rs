//! Two hosts boot with lines in `/etc/fstab`: the NFS, and dotlockfs over it.
//!
//! The machines' init is the cluster's own, so the boot script is ours: what a distribution does
//! before a login, as far as mounts go, is `mount -a`.

#[path = "cluster/mod.rs"]
mod cluster;

use std::time::Duration;

use cluster::{Cluster, Output, SERVER_DATA};

/// The guarded directory.
const DATA: &str = "/mnt/data";

/// What a package does, and an administrator: the helper, the mountpoint, the lines. Nobody can
/// write into the mountpoint while nothing is mounted there.
const PREPARE: &str = r#"
    umount /mnt/nfs
    mkdir /run/real && mount --bind /usr/sbin /run/real
    mount -t tmpfs -o mode=755 none /usr/sbin
    ln -s /run/real/* /usr/sbin/
    ln -s /run/bin/dotlockfs /usr/sbin/mount.dotlockfs
    mkdir -m 555 /mnt/data
    touch /run/fstab && mount --bind /run/fstab /etc/fstab
"#;

/// The server's address.
const SERVER: &str = "10.77.0.1";

/// An address that nobody has, until the server takes it.
const AWAY: &str = "10.77.0.99";

/// How long a boot may wait for a server that is away: with `retry=0` mount.nfs asks once.
const WAIT: Duration = Duration::from_secs(60);

#[test]
fn hosts_boot_with_a_guarded_directory() {
    let cluster = Cluster::up(2, "4.2");
    let rules = "version = 1\n[[guard]]\nfiles = [\"log\"]\nstale_after = \"4s\"\n";
    cluster.run_ok(
        "server",
        &format!(
            "cd {SERVER_DATA} && printf '{rules}' >.dotlockfs.toml && install -m 666 /dev/null log"
        ),
    );
    for host in cluster.hosts() {
        prepare(&cluster, &host, SERVER);
    }

    // The first boot of both, and programs of an ordinary user on both at once.
    for host in cluster.hosts() {
        boot_script(&cluster, &host, SERVER);
    }
    let hosts = cluster.hosts();
    let writers = hosts.iter().map(|host| {
        let script = append(host, "first", 100);
        cluster.spawn_as(host, 1000, WAIT, &script)
    });
    let writers: Vec<_> = writers.collect();
    for writer in writers {
        writer.wait_ok();
    }

    // A reboot in good order.
    let down = format!(
        "for mount in view nfs; do
            for ((i = 0; ; i++)); do umount {DATA} && break; ((i < 600)) || exit 1; sleep 0.1; done
        done"
    );
    cluster.run_ok("host1", &down);
    cluster.kill("host1");
    boot(&cluster, "host1");
    cluster.run_ok("host1", &append("host1", "again", 20));

    // A power cut while both write.
    let endless =
        format!("n=0; while :; do n=$((n + 1)); echo host1 cut $n >>{DATA}/log || exit; done");
    let cut = cluster.spawn("host1", &endless);
    let other = cluster.spawn("host2", &append("host2", "meanwhile", 200));
    let seen = format!("until grep -q 'host1 cut 10$' {SERVER_DATA}/log; do sleep 0.05; done");
    cluster.run_ok("server", &seen);
    cluster.kill("host1");
    assert_eq!(cut.wait().status, cluster::MACHINE_DOWN);
    boot(&cluster, "host1");
    cluster.run_ok("host1", &append("host1", "after", 20));
    other.wait_ok();

    let log = cluster.run_ok("server", &format!("cat {SERVER_DATA}/log"));
    let of = |who: &str| log.lines().filter(|line| line.starts_with(who)).count();
    for (who, records) in [
        ("host1 first ", 100),
        ("host2 first ", 100),
        ("host1 again ", 20),
        ("host2 meanwhile ", 200),
        ("host1 after ", 20),
    ] {
        assert_eq!(of(who), records, "{who}");
        for number in 1..=records {
            let line = format!("{who}{number}");
            assert_eq!(
                log.lines().filter(|seen| *seen == line).count(),
                1,
                "{line}"
            );
        }
    }
    // The one that was under way may be there or not; all before it are.
    let numbers = log
        .lines()
        .filter_map(|line| line.strip_prefix("host1 cut "));
    let numbers: Vec<usize> = numbers
        .map(|number| number.parse().expect("whole"))
        .collect();
    assert!(numbers.len() >= 10);
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "{numbers:?}");
    assert_eq!(
        log.lines().count(),
        440 + numbers.len(),
        "nothing torn:\n{log}"
    );
}

/// The boot goes on, programs are not let into the bare mountpoint, and later all is well.
#[test]
fn a_host_boots_while_the_server_is_away() {
    let cluster = Cluster::up(1, "4.2");
    let host = "host1";
    prepare(&cluster, host, AWAY);
    let booted = cluster.run_as(host, 0, WAIT, "mount -a");
    assert_ne!(booted.status, cluster::TIMED_OUT, "{booted}");
    assert!(!booted.success(), "{booted}");
    let refusal = format!(
        "mount.dotlockfs: {DATA}: is on tmpfs, and require_mount asks for nfs: is the file system \
         mounted there yet?"
    );
    assert!(booted.stderr.contains(&refusal), "{booted}");
    assert_eq!(mounts(&cluster, host), "");
    let bare = cluster.run_as(host, 1000, WAIT, &format!("echo lost >>{DATA}/log"));
    assert!(bare.stderr.contains("Permission denied"), "{bare}");

    // It comes back, and whoever looks after the host says `mount -a` once more.
    let take = format!("ip address add {AWAY}/24 dev eth0");
    cluster.run_ok("server", &take);
    boot_script(&cluster, host, AWAY);
    cluster.run_ok(host, &append(host, "back", 10));
    let log = cluster.run_ok("server", &format!("cat {SERVER_DATA}/log"));
    assert_eq!(log.lines().count(), 10, "{log}");
}

/// Does once what is done to a machine before it boots.
fn prepare(cluster: &Cluster, host: &str, server: &str) {
    cluster.install(host, env!("CARGO_BIN_EXE_dotlockfs"));
    let lines = format!(
        "{server}:/data {DATA} nfs4 vers=4.2,hard,retry=0,_netdev,nofail 0 0\n\
         {DATA} {DATA} dotlockfs allow_other,require_mount,_netdev,nofail 0 0"
    );
    let script = format!("set -e\n{PREPARE}\ncat >/run/fstab <<'END'\n{lines}\nEND\n");
    cluster.run_ok(host, &script);
}

/// The end of a boot; and once more, which changes nothing.
fn boot_script(cluster: &Cluster, host: &str, server: &str) {
    let expected = format!("{server}:/data {DATA} nfs4\n{DATA} {DATA} fuse.dotlockfs\n");
    for _ in 0..2 {
        let booted: Output = cluster.run_as(host, 0, WAIT, "mount -a");
        assert!(booted.success(), "{host}: {booted}");
        assert_eq!(mounts(cluster, host), expected, "{host}");
    }
}

/// Boots a machine that is down.
fn boot(cluster: &Cluster, host: &str) {
    cluster.boot(host);
    prepare(cluster, host, SERVER);
    boot_script(cluster, host, SERVER);
}

/// What is mounted at the guarded directory.
fn mounts(cluster: &Cluster, host: &str) -> String {
    let script = format!("awk '$2 == \"{DATA}\" {{ print $1, $2, $3 }}' /proc/mounts");
    cluster.run_ok(host, &script)
}

/// A shell loop that appends records.
fn append(host: &str, what: &str, records: usize) -> String {
    cluster::append(DATA, &format!("{host} {what}"), records)
}
