//! A mountpoint that still bears the mount of a daemon that was killed.
//!
//! Such a mount answers everything with ENOTCONN, and that is good: on a directory mounted over
//! itself programs would otherwise go on without the guard. So it is not taken away before the
//! new mount is there, but stays beneath it:
//!
//! ```text
//!   the new mount             what programs reach
//!   the dead mount            ENOTCONN, should the new one go
//!   the directory             on NFS; what the daemon works on
//! ```
//!
//! When the new mount comes to a clean end the dead one is taken away as well. If the new daemon is
//! killed too, the next start takes away the upper of the two dead mounts first.

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use crate::config::error::shown;
use crate::sys;
use crate::sys::fs::Stat;
use crate::sys::mount_table::{self, Entry, OURS};

/// More mounts of ours than anybody has at one place.
const MOST: usize = 1000;
/// How often an answer that was lost by the daemon's death is asked for again.
const LOST_ANSWERS: usize = 100;

/// The dead mount on a mountpoint; there is no other mount of ours right beneath it.
#[derive(Debug)]
pub(super) struct Dead {
    point: PathBuf,
    /// Its number in the table of mounts.
    id: u64,
}

/// Finds a dead mount of ours at this canonical path, and first takes away those that stand
/// on another mount of ours, which keeps the directory covered.
///
/// # Errors
/// Where the mount that is dead is not ours, or not at this very path: a line that says what to
/// do. Where the table of mounts cannot be read.
pub(super) fn find(point: &Path) -> Result<Option<Dead>, Box<dyn Error>> {
    for _ in 0..MOST {
        if !is_dead(point) {
            return Ok(None);
        }
        let table = mount_table::read()?;
        let (_, id) = mount_table::open(point)?;
        let with_id = |id: u64| table.iter().find(|entry| entry.id == id);
        let Some(top) = with_id(id).filter(|entry| is_ours_at(entry, point)) else {
            return Err(format!(
                "{}: a file system whose daemon has ended is mounted there{}, and it is not one \
                 of dotlockfs; run: umount -l {}",
                shown(point),
                match with_id(id) {
                    Some(entry) if entry.point != point => " (it lies within it)",
                    _ => "",
                },
                shown(with_id(id).map_or(point, |entry| &entry.point))
            )
            .into());
        };
        let covered = with_id(top.parent).is_some_and(|entry| is_ours_at(entry, point));
        // A user without rights keeps it: fusermount3 will take it away.
        if !covered || detach_top(point).is_err() {
            return Ok(Some(Dead {
                point: point.to_owned(),
                id,
            }));
        }
    }
    Err(format!("{}: too many mounts there", shown(point)).into())
}

fn is_ours_at(entry: &Entry, point: &Path) -> bool {
    entry.kind == OURS && entry.point == point
}

/// Whether the daemon of the mount that a path leads to is dead.
fn is_dead(point: &Path) -> bool {
    let mut dead = false;
    for _ in 0..LOST_ANSWERS {
        match ask(point).map_err(|error| error.raw_os_error()) {
            Err(Some(libc::ENOTCONN)) => return true,
            // The daemon died while the request was under way.
            Err(Some(libc::ECONNABORTED)) => dead = true,
            // So it is where the kernel was just copying the request or the answer, unless the
            // directory below answers so.
            Err(Some(libc::EIO)) => dead = false,
            _ => return false,
        }
    }
    dead
}

/// Asks the file system itself: what the kernel remembers outlives a daemon.
fn ask(point: &Path) -> io::Result<Stat> {
    let (fd, _) = mount_table::open(point)?;
    sys::fs::statx(fd, c"", libc::AT_STATX_FORCE_SYNC)
}

/// Takes away the topmost mount at a path, which programs may still be using.
fn detach_top(point: &Path) -> io::Result<()> {
    let path = sys::c_name(point.as_os_str())?;
    sys::mount::unmount(&path, libc::UMOUNT_NOFOLLOW | libc::MNT_DETACH)
}

impl Dead {
    /// Opens the directory below the dead mount, with what else is mounted in it.
    ///
    /// No path leads there. So a thread with a mount namespace of its own takes the dead mount
    /// away in that; nobody else sees it go. What it finds then is copied, for else it would be
    /// taken apart at the end of the namespace: mounts within it would be lost.
    ///
    /// # Errors
    /// `EPERM` without the right to mount; those of open_tree(2).
    pub(super) fn open_below(&self) -> io::Result<OwnedFd> {
        let point = self.point.clone();
        let below = move || {
            sys::mount::own_namespace()?;
            // Mounts outside may be shared with their copies here. From now on they are not told
            // what happens to these.
            let flags = libc::MS_REC | libc::MS_SLAVE;
            sys::mount::mount(c"none", c"/", c"none", flags, c"")?;
            detach_top(&point)?;
            let path = sys::c_name(point.as_os_str())?;
            let tree = sys::mount::copy_tree(fs::File::open("/")?, &path)?;
            // Whatever it is, it must not be another dead mount.
            sys::fs::statx(&tree, c"", libc::AT_STATX_FORCE_SYNC)?;
            Ok(tree)
        };
        thread::Builder::new()
            .name("below".to_owned())
            .spawn(below)?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread has failed")))
    }

    /// Takes it away, if nothing stands on it. After this the directory is bare.
    ///
    /// # Errors
    /// Those of `umount(2)` and of reading `/proc`.
    pub(super) fn detach(&self) -> io::Result<()> {
        if mount_table::open(&self.point)?.1 != self.id || !is_dead(&self.point) {
            return Ok(());
        }
        detach_top(&self.point)
    }

    /// Where it is mounted.
    pub(super) fn point(&self) -> &Path {
        &self.point
    }
}
