//! Mounts made by running a command, and unmounted when they go out of scope.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::interrupt::Failure;
use crate::sys::mount_table;

/// How long a mount may take to answer.
const MOUNT_DEADLINE: Duration = Duration::from_secs(30);
/// How long a mount may stay busy before it is detached, and its daemon take to end after that.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Fails if this machine or user cannot mount at all.
///
/// # Errors
/// A sentence that names the missing condition.
pub fn check_conditions() -> Result<(), Failure> {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => {}
        // fusermount3 opens the device with rights of its own.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !is_root() => {}
        Err(error) => {
            return Err(Failure::Failed(format!(
                "cannot open /dev/fuse: {error}; load the kernel module with `modprobe fuse`, \
                 or start the container with --device /dev/fuse --cap-add SYS_ADMIN"
            )));
        }
    }
    if !is_root() && find_in_path("fusermount3").is_none() {
        return Err(Failure::Failed(
            "cannot find fusermount3 in PATH, which mounts for users other than root; \
             install the package fuse3, or run as root"
                .into(),
        ));
    }
    Ok(())
}

/// A mount, from before it is asked for until it and its daemon are gone.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
}

impl Mount {
    /// Mounts `source` at `point`, which must be a canonical path, by a command that takes both as
    /// its last arguments and leaves a daemon behind. What the command has to say goes to `log`: a
    /// pipe would never end, as the daemon may keep its end of it.
    ///
    /// # Errors
    /// A sentence with the command's own reason.
    pub fn new(
        mut command: Command,
        source: &Path,
        point: &Path,
        log: &Path,
    ) -> Result<Mount, Failure> {
        let mount = Mount {
            point: point.to_owned(),
        };
        let stderr = File::create(log).map_err(|error| Failure::on("create", log, error))?;
        let mut child = command
            .arg(source)
            .arg(point)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C is for us, who unmount; it must not kill a daemon under a mount.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::on("run", Path::new(command.get_program()), error))?;

        // Not cut short by an interruption: a command that is left alone half-way could mount
        // after the clean-up has looked.
        let deadline = Instant::now() + MOUNT_DEADLINE;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    let seconds = MOUNT_DEADLINE.as_secs();
                    return Err(mount.failed(source, &format!("no answer within {seconds} s")));
                }
                Err(error) => return Err(mount.failed(source, &error.to_string())),
            }
        };
        if !status.success() {
            let said = fs::read(log).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().rfind(|line| !line.trim().is_empty());
            let reason = line.map_or(format!("the command ended with {status}"), |line| {
                line.trim_start_matches("dotlockfs: ").to_owned()
            });
            return Err(mount.failed(source, &reason));
        }
        if !is_mounted(point) {
            return Err(mount.failed(source, "the command succeeded, but nothing is mounted"));
        }
        Ok(mount)
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The process that serves it.
    ///
    /// # Errors
    /// A sentence, where it has ended.
    pub fn daemon(&self) -> Result<u32, Failure> {
        let point = self.point.display();
        process_that_names(&self.point)
            .ok_or_else(|| Failure::Failed(format!("the process that serves {point} has ended")))
    }

    fn failed(&self, source: &Path, reason: &str) -> Failure {
        Failure::Failed(format!(
            "cannot mount {} at {}: {reason}",
            source.display(),
            self.point.display()
        ))
    }

    /// Unmounts, patiently at first: what was just killed may still be letting go of its files.
    fn unmount(&self) {
        let deadline = Instant::now() + UNMOUNT_DEADLINE;
        while is_mounted(&self.point) {
            let patient = Instant::now() < deadline;
            run_unmount(&self.point, !patient);
            if !patient {
                break;
            }
            thread::sleep(POLL);
        }
        if is_mounted(&self.point) {
            let point = self.point.display();
            eprintln!("dotlockfs: {point} is still mounted; try `umount -l {point}`");
        }
    }

    /// Waits for the daemon to end: it tidies SOURCE up, which is about to be removed.
    fn await_daemon(&self) {
        let deadline = Instant::now() + UNMOUNT_DEADLINE;
        while let Some(pid) = process_that_names(&self.point) {
            if Instant::now() > deadline {
                let point = self.point.display();
                eprintln!("dotlockfs: process {pid}, which served {point}, has not ended");
                return;
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
        self.await_daemon();
    }
}

/// Whether something is mounted at this canonical path. Asks the kernel's table, not the path
/// itself, since a mount whose daemon hangs would not answer.
pub fn is_mounted(point: &Path) -> bool {
    let table = mount_table::read().unwrap_or_default();
    table.iter().any(|entry| entry.point == point)
}

/// Whether something is mounted anywhere below this canonical path; as [`is_mounted`].
pub fn is_any_below(path: &Path) -> bool {
    let table = mount_table::read().unwrap_or_default();
    table.iter().any(|entry| entry.point.starts_with(path))
}

/// The type of the file system that holds this canonical path, such as "ext4" or "nfs4".
pub fn file_system_of(path: &Path) -> Option<String> {
    mount_of(path).map(|entry| entry.kind)
}

/// The mount that this canonical path lies on.
pub fn mount_of(path: &Path) -> Option<mount_table::Entry> {
    mount_table::read()
        .ok()?
        .into_iter()
        .filter(|entry| path.starts_with(&entry.point))
        // The last of the longest: a later mount at the same place covers an earlier one.
        .max_by_key(|entry| entry.point.as_os_str().len())
}

/// The command that mounts by this executable of dotlockfs.
pub fn command(dotlockfs: &Path) -> Command {
    let mut command = Command::new(dotlockfs);
    command.arg("--log-level=warn");
    command
}

/// Runs the first command that exists here and unmounts.
fn run_unmount(point: &Path, lazy: bool) {
    let umount: (&str, &[&str]) = ("umount", if lazy { &["-l"] } else { &[] });
    let fusermount: &[&str] = if lazy { &["-u", "-z"] } else { &["-u"] };
    let mut commands = vec![
        umount,
        ("fusermount3", fusermount),
        ("fusermount", fusermount),
    ];
    if !is_root() {
        // umount(8) refuses a user's FUSE mount, in words that would mislead.
        commands.rotate_left(1);
    }
    for (name, flags) in commands {
        let run = Command::new(name)
            .args(flags)
            .arg(point)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .status();
        if run.is_ok_and(|status| status.success()) {
            return;
        }
    }
}

/// A process that has this very path as one of its arguments; zombies have none.
fn process_that_names(point: &Path) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments
                .split(|&byte| byte == 0)
                .any(|argument| argument == point.as_os_str().as_bytes())
        })
}

/// Whether this process runs as root: /proc/self belongs to the effective user.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// The file that a program of this name is, by the search path.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_mounted_and_a_fresh_directory_is_not() {
        assert!(is_mounted(Path::new("/")));
        let fresh = tempfile::tempdir().unwrap();
        let fresh = fresh.path().canonicalize().unwrap();
        assert!(!is_mounted(&fresh));
        assert!(!is_any_below(&fresh) && is_any_below(Path::new("/")));
        assert!(file_system_of(&fresh).is_some());
    }
}
