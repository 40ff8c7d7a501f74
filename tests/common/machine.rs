//! A machine of its own for a test, as far as mounts go: a private mount namespace with its own
//! `/etc/fstab`, helpers of mount(8) and `/run`. What is mounted in it nobody else sees.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{
    DEADLINE, Finished, Who, command, copy_command, daemons, directory, end_of, finish,
    require_program, require_root, wait_until,
};

/// What mount(8) gives where the mount has failed.
pub const MOUNT_FAILED: Option<i32> = Some(32);

/// Makes the namespace look as it should, says so, and keeps it until the end of its input.
/// `$1` is the directory of the test. The links in it replace `/usr/sbin`, where mount(8) finds
/// its helpers by the name `/sbin`. Copies of others' mounts would keep their daemons; nobody looks
/// into them, since a daemon may be stopped. mount(8) wants a name of who uses it.
const SET_UP: &str = r#"
    grep -F ' - fuse.dotlockfs ' /proc/self/mountinfo | cut -d ' ' -f 5 | tac |
        while read -r point; do umount --lazy --no-canonicalize "$point" || :; done
    mkdir "$1/real"
    mount --bind /usr/sbin "$1/real"
    mount -t tmpfs -o mode=755 none /usr/sbin
    ln -s "$1"/real/* /usr/sbin/
    mount -t tmpfs -o mode=755 none /run
    mount --bind "$1/fstab" /etc/fstab
    cp /etc/passwd "$1/passwd"
    for id in 1000 1001; do
        grep -q "^[^:]*:[^:]*:$id:" "$1/passwd" || echo "u$id:x:$id:$id::/:/bin/sh" >>"$1/passwd"
    done
    mount --bind "$1/passwd" /etc/passwd
    echo ready
    exec cat
"#;

/// The namespace, with two directories: `source` and `mountpoint`, which belong to `ALICE`.
pub struct Machine {
    directory: TempDir,
    /// Keeps the namespace.
    keeper: Child,
}

impl Machine {
    /// One on which nothing is installed but the command, as `/tmp/.../dotlockfs`.
    #[track_caller]
    pub fn new() -> Machine {
        require_root();
        require_program("nsenter", "util-linux");
        require_program("fusermount3", "fuse3");
        let directory = directory();
        let path = |name: &str| directory.path().join(name);
        for name in ["source", "mountpoint"] {
            fs::create_dir(path(name)).expect("mkdir");
            std::os::unix::fs::chown(path(name), Some(1000), Some(1000)).expect("chown");
        }
        fs::write(path("fstab"), "").expect("write");
        // Users need it, and mount(8) does not find it by a path.
        copy_command(&path("dotlockfs"));
        let mut keeper = command(Who::Root, "unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .args(["sh", "-euc", SET_UP, "sh"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().expect("piped"))
            .read_line(&mut said)
            .expect("read");
        let machine = Machine { directory, keeper };
        assert_eq!(said, "ready\n", "the namespace could not be set up");
        machine
    }

    /// The same with the links that a package makes.
    #[track_caller]
    pub fn with_helpers() -> Machine {
        let machine = Machine::new();
        for name in ["mount.dotlockfs", "mount.fuse.dotlockfs"] {
            machine.link(name);
        }
        machine
    }

    /// Links the command into `/usr/sbin` by this name.
    #[track_caller]
    pub fn link(&self, name: &str) {
        let script = r#"ln -s "$1/dotlockfs" "/usr/sbin/$2""#;
        self.shell(Who::Root, script, &[self.path(), Path::new(name)]);
    }

    /// The directory of the test, with all that belongs to it.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in it, as text.
    pub fn name(&self, name: &str) -> String {
        let path = self.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    /// A text with the directory of the test for `DIR`.
    pub fn in_place(&self, text: &str) -> String {
        text.replace("DIR", self.path().to_str().expect("UTF-8"))
    }

    /// Writes the lines into `/etc/fstab`; `DIR` in them is the directory of the test.
    #[track_caller]
    pub fn fstab(&self, lines: &str) {
        let lines = self.in_place(lines);
        // Not by another file: this one is bound over /etc/fstab.
        fs::write(self.path().join("fstab"), lines).expect("write");
    }

    /// The file that names its mount namespace.
    pub fn namespace(&self) -> String {
        format!("/proc/{}/ns/mnt", self.keeper.id())
    }

    /// A command that somebody runs in it.
    pub fn command(&self, who: Who, program: &str) -> Command {
        let inner = command(who, program);
        let mut outer = command(Who::Root, "nsenter");
        outer
            .arg(format!("--mount={}", self.namespace()))
            .arg("--")
            .arg(inner.get_program())
            .args(inner.get_args());
        outer
    }

    /// Runs a command in it to its end.
    #[track_caller]
    pub fn run(&self, who: Who, program: &str, arguments: &[&str]) -> Finished {
        finish(self.command(who, program).args(arguments))
    }

    /// Runs a shell script in it, with `$1`, `$2` and so on; it must succeed. Gives its output.
    #[track_caller]
    pub fn shell(&self, who: Who, script: &str, arguments: &[&Path]) -> String {
        let mut command = self.command(who, "sh");
        command.args(["-euc", script, "sh"]).args(arguments);
        finish(&mut command).success()
    }

    /// The mounts of dotlockfs in it: source, place, and options of the mount itself.
    #[track_caller]
    pub fn mounts(&self) -> Vec<(PathBuf, PathBuf, String)> {
        let table = self.run(Who::Root, "cat", &["/proc/self/mountinfo"]);
        let lines = table.success();
        let ours = lines.lines().filter_map(|line| {
            let (mount, system) = line.split_once(" - fuse.dotlockfs ")?;
            let mount: Vec<&str> = mount.split(' ').collect();
            let source = system.split(' ').next()?;
            Some((source.into(), mount[4].into(), mount[5].to_owned()))
        });
        ours.collect()
    }

    /// What is at a mountpoint, of the mount and of the file system: one list.
    #[track_caller]
    pub fn options_at(&self, name: &str) -> String {
        let place = self.name(name);
        let options = ["-no", "VFS-OPTIONS,FS-OPTIONS", &place];
        let found = self.run(Who::Root, "findmnt", &options).success();
        let words: Vec<&str> = found.split_whitespace().collect();
        let [vfs, fs] = words[..] else {
            panic!("findmnt says {found}");
        };
        // Only a mount that is read-only itself is; the file system says rw of its own.
        let of_file_system = fs.split(',').filter(|word| !matches!(*word, "rw" | "ro"));
        let all: Vec<&str> = vfs.split(',').chain(of_file_system).collect();
        all.join(",")
    }

    /// Unmounts by umount(8), and waits for the daemon's end.
    #[track_caller]
    pub fn unmount(&self, name: &str) {
        self.unmount_once(name);
        self.assert_ended(name);
    }

    /// Unmounts what is topmost there. What has it open goes a moment after it is seen to have
    /// ended.
    #[track_caller]
    pub fn unmount_once(&self, name: &str) {
        let place = self.name(name);
        let unmounted = || self.run(Who::Root, "umount", &[&place]).status.success();
        assert!(wait_until(DEADLINE, unmounted), "{place} is busy");
    }

    /// Waits for the end of the daemon that serves a mountpoint; its mount must be gone.
    #[track_caller]
    pub fn assert_ended(&self, name: &str) {
        let place = self.path().join(name);
        let ended = wait_until(DEADLINE, || daemons(&place).is_empty());
        assert!(ended, "the daemon goes on");
        let left = self.mounts();
        assert!(left.iter().all(|(_, point, _)| *point != place), "{left:?}");
    }

    /// Unmounts all mounts of dotlockfs, and waits for the ends of their daemons. What a test
    /// leaves running in it would keep the namespace.
    fn clear(&self) -> bool {
        for how in [[].as_slice(), &["--lazy"]] {
            let mut umount = self.command(Who::Root, "umount");
            umount
                .args(["--all", "--types", "fuse.dotlockfs"])
                .args(how);
            let _ = finish(&mut umount);
        }
        let mountpoints = ["mountpoint", "source"].map(|name| self.path().join(name));
        wait_until(DEADLINE, || {
            mountpoints.iter().all(|place| daemons(place).is_empty())
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let clear = self.clear();
        if let Some(mut input) = self.keeper.stdin.take() {
            let _ = input.flush();
        }
        if std::thread::panicking() {
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
            return;
        }
        assert!(clear, "a daemon goes on after umount");
        end_of(&mut self.keeper, "what keeps the namespace");
    }
}

/// Whether an option is in a list.
pub fn has(options: &str, wanted: &str) -> bool {
    options.split(',').any(|option| option == wanted)
}

/// The mount must have failed, with one line that names what is wrong.
#[track_caller]
pub fn assert_failed(outcome: &Finished, names: &str) {
    assert_eq!(outcome.status.code(), MOUNT_FAILED, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stderr.contains(names), "{names}: {outcome:?}");
}
