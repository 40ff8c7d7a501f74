//! The server fails, or the way to it: programs are told, what they were told to be done is there
//! once, and everybody goes on as soon as it is over. `tests/failing.rs` has the single calls.

use crate::asked::Asked;
use crate::cluster::SERVER_DATA;
use crate::lab::{BOTH, Directory, Lab, VIEW, View};
use crate::on_both_versions;
use crate::updaters::{JSON, Task, Updaters};

/// Records that are appended through a descriptor which stays open.
const RECORDS: Task = Task {
    title: "appends that go on after an error",
    command: ("stubborn.py", ""),
    file: "log",
    kind: "records",
    make: "touch log",
};

/// A document that is replaced.
const DOCUMENT: Task = Task {
    title: "replacing that goes on after an error",
    command: ("replace.py", "nothing"),
    file: "state.json",
    kind: "json",
    make: JSON,
};

/// On each host a program that appends to a log, and one that replaces a document; all go on after
/// errors, until they are stopped.
struct World<'a> {
    directory: Directory,
    view: View<'a>,
    appends: Updaters<'a>,
    documents: Updaters<'a>,
}

impl<'a> World<'a> {
    fn new(lab: &'a Lab) -> World<'a> {
        World::with(lab, "")
    }

    fn with(lab: &'a Lab, keys: &str) -> World<'a> {
        let directory = lab.directory();
        let rule = "[[guard]]\nfiles = ['log', '*.json']\nstale_after = '4s'";
        directory.rules(lab, &format!("{rule}\n{keys}"));
        lab.server(&format!(
            "cd {} && {} && {}",
            directory.server, RECORDS.make, DOCUMENT.make
        ));
        let view = lab.view(&directory, &BOTH);
        let (mut appends, mut documents) = (Updaters::new(lab), Updaters::new(lab));
        for host in BOTH {
            appends.add_until_stopped(host, "a", &RECORDS, VIEW);
            documents.add_until_stopped(host, "d", &DOCUMENT, VIEW);
        }
        appends.start();
        documents.start();
        let world = World {
            directory,
            view,
            appends,
            documents,
        };
        world.wait_until_all_write(lab);
        world
    }

    /// Waits until each program has done something, which all see on the server.
    fn wait_until_all_write(&self, lab: &Lab) {
        let script = format!(
            "cd {} && for host in {}; do
                grep -c ^$host.a log; grep -o $host.d state.json | wc -l
            done",
            self.directory.server,
            BOTH.join(" ")
        );
        let numbers = |said: &str| -> Vec<usize> {
            said.lines()
                .map(|line| line.parse().expect("a number"))
                .collect()
        };
        // grep is not content with a count of 0.
        let script = format!("{script}; true");
        let before = numbers(&lab.server(&script));
        lab.wait_for("all write", &script, |said| {
            numbers(said)
                .iter()
                .zip(&before)
                .all(|(now, before)| now > before)
        });
    }

    /// Waits until each program on these hosts has failed.
    fn wait_until_all_fail(&self, hosts: &[&str]) {
        for updaters in [&self.appends, &self.documents] {
            updaters.wait_until_told("failed", hosts);
        }
    }

    /// Everybody goes on; and nothing is lost, whatever has failed with one of these errors.
    fn ends_well(self, lab: &Lab, hosts_that_failed: &[&str], errors: &[i32]) {
        for updaters in [&self.appends, &self.documents] {
            updaters.wait_until_told("recovered", hosts_that_failed);
        }
        self.wait_until_all_write(lab);
        self.appends.stop();
        self.documents.stop();
        let World {
            directory,
            view,
            appends,
            documents,
        } = self;
        appends
            .finish(&RECORDS, &directory)
            .assert_nothing_lost_but(errors);
        documents
            .finish(&DOCUMENT, &directory)
            .assert_nothing_lost_but(errors);
        drop(view);
    }
}

/// What fills the disk of the server. It is removed even where a test fails: the server goes on.
struct Filler<'a>(&'a Lab);

impl<'a> Filler<'a> {
    fn of(lab: &'a Lab) -> Filler<'a> {
        let filler = Filler(lab);
        // All at once, as far as that goes, and then the last blocks.
        lab.server(&format!(
            "cd {SERVER_DATA}
            fallocate -l 16G filler.0
            for ((i = 1; i < 50; i++)); do head -c 10M /dev/zero >filler.$i || exit 0; done
            echo 'the disk is not full' >&2
            exit 1"
        ));
        filler
    }
}

impl Drop for Filler<'_> {
    fn drop(&mut self) {
        _ = self
            .0
            .run("server", &format!("rm -f {SERVER_DATA}/filler.*"));
    }
}

on_both_versions! {
    /// The disk of the server is full, and then it is not.
    fn a_full_disk(lab: &Lab) {
        let world = World::new(lab);
        let filler = Filler::of(lab);
        world.wait_until_all_fail(&BOTH);
        drop(filler);
        // Who is slow gets EIO. A turn whose end finds no room is waited for.
        world.ends_well(lab, &BOTH, &[libc::ENOSPC, libc::EIO, libc::EAGAIN]);
    }

    /// A record does not fit on the disk, but its beginning does, in the file's last block; and the
    /// daemon dies before it has taken that back. Nobody was told that it is written.
    fn a_daemon_that_dies_over_half_a_record(lab: &Lab) {
        let directory = lab.directory();
        directory.rules(lab, "[[guard]]\nfiles = ['log']\nstale_after = '4s'");
        let log = format!("{}/log", directory.server);
        lab.server(&format!("head -c 4094 /dev/zero >{log}"));
        let view = lab.view(&directory, &BOTH);
        let mut one = Asked::on(lab, "host1", 0);
        // What the lock needs is there before the disk is full.
        one.does("f = os.open('log', os.O_WRONLY | os.O_APPEND); fcntl.flock(f, fcntl.LOCK_EX)");
        let filler = Filler::of(lab);
        let strace = lab.cluster.spawn(
            "host1",
            "strace -f -o /run/strace -e trace=ftruncate -e inject=ftruncate:delay_enter=60000000 \
             -p $(pgrep -x dotlockfs)",
        );
        lab.cluster.run_ok("host1", "
            until tasks=(/proc/$(pgrep -x dotlockfs)/task/*/status) &&
                ! grep -qP '^TracerPid:\t0$' \"${tasks[@]}\"; do
                sleep 0.05
            done
        ");
        one.begin("os.write(f, b'half\\n')");
        lab.wait_for("the beginning", &format!("stat -c %s {log}"), |said| said == "4096\n");
        lab.cluster.run_ok("host1", &format!("
            pkill -KILL -x dotlockfs
            umount -l {VIEW}
            pkill -KILL -x strace || true
        "));
        strace.wait();
        assert_ne!(one.answer(), "ok");
        drop(filler);
        let mut two = Asked::on(lab, "host2", 0);
        two.does("f = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(f, b'two\\n')");
        assert_eq!(lab.server(&format!("tr -d '\\0' <{log}")), "two\n");
        one.end();
        two.end();
        drop(view);
    }

    /// The export is read-only for a while.
    fn a_read_only_export(lab: &Lab) {
        let export = |how: &str| {
            let options = format!("{how},sync,no_root_squash,fsid=1,no_subtree_check,insecure");
            lab.server(&format!("exportfs -o {options} '*:{SERVER_DATA}' && exportfs -f"));
        };
        // A turn that has begun cannot be ended meanwhile. Who waits for it is told so.
        let world = World::with(lab, "lock_timeout = '5s'");
        export("ro");
        world.wait_until_all_fail(&BOTH);
        export("rw");
        // Who is slow gets EIO; and an NFSv3 client answers EACCES to an open for writing.
        world.ends_well(lab, &BOTH, &[libc::EROFS, libc::EAGAIN, libc::EIO, libc::EACCES]);
    }

    /// On a `soft` mount calls fail when the network is away for long enough; some of them are done
    /// all the same, later.
    fn a_soft_mount_that_is_cut_off(lab: &Lab) {
        lab.remount("soft,timeo=10,retrans=1");
        // Some only wait for the lock meanwhile, and are told so.
        let world = World::with(lab, "lock_timeout = '5s'");
        lab.cluster.cut("host1");
        world.wait_until_all_fail(&["host1"]);
        lab.cluster.heal("host1");
        let errors = [libc::EIO, libc::ETIMEDOUT, libc::EAGAIN];
        world.ends_well(lab, &["host1"], &errors);
    }

    /// The server's nfsd is started anew.
    fn a_server_that_restarts(lab: &Lab) {
        let world = World::new(lab);
        lab.cluster.restart_nfsd();
        let errors = [libc::EIO, libc::ETIMEDOUT, libc::EAGAIN, libc::ESTALE, libc::ENOENT];
        world.ends_well(lab, &[], &errors);
    }

    /// Somebody removes the file, and then its directory, on the server.
    fn what_is_removed_on_the_server(lab: &Lab) {
        let directory = lab.directory();
        let server = |script: &str| lab.server(&format!("cd {} && {script}", directory.server));
        server("mkdir -m 777 d && touch d/log other");
        let view = lab.view(&directory, &BOTH);
        let mut one = Asked::on(lab, "host1", 0);
        let mut two = Asked::on(lab, "host2", 0);
        one.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND)");
        one.does("other = os.open('other', os.O_WRONLY | os.O_APPEND)");
        one.does("os.write(f, b'lost with the file\\n'); os.write(other, b'one\\n')");

        // An NFSv4 server keeps a file that somebody has open, as a local file system does.
        server("rm d/log");
        let answer = one.ask("os.write(f, b'lost with the file\\n')");
        assert!(["ESTALE", "ENOENT", "ok"].contains(&answer.as_str()), "{answer}");
        two.does("with open('d/log', 'a') as out: out.write('two\\n')");
        // The descriptor follows the name, which has a file again.
        one.does("os.write(f, b'one\\n'); os.write(other, b'one\\n')");
        assert_eq!(server("cat d/log"), "two\none\n");

        // The names of old turns go by themselves, perhaps just then.
        server("rm -rf d || rm -rf d");
        let answer = one.ask("os.write(f, b'lost with the file\\n')");
        assert!(["ESTALE", "ENOENT", "ok"].contains(&answer.as_str()), "{answer}");
        server("mkdir -m 777 d && touch d/log");
        two.does("with open('d/log', 'a') as out: out.write('two\\n')");
        one.does("os.write(other, b'one\\n')");
        one.does("f = os.open('d/log', os.O_WRONLY | os.O_APPEND); os.write(f, b'one\\n')");
        assert_eq!(server("cat d/log other"), "two\none\none\none\none\n");
        one.end();
        two.end();
        drop(view);
    }

    /// A user may write to the file, but make no names in its directory; nor may dotlockfs, on an
    /// export that takes root for nobody. The lock cannot be had before somebody may.
    fn a_directory_that_is_read_only(lab: &Lab) {
        let (squashed, disk) = ("/mnt/squashed", "/mnt/exports/squash");
        lab.server(&format!("rm -rf {disk}/d && mkdir -m 755 {disk}/d && install -m 666 /dev/null {disk}/d/log"));
        let vers = lab.vers_number();
        lab.on_each(&BOTH, &format!("mkdir -p {squashed} && mount.cluster {vers} none squash {squashed}"));
        let view = lab.view_of(&format!("{squashed}/d"), &BOTH, "-o allow_other");
        let mut users = BOTH.map(|host| Asked::on(lab, host, 1000));
        for user in &mut users {
            user.does("f = os.open('log', os.O_WRONLY | os.O_APPEND)");
            assert_eq!(user.ask("os.write(f, b'refused\\n')"), "EACCES");
        }
        lab.server(&format!("chmod 777 {disk}/d"));
        for user in &mut users {
            user.does("os.write(f, b'line\\n')");
        }
        assert_eq!(lab.server(&format!("cat {disk}/d/log")), "line\nline\n");
        users.into_iter().for_each(Asked::end);
        drop(view);
        lab.on_each(&BOTH, &format!("umount {squashed}"));
    }
}
