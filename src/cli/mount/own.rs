//! The mount that this process has made, and how it is taken away: that one and no other.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::fusermount;
use crate::sys::{self, mount_table};

/// A mount of this process.
pub(super) struct Own<'a> {
    point: &'a Path,
    /// The number of its file system, which another gets as soon as this one is gone.
    dev: u64,
    /// The way by which the kernel asks. It breaks when the file system goes.
    device: OwnedFd,
}

impl<'a> Own<'a> {
    /// What was mounted there just now. While this value lives, programs that ask wait for an answer
    /// even if nobody will give one.
    ///
    /// # Errors
    /// Where it cannot be looked at; then it is taken away again.
    pub(super) fn new(point: &'a Path, device: &OwnedFd) -> io::Result<Own<'a>> {
        let new = || {
            Ok(Own {
                point,
                dev: dev_at(point)?,
                device: device.try_clone()?,
            })
        };
        new().inspect_err(|_| {
            let _ = unmount(point, true);
        })
    }

    /// The number of its file system.
    pub(super) fn dev(&self) -> u64 {
        self.dev
    }

    /// Unmounts it, lazily where programs still use it; they then see the end when this process ends.
    ///
    /// # Errors
    /// Those of `umount(2)`, or what fusermount3 says.
    pub(super) fn take_away(self) -> io::Result<()> {
        if !self.is_seen()? {
            return Ok(());
        }
        unmount(self.point, false).or_else(|_| match self.is_seen()? {
            true => unmount(self.point, true),
            false => Ok(()),
        })
    }

    /// Whether it is what is seen at its place.
    fn is_seen(&self) -> io::Result<bool> {
        // In this order: as long as ours is there, no other has its number.
        let seen = dev_at(self.point).is_ok_and(|dev| dev == self.dev);
        Ok(seen && !sys::fds::is_broken(self.device.as_fd())?)
    }
}

/// The number of the file system at a path. Asks no daemon and no server.
fn dev_at(point: &Path) -> io::Result<u64> {
    let (fd, _) = mount_table::open(point)?;
    Ok(sys::fs::statx(fd, c"", libc::AT_STATX_DONT_SYNC)?.dev)
}

/// Unmounts what is seen there, as this user may.
fn unmount(point: &Path, lazily: bool) -> io::Result<()> {
    let path = sys::c_name(point.as_os_str())?;
    let detach = if lazily { libc::MNT_DETACH } else { 0 };
    match sys::mount::unmount(&path, libc::UMOUNT_NOFOLLOW | detach) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            fusermount::unmount(point, lazily)
        }
        other => other,
    }
}
