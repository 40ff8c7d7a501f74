//! Mounting and unmounting.

use std::ffi::CStr;
use std::io;

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
