//! Copying a file, with what belongs to it.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use super::proc_path;
use crate::sys;
use crate::sys::fs::Stat;

/// As much of a file as is copied at a time where the file system has no way of its own.
const PIECE: usize = 1024 * 1024;
/// The longest value of an extended attribute (`XATTR_SIZE_MAX` of linux/limits.h).
const XATTR_SIZE_MAX: usize = 65536;

/// Copies the first `size` bytes, or as many as there are; the server does it itself where it can.
///
/// # Errors
/// Those of reading and writing.
pub fn data(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < size {
        let left = usize::try_from(size - offset).map_or(1 << 30, |left| left.min(1 << 30));
        match sys::fs::copy_file_range(from, offset, to, offset, left) {
            Ok(0) => break,
            Ok(len) => offset += len as u64,
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
            done += sys::fs::pwrite(to, &buffer[done..len], offset + done as u64)?;
        }
        offset += len as u64;
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
