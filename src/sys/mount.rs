//! Mounting and unmounting.

use std::ffi::CStr;
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
