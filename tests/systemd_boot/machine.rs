//! Two hosts: an ordinary one of the cluster, and one that systemd has booted.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::{self, Cluster, Output, SERVER_DATA};
use crate::common::debian::{debootstrap, on_disk, package, repository, tool};
use crate::common::{Who, finish, require_program, require_root, shell, wait_until};

/// The host that systemd boots.
pub const HOST: &str = "host2";

/// The other.
pub const OTHER: &str = "host1";

/// The guarded directory on [`HOST`], and on [`OTHER`].
pub const DATA: &str = "/srv/data";
pub const OTHER_DATA: &str = "/mnt/data";

/// What the server is called in fstab, and its address, which it can give up without the other host's
/// noticing.
const FILES: &str = "10.77.0.99 files";

/// How long anything in a machine may take.
const DEADLINE: Duration = Duration::from_secs(100);

/// How long a machine may take to go down. A program that does not end is killed after 90 s.
const DOWN: Duration = Duration::from_secs(60);

/// The rules of the directory.
pub const RULES: &str = "version = 1\n[[guard]]\nfiles = [\"log\"]\nstale_after = \"4s\"\n";

/// Both hosts, and the disk of the one.
pub struct Machines {
    pub cluster: Cluster,
    _disk: TempDir,
}

impl Machines {
    /// Boots them, with the first so many lines of the README for fstab.
    pub fn boot(lines: usize) -> Machines {
        require_root();
        let disk = on_disk();
        let path = disk.path().join("disk");
        shell(
            Who::Root,
            r#"cp --sparse=always "$1" "$2"
            debugfs -R 'dump /etc/fstab /dev/stdout' "$2" >"$2.old"
            head -n "$3" "$2.old" >"$2.fstab"
            debugfs -w -f - "$2" <<END
rm /etc/fstab
write $2.fstab /etc/fstab
END"#,
            &[&debian().join("disk"), &path, Path::new(&lines.to_string())],
        );
        let system = format!("{HOST}={}", path.display());
        let cluster = Cluster::up_with(2, "4.2", &["--system", &system]);
        let machines = Machines {
            cluster,
            _disk: disk,
        };
        machines.cluster.run_ok(
            "server",
            &format!(
                "cd {SERVER_DATA} && printf '{RULES}' >.dotlockfs.toml
                install -m 666 /dev/null log"
            ),
        );
        machines.server_is_back();
        machines
    }

    /// The server has the address that fstab means.
    pub fn server_is_back(&self) {
        let take = format!("ip address add {}/24 dev eth0", address());
        self.cluster.run_ok("server", &take);
    }

    /// It has it no more.
    pub fn server_is_away(&self) {
        let give = format!("ip address del {}/24 dev eth0", address());
        self.cluster.run_ok("server", &give);
    }

    /// Runs a script on the host that systemd has booted.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        self.cluster.run_ok(HOST, script)
    }

    /// The same as an ordinary user.
    pub fn run_as_user(&self, script: &str) -> Output {
        self.cluster.run_as(HOST, 1000, DEADLINE, script)
    }

    /// Waits there until a condition of the shell holds.
    #[track_caller]
    pub fn until(&self, condition: &str) {
        let script = format!(
            "until {condition}; do
                if ((SECONDS > {})); then
                    systemctl --no-pager list-jobs
                    journalctl --no-pager -b -n 60
                    exit 1
                fi
                sleep 0.1
            done",
            DEADLINE.as_secs()
        );
        self.cluster.run_ok(HOST, &script);
    }

    /// Waits for the end of the boot.
    #[track_caller]
    pub fn booted(&self) {
        self.until("[[ $(systemctl is-system-running) != starting ]]");
        let failed =
            "systemctl --failed --no-legend --plain; systemctl is-active multi-user.target";
        assert_eq!(self.run(failed), "active\n");
    }

    /// Mounts on the other host, too.
    pub fn mount_on_other(&self) {
        self.cluster.install(OTHER, env!("CARGO_BIN_EXE_dotlockfs"));
        let mount = format!("mkdir {OTHER_DATA} && dotlockfs -o allow_other /mnt/nfs {OTHER_DATA}");
        self.cluster.run_ok(OTHER, &mount);
    }

    /// Starts a service of the host that appends until it is told to end, and then some more; it says
    /// that it belongs to what waits for `after`.
    pub fn start_writer(&self, what: &str, after: &str) {
        let script = format!(
            "systemd-run --quiet --unit=writer --property=After={after} --uid=1000 bash -c '
                trap end=$((n + 1)) TERM
                append() {{ n=$((n + 1)); echo {HOST} {what} $n >>{DATA}/log || exit; }}
                until [[ -v end ]]; do append; done
                for last in {{1..20}}; do append; done'"
        );
        self.run(&script);
        let seen =
            format!("until grep -q '{HOST} {what} 10$' {SERVER_DATA}/log; do sleep 0.1; done");
        self.cluster.run_ok("server", &seen);
    }

    /// What is called `shutdown`: systemd ends everything, and at last the machine.
    #[track_caller]
    pub fn power_off(&self) {
        // Its answer may get lost.
        self.cluster.run(HOST, "systemctl poweroff");
        let down = wait_until(DOWN, || !self.cluster.is_up(HOST));
        assert!(down, "does not end:\n{}", self.cluster.console(HOST));
    }

    /// What the journal of the boot before has of it: it was unmounted, then the NFS, and then the
    /// network went down.
    #[track_caller]
    pub fn went_down_in_order(&self, first: &str) {
        let journal = self.run("journalctl --no-pager -b -1 -o cat");
        assert!(!journal.contains("target is busy"), "{journal}");
        assert!(!journal.contains("Failed unmounting"), "{journal}");
        let at = |what: &str| {
            journal
                .rfind(what)
                .unwrap_or_else(|| panic!("no {what}: {journal}"))
        };
        let order = [
            first,
            "Unmounted net-data.mount",
            "Stopped cluster-network.service",
        ]
        .map(at);
        assert!(order.is_sorted(), "{order:?}: {journal}");
    }

    /// The records in the file that begin so: all that there are from 1 on, each once. Gives how many.
    #[track_caller]
    pub fn records(&self, who: &str) -> usize {
        let log = self
            .cluster
            .run_ok("server", &format!("cat {SERVER_DATA}/log"));
        let numbers = log.lines().filter_map(|line| line.strip_prefix(who));
        let numbers: Vec<usize> = numbers
            .map(|number| number.trim().parse().expect("a whole record"))
            .collect();
        assert!(
            numbers.iter().copied().eq(1..=numbers.len()),
            "{who}: {numbers:?}"
        );
        numbers.len()
    }
}

fn address() -> &'static str {
    FILES.split(' ').next().expect("an address")
}

/// That it is mounted at the guarded directory, maybe over a dead mount.
pub const MOUNTED: &str = "[[ $(findmnt -no FSTYPE -M /srv/data | sort -u) == fuse.dotlockfs ]]";

/// That nothing is, not even a dead mount.
pub const UNMOUNTED: &str = "! grep ' /srv/data ' /proc/mounts";

/// The Debian with the package, on a disk; made once.
fn debian() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        for (program, package) in [("debugfs", "e2fsprogs"), ("linux.uml", "user-mode-linux")] {
            require_program(program, package);
        }
        let package = package();
        let made = on_disk();
        let root = made.path().join("root");
        debootstrap(&root, "systemd-sysv,kmod,iproute2,nfs-common,fuse3");
        fs::copy(package, root.join("dotlockfs.deb")).expect("copy");
        let install = finish(
            tool("chroot")
                .arg(&root)
                .args(["dpkg", "--install", "/dotlockfs.deb"])
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("DEBIAN_FRONTEND", "noninteractive"),
        );
        install.success();
        fs::write(root.join("etc/fstab"), fstab()).expect("write");
        // Nobody can write into the mountpoints while nothing is mounted there.
        let directories = r#"mkdir -p "$1/net/data" "$1/srv/data"; chmod 555 "$1/net/data" "$1/srv/data"
            rm -f "$1"/var/cache/apt/archives/*.deb"#;
        shell(Who::Root, directories, &[&root]);
        let mut system = tool("tests/cluster/system");
        finish(system.arg(&root).arg(made.path().join("disk")).arg(FILES)).success();
        fs::remove_dir_all(root).expect("remove");
        made
    });
    made.path()
}

/// The first lines for fstab in the README, with our server.
fn fstab() -> String {
    let readme = fs::read_to_string(repository().join("README.md")).expect("read");
    let block = readme.split("```fstab\n").nth(1).expect("a block");
    let lines = block.split("```").next().expect("its end");
    let ours = lines.replace("server:", "files:");
    assert_eq!(ours.matches("files:").count(), 1, "{lines}");
    assert_eq!(ours.lines().count(), 2, "{lines}");
    ours
}

pub use cluster::{MACHINE_DOWN, append};
