//! File system credentials of one thread.
//!
//! The C library's `setfsuid`, `setfsgid` and `setgroups` act on the whole process (the last by
//! signalling every thread); the raw system calls act on the calling thread alone, which is what
//! a server for many users needs. See setfsuid(2), setgroups(2) and nptl(7).

use std::io;

use super::check;

/// Sets the thread's file system user id; as `setfsuid(2)` it gives no error, so the result is
/// read back.
///
/// # Errors
/// `EPERM` where the id could not be set.
pub fn set_fsuid(uid: u32) -> io::Result<()> {
    // SAFETY: takes a number; the second call, with an id that is never valid, only asks.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsuid, uid);
        libc::syscall(libc::SYS_setfsuid, u32::MAX)
    };
    if now as u32 == uid {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// Sets the thread's file system group id; as [`set_fsuid`].
///
/// # Errors
/// `EPERM` where the id could not be set.
pub fn set_fsgid(gid: u32) -> io::Result<()> {
    // SAFETY: as in `set_fsuid`.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsgid, u32::MAX)
    };
    if now as u32 == gid {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// Sets the supplementary groups of this thread alone.
///
/// # Errors
/// Those of `setgroups(2)`.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is valid for `groups.len()` numbers.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(result as libc::c_int).map(drop)
}

/// The supplementary groups of this process.
///
/// # Errors
/// Those of `getgroups(2)`.
pub fn groups() -> io::Result<Vec<u32>> {
    // SAFETY: a size of 0 asks for the number only.
    let count = check(unsafe { libc::getgroups(0, std::ptr::null_mut()) })?;
    let mut groups = vec![0; count as usize];
    // SAFETY: the vector has room for `count` entries.
    let count = check(unsafe { libc::getgroups(count, groups.as_mut_ptr()) })?;
    groups.truncate(count as usize);
    Ok(groups)
}

/// The file system user id of this thread.
pub fn fsuid() -> u32 {
    // SAFETY: an id that is never valid changes nothing; the present one is the answer.
    unsafe { libc::syscall(libc::SYS_setfsuid, u32::MAX) as u32 }
}

/// The effective user id of this process.
pub fn euid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

/// The effective group id of this process.
pub fn egid() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::getegid() }
}
