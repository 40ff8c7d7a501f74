//! Mounting and unmounting, and the mounts that a thread sees.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// `mount(2)`.
///
/// # Errors
/// Those of `mount(2)`.
pub fn mount(
    source: &CStr,
    target: &CStr,
    fs_type: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    // SAFETY: all strings are NUL-terminated and outlive the call.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// `umount2(2)`; `flags` are `MNT_*`.
///
/// # Errors
/// Those of `umount2(2)`.
pub fn unmount(target: &CStr, flags: i32) -> io::Result<()> {
    // SAFETY: the string is NUL-terminated and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), flags) }).map(drop)
}

/// Gives this thread a mount namespace of its own (`CLONE_NEWNS` of unshare(2)), with copies of
/// all mounts. It ends with the thread.
///
/// # Errors
/// Those of `unshare(2)`; `EPERM` without `CAP_SYS_ADMIN`.
pub fn own_namespace() -> io::Result<()> {
    // SAFETY: takes flags only. Root and working directory of the thread become its own, and
    // lead to the same places in the copies.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map(drop)
}

/// Enters a mount namespace (`setns(2)`), which an open file of `/proc/PID/ns/mnt` names.
///
/// # Errors
/// Those of `setns(2)`; `EINVAL` with more than one thread, or where the file is none of these.
pub fn enter_namespace(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: takes a descriptor and a flag. Root and working directory become those of the
    // namespace.
    check(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNS) }).map(drop)
}

/// `open_tree(2)` with `OPEN_TREE_CLONE`: a copy of the mounts at a path and below it, mounted
/// nowhere, which is there as long as the descriptor (an `O_PATH` one) is open.
///
/// # Errors
/// Those of `open_tree(2)`.
pub fn copy_tree(dir: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
    // As wide as what syscall(2) takes.
    let flags = flags as libc::c_ulong;
    // SAFETY: the path is NUL-terminated and outlives the call; a non-negative result is a new
    // descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_open_tree,
            dir.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
        );
        Ok(OwnedFd::from_raw_fd(check(fd as libc::c_int)?))
    }
}

/// A mount, as the kernel's table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The type of its file system.
    pub kind: String,
    /// Whether nothing can be changed by way of the mount.
    pub read_only: bool,
    /// Options of the file system, with commas between them.
    pub options: String,
}

/// The newest mount of the file system with this device number, or `None` where it is not to be seen
/// (proc_pid_mountinfo(5)). The table is asked, not the file system.
pub fn shown(dev: u64) -> Option<Shown> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    shown_in(&String::from_utf8_lossy(&table), dev)
}

/// The options that the NFS mount with this device number shows (nfs(5)), or `None` where that is
/// no NFS mount, or is not to be seen.
pub fn nfs_options(dev: u64) -> Option<String> {
    let mount = shown(dev)?;
    mount.kind.starts_with("nfs").then_some(mount.options)
}

fn shown_in(table: &str, dev: u64) -> Option<Shown> {
    let number = format!("{}:{}", libc::major(dev), libc::minor(dev));
    table.lines().rev().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        if fields.next() != Some(&number) {
            return None;
        }
        let flags = fields.nth(2)?;
        let mut system = system.split(' ');
        let kind = system.next()?.to_owned();
        let options = system.nth(1).unwrap_or("").to_owned();
        let has_ro = |list: &str| list.split(',').any(|option| option == "ro");
        Some(Shown {
            kind,
            read_only: has_ro(flags) || has_ro(&options),
            options,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_device() {
        let table = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,noac
40 22 0:51 / /net/data ro,relatime shared:9 master:3 - nfs4 server:/data rw,vers=4.2,noac
41 22 0:52 / /net/more\\040data rw - nfs server:/more rw,vers=3
";
        let seen = |major, minor| {
            let mount = shown_in(table, libc::makedev(major, minor))?;
            Some((mount.kind, mount.read_only, mount.options))
        };
        let mount = |kind: &str, read_only, options: &str| {
            Some((kind.to_owned(), read_only, options.to_owned()))
        };
        assert_eq!(seen(8, 1), mount("ext4", false, "rw,noac"));
        assert_eq!(seen(0, 51), mount("nfs4", true, "rw,vers=4.2,noac"));
        assert_eq!(seen(0, 52), mount("nfs", false, "rw,vers=3"));
        assert_eq!(seen(0, 53), None);
    }
}
