//! Copying a file, with what belongs to it.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use super::proc_path;
use crate::sys;
use crate::sys::fs::Stat;

/// As much of a file as is copied at a time where the file system has no way of its own.
const PIECE: usize = 1024 * 1024;
/// The same where it has: no call should take so long that others take us for dead.
const LARGE_PIECE: u64 = 4 * 1024 * 1024;
/// A file system that shows no more than a page as its block size does not say how much it moves at
/// a time.
const PAGE: u64 = 4096;
/// After so many bytes they are written to the disk, so that the last `fsync` takes no longer than
/// those before.
const SYNC_EVERY: u64 = 64 * 1024 * 1024;
/// The longest value of an extended attribute (`XATTR_SIZE_MAX` of linux/limits.h).
const XATTR_SIZE_MAX: usize = 65536;

/// Copies the first `size` bytes, or as many as there are; the server does it itself where it can.
/// `between` is called every few megabytes: a copy may take longer than `stale_after`, and whoever
/// makes it has to show that he lives, or to see that he must stop.
///
/// # Errors
/// Those of reading and writing, and of `between`.
pub fn data(
    from: &OwnedFd,
    to: &OwnedFd,
    size: u64,
    between: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    // The Linux client lets an NFS server copy more than twice `rsize` on its own, and waits for
    // its call; where the connection breaks meanwhile that may never come (nfs42_proc_copy waited in
    // wait_for_completion_interruptible). Up to that it is a call like any other, sent again until
    // it is answered. NFS shows `wsize` as the block size, which is seldom more than `rsize`.
    let most = match sys::fs::statx(from, c"", 0)?.blksize.into() {
        0..=PAGE => LARGE_PIECE,
        block => LARGE_PIECE.min(block),
    };
    let (mut offset, mut synced) = (0, 0);
    let mut next = |offset: u64| {
        if offset >= synced + SYNC_EVERY {
            sys::fs::fsync(to, true)?;
            synced = offset;
        }
        between()
    };
    while offset < size {
        let piece = most.min(size - offset) as usize;
        match sys::fs::copy_file_range(from, offset, to, offset, piece) {
            Ok(0) => break,
            Ok(len) => {
                offset += len as u64;
                next(offset)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Not on this file system; what is left goes through our memory.
            Err(_) => break,
        }
    }
    let mut buffer = vec![0; PIECE];
    while offset < size {
        let left = usize::try_from(size - offset).map_or(PIECE, |left| left.min(PIECE));
        let len = sys::fs::pread(from, &mut buffer[..left], offset)?;
        if len == 0 {
            break;
        }
        let mut done = 0;
        while done < len {
            done += match sys::fs::pwrite(to, &buffer[done..len], offset + done as u64) {
                Ok(0) => return Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                other => other?,
            }
        }
        offset += len as u64;
        next(offset)?;
    }
    Ok(())
}

/// Copies owner, mode and extended attributes (access control lists are such). `stat` are the
/// attributes of `from`.
///
/// # Errors
/// Those of the calls; `EPERM` where the owner cannot be given to the copy.
pub fn attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let now = sys::fs::statx(to, c"", 0)?;
    if (now.uid, now.gid) != (stat.uid, stat.gid) {
        sys::fs::chown(to, stat.uid, stat.gid)?;
    }
    sys::fs::chmod(&proc_path(to), stat.mode & 0o7777)?;
    let (from, to) = (proc_path(from), proc_path(to));
    let mut names = vec![0; XATTR_SIZE_MAX];
    let len = match sys::fs::listxattr(&from, &mut names) {
        Ok(len) => len,
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names[..len].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let mut value = vec![0; XATTR_SIZE_MAX];
        let copied = sys::fs::getxattr(&from, name, &mut value)
            .and_then(|len| sys::fs::setxattr(&to, name, &value[..len], 0));
        match copied {
            // Labels of security modules come with the new file.
            Err(_) if name.to_bytes().starts_with(b"security.") => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}
