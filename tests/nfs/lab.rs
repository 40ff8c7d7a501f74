//! The cluster that all tests share, directories on its NFS, and views of them by dotlockfs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, NFS, Output, SERVER_DATA};
use crate::table::Cells;

/// The hosts of most tests, which have dotlockfs.
pub const BOTH: [&str; 2] = ["host1", "host2"];

/// A host without dotlockfs, straight on the NFS.
pub const BARE: &str = "host3";

/// Where a view is mounted.
pub const VIEW: &str = "/mnt/view";

/// Where the programs of `tests/nfs/programs` are on every machine.
const PROGRAMS: &str = "/run/programs";

/// The programs, as they were when the test was built.
const PROGRAM_FILES: &[(&str, &str)] = &[
    ("asked.py", include_str!("programs/asked.py")),
    ("attempts.py", include_str!("programs/attempts.py")),
    ("buffered.py", include_str!("programs/buffered.py")),
    ("check.py", include_str!("programs/check.py")),
    (
        "check-updates.py",
        include_str!("programs/check-updates.py"),
    ),
    ("common.py", include_str!("programs/common.py")),
    ("common.sh", include_str!("programs/common.sh")),
    ("count.py", include_str!("programs/count.py")),
    ("deliver.sh", include_str!("programs/deliver.sh")),
    ("dotlocking.py", include_str!("programs/dotlocking.py")),
    ("held.py", include_str!("programs/held.py")),
    ("interrupted.py", include_str!("programs/interrupted.py")),
    ("open.py", include_str!("programs/open.py")),
    ("ping-pong.py", include_str!("programs/ping-pong.py")),
    ("read-again.py", include_str!("programs/read-again.py")),
    ("replace.py", include_str!("programs/replace.py")),
    ("rotate.sh", include_str!("programs/rotate.sh")),
    ("shell-loop.sh", include_str!("programs/shell-loop.sh")),
    ("short-lived.sh", include_str!("programs/short-lived.sh")),
    ("sqlite-rows.py", include_str!("programs/sqlite-rows.py")),
    ("still.py", include_str!("programs/still.py")),
    ("stubborn.py", include_str!("programs/stubborn.py")),
    ("tool.sh", include_str!("programs/tool.sh")),
    ("truncating.sh", include_str!("programs/truncating.sh")),
    ("watch.py", include_str!("programs/watch.py")),
    (
        "within-a-tick.py",
        include_str!("programs/within-a-tick.py"),
    ),
];

/// Three hosts and a server, in the hands of one test.
pub struct Lab {
    pub cluster: Cluster,
    /// What is mounted: the version, and the options after a blank.
    mounted: RefCell<String>,
    directories: Cell<u32>,
    /// What programs came to straight on NFS, for the tables: see [`Lab::once`].
    plain: RefCell<HashMap<String, Cells>>,
    barriers: Cell<u32>,
}

static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();

impl Lab {
    /// The lab with its NFS mounted in this version, as soon as other tests are done with it.
    pub fn on(vers: &str) -> MutexGuard<'static, Lab> {
        let shared = LAB.get_or_init(|| Mutex::new(Lab::boot(vers)));
        let lab = match shared.lock() {
            Ok(lab) => lab,
            Err(poisoned) => {
                // A test has failed and left the hosts as they were at that moment.
                let lab = poisoned.into_inner();
                lab.boot_hosts_again();
                shared.clear_poison();
                lab
            }
        };
        if *lab.mounted.borrow() != vers {
            lab.cluster.remount("all", vers, None);
            lab.mounted.replace(vers.into());
        }
        lab
    }

    fn boot(vers: &str) -> Lab {
        let lab = Lab {
            cluster: Cluster::up(3, vers),
            mounted: RefCell::new(vers.into()),
            directories: Cell::new(0),
            plain: RefCell::default(),
            barriers: Cell::new(0),
        };
        lab.bring_programs();
        lab
    }

    fn boot_hosts_again(&self) {
        let cluster = &self.cluster;
        thread::scope(|scope| {
            for host in cluster.hosts() {
                scope.spawn(move || {
                    cluster.kill(&host);
                    cluster.boot(&host);
                });
            }
        });
        self.mounted.replace(self.first_vers());
        self.bring_programs();
    }

    /// The version that a host mounts when it boots.
    fn first_vers(&self) -> String {
        let mounts = std::fs::read_to_string(self.cluster.dir().join("config"));
        let mounts = mounts.expect("the cluster has a config");
        let vers = mounts.lines().find_map(|line| line.strip_prefix("VERS="));
        vers.expect("the config has a version").into()
    }

    fn bring_programs(&self) {
        self.cluster.install("all", env!("CARGO_BIN_EXE_dotlockfs"));
        let mut script = format!("mkdir -p {PROGRAMS} {VIEW} && cd {PROGRAMS} || exit\n");
        for (name, text) in PROGRAM_FILES {
            script += &format!("cat >{name} <<'END OF PROGRAM'\n{text}END OF PROGRAM\n");
        }
        script += "chmod 755 *.sh\n";
        self.on_each(&["server", "host1", "host2", "host3"], &script);
    }

    /// Mounts the version that is mounted with further options, until the end of the test.
    pub fn remount(&self, options: &str) {
        let vers = self.vers_number();
        self.cluster.remount("all", &vers, Some(options));
        self.mounted.replace(format!("{vers} {options}"));
    }

    /// Mounts it on each of these hosts with options of its own, until the end of the test.
    pub fn remount_each(&self, options: &[(&str, &str)]) {
        let vers = self.vers_number();
        for (host, options) in options {
            self.cluster.remount(host, &vers, Some(options));
        }
        self.mounted.replace(format!("{vers} {options:?}"));
    }

    /// The NFS version that is mounted, for people.
    pub fn vers(&self) -> String {
        format!("NFSv{}", self.vers_number())
    }

    /// The NFS version as `mount.cluster` wants it.
    pub fn vers_number(&self) -> String {
        let mounted = self.mounted.borrow();
        let vers = mounted.split(' ').next();
        vers.expect("the version comes first").into()
    }

    /// What `run` gives, which is called only once for each `what` and each way to mount: a
    /// program that several tests have in common is run only once straight on NFS.
    pub fn once(&self, what: &str, run: impl FnOnce() -> Cells) -> Cells {
        let what = format!("{}: {what}", self.mounted.borrow());
        if let Some(known) = self.plain.borrow().get(&what) {
            return *known;
        }
        let cells = run();
        self.plain.borrow_mut().insert(what, cells);
        cells
    }

    /// Makes an empty directory on the NFS, in which everybody may write.
    pub fn directory(&self) -> Directory {
        let number = self.directories.get();
        self.directories.set(number + 1);
        let name = format!("t{number}");
        let server = format!("{SERVER_DATA}/{name}");
        self.server(&format!("mkdir -m 777 {server}"));
        Directory {
            nfs: format!("{NFS}/{name}"),
            server,
        }
    }

    /// Runs a script on the server, which must succeed; gives what it printed.
    pub fn server(&self, script: &str) -> String {
        self.cluster.run_ok("server", script)
    }

    /// Runs a script on several machines at once; it must succeed on each.
    pub fn on_each(&self, machines: &[&str], script: &str) -> Vec<String> {
        let jobs: Vec<_> = machines
            .iter()
            .map(|machine| self.cluster.spawn(machine, script))
            .collect();
        jobs.into_iter().map(|job| job.wait_ok()).collect()
    }

    /// Mounts the directory with dotlockfs on these hosts, all at once.
    pub fn view<'a>(&'a self, directory: &Directory, hosts: &'a [&'a str]) -> View<'a> {
        self.view_of(&directory.nfs, hosts, "")
    }

    /// Mounts any path with dotlockfs, with further words for its command line.
    pub fn view_of<'a>(&'a self, source: &str, hosts: &'a [&'a str], words: &str) -> View<'a> {
        let view = View { lab: self, hosts };
        self.on_each(hosts, &format!("dotlockfs {source} {VIEW} {words}"));
        view
    }

    /// A fresh directory that outlasts no test, seen by all machines and by us under one path.
    pub fn barrier(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let number = self.barriers.get();
        self.barriers.set(number + 1);
        // The cluster removes `stage` when it is taken down.
        let path = self.cluster.dir().join(format!("stage/barrier{number}"));
        std::fs::create_dir_all(&path).expect("no directory for a barrier");
        let everybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&path, everybody).expect("cannot open up the barrier");
        path
    }

    /// Waits until a script on the server prints what is wanted.
    pub fn wait_for(&self, what: &str, script: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let said = self.server(script);
            if wanted(&said) {
                return said;
            }
            assert!(
                Instant::now() < deadline,
                "not within 90 s: {what}; `{script}` says:\n{said}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs a script on a host and says how it ended, whatever that is.
    pub fn run(&self, host: &str, script: &str) -> Output {
        self.cluster.run(host, script)
    }
}

/// The command line of a program of `tests/nfs/programs`.
pub fn program(name: &str, arguments: &str) -> String {
    let interpreter = match name.ends_with(".py") {
        true => "/usr/bin/python3 ",
        false => "",
    };
    format!("{interpreter}{PROGRAMS}/{name} {arguments}")
}

/// A directory on the NFS.
pub struct Directory {
    /// Its path on the hosts.
    pub nfs: String,
    /// Its path on the server, where it is a directory of the server's own disk.
    pub server: String,
}

impl Directory {
    /// Writes a rule file for all who mount the directory from now on.
    pub fn rules(&self, lab: &Lab, text: &str) {
        lab.server(&format!(
            "cat >{}/.dotlockfs.toml <<'END OF RULES'\nversion = 1\n{text}\nEND OF RULES",
            self.server
        ));
    }
}

/// A directory seen through dotlockfs at [`VIEW`] on some hosts; unmounted when dropped.
pub struct View<'a> {
    lab: &'a Lab,
    hosts: &'a [&'a str],
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            return; // the hosts get a new boot
        }
        self.lab.on_each(
            self.hosts,
            &format!(
                "if mountpoint -q {VIEW}; then umount {VIEW} || exit; fi
                for ((i = 0; i < 400; i++)); do
                    pgrep -x dotlockfs >/dev/null || exit 0
                    sleep 0.1
                done
                echo 'dotlockfs goes on though its mount is gone' >&2
                exit 1"
            ),
        );
    }
}
