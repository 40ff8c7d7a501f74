//! Where the sockets of mounts are: `/run/dotlockfs` for those of root, and `dotlockfs` in the runtime
//! directory of a user for the others.
//!
//! A socket is named after the device number of its mount and the daemon's process, as in
//! `0-57.1234.sock`: both together come again only after all that has gone.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::sys::creds;

/// The directory of root's sockets.
const OF_ROOT: &str = "/run/dotlockfs";
/// The directory that has a runtime directory for each user (pam_systemd(8)).
const OF_USERS: &str = "/run/user";
/// The name within a user's.
const NAME: &str = "dotlockfs";
/// The end of a socket's name.
const SUFFIX: &str = ".sock";

/// The directory for sockets of this user; `None` where there is no runtime directory.
pub fn own() -> Option<PathBuf> {
    if creds::euid() == 0 {
        return Some(OF_ROOT.into());
    }
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let usual = Path::new(OF_USERS).join(creds::euid().to_string());
    let given = given.filter(|dir| dir.is_absolute());
    let base = given.or_else(|| usual.is_dir().then_some(usual))?;
    Some(base.join(NAME))
}

/// Whether the directory would lie in a mount at `mountpoint` (whose path has no links): what is done
/// there would be asked of the mount itself, which a socket would keep from being unmounted, too. To be
/// asked before that mount is there.
pub fn lies_in(dir: &Path, mountpoint: &Path) -> bool {
    // As far as there is something: the rest is still to be made, or hidden by a dead mount.
    let known = dir.ancestors().find_map(|known| {
        let rest = dir.strip_prefix(known).ok()?;
        Some(fs::canonicalize(known).ok()?.join(rest))
    });
    known.is_some_and(|dir| dir.starts_with(mountpoint))
}

/// The directories in which this user may find sockets, with the user who must have made them.
pub fn known() -> Vec<(PathBuf, u32)> {
    let uid = creds::euid();
    let mut dirs: Vec<(PathBuf, u32)> = vec![(OF_ROOT.into(), 0)];
    if uid != 0 {
        dirs.extend(own().map(|dir| (dir, uid)));
        return dirs;
    }
    for entry in fs::read_dir(OF_USERS).into_iter().flatten().flatten() {
        let owner = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        dirs.extend(owner.map(|owner| (entry.path().join(NAME), owner)));
    }
    dirs
}

/// The name of the socket of a mount.
pub fn socket_name(dev: u64, pid: u32) -> String {
    format!("{}-{}.{pid}{SUFFIX}", libc::major(dev), libc::minor(dev))
}

/// The device number of the mount, from the name of its socket.
fn parse_name(name: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?.strip_suffix(SUFFIX)?;
    let (dev, pid) = name.split_once('.')?;
    let (major, minor) = dev.split_once('-')?;
    let _: u32 = pid.parse().ok()?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A socket that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// The device number of the mount.
    pub dev: u64,
    /// The user who must have made it.
    pub uid: u32,
}

/// All sockets in a directory of the user `uid`, in the order of their names; none where there is no
/// such directory.
///
/// # Errors
/// Those of reading the directory; `EPERM` where it is another user's.
pub fn sockets(dir: &Path, uid: u32) -> io::Result<Vec<Found>> {
    // A user may put there what leads elsewhere.
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = match fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(dir)
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    if opened.metadata()?.uid() != uid {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let entries = fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    let mut found: Vec<Found> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let dev = parse_name(entry.file_name().as_bytes())?;
            let is_socket = entry.file_type().ok()?.is_socket();
            is_socket.then(|| Found {
                path: dir.join(entry.file_name()),
                dev,
                uid,
            })
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Makes the directory, where it is not there yet.
///
/// # Errors
/// Those of `mkdir(2)`; `EPERM` where others could put something into it.
pub fn prepare(dir: &Path) -> io::Result<()> {
    let mode = if creds::euid() == 0 { 0o755 } else { 0o700 };
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let now = fs::symlink_metadata(dir)?;
    if now.is_dir() && now.uid() == creds::euid() && now.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it is not a directory that only this user can write to",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sockets_come_back() {
        let dev = libc::makedev(0, 1057);
        let name = socket_name(dev, 4711);
        assert_eq!(name, "0-1057.4711.sock");
        assert_eq!(parse_name(name.as_bytes()), Some(dev));
        for other in [
            "",
            "x",
            "0-1057.sock",
            "0-1057.4711",
            "0.1.2.sock",
            "a-b.c.sock",
        ] {
            assert_eq!(parse_name(other.as_bytes()), None, "{other}");
        }
    }
}
