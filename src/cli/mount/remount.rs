//! `-o remount`: other flags for a mount that is there, as `mount -o remount,ro` has it.
//!
//! The kernel does that by itself; the daemon goes on as it was started. mount(8) hands over all
//! options of the line in fstab, so those that only a new mount could heed are no error.

use std::error::Error;
use std::fs;

use super::{Asked, session, unusable};
use crate::cli::bare;
use crate::config::error::shown;
use crate::sys::{self, mount_table};

/// Gives the mount at the mountpoint the flags that the options name.
///
/// # Errors
/// Where none of ours is mounted there, or the kernel refuses it: one line for the user.
pub(super) fn run(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let Asked {
        mountpoint: asked_mountpoint,
        options,
        ..
    } = asked;
    let no_remount = |error| unusable(asked_mountpoint, "cannot remount it", &error);
    let point = fs::canonicalize(asked_mountpoint).map_err(no_remount)?;
    let (_, id) = mount_table::open(&point).map_err(no_remount)?;
    let entry = mount_table::ours(id).map_err(no_remount)?;
    let Some(entry) = entry.filter(|entry| entry.point == point) else {
        return Err(format!(
            "{}: cannot remount it: no dotlockfs is mounted there",
            shown(&point)
        )
        .into());
    };
    let has = |word: &str| entry.super_options.split(',').any(|option| option == word);
    for (wanted, word) in [
        (options.allow_other, "allow_other"),
        (options.default_permissions, "default_permissions"),
    ] {
        if wanted && !has(word) {
            return Err(format!(
                "{0}: cannot remount it with {word}, which only a new mount can have; first: umount \
                 {0}",
                shown(&point)
            )
            .into());
        }
    }
    // A mount that nobody can write through should not say that it is writable.
    if !options.read_only
        && let Ok(below) = bare::open(&point)
        && sys::fs::is_read_only(&below.dir).map_err(no_remount)?
    {
        return Err(format!(
            "{}: cannot remount it for writing: the directory below is on a read-only file system",
            shown(&point)
        )
        .into());
    }
    let flags = libc::MS_REMOUNT | session::flags(options);
    let path = sys::c_name(point.as_os_str())?;
    let source = sys::c_name(&entry.source)?;
    sys::mount::mount(&source, &path, c"fuse.dotlockfs", flags, c"").map_err(
        |error| match error.raw_os_error() {
            Some(libc::EBUSY) => format!(
                "{0}: cannot remount it: programs have files open for writing (fuser -vm {0})",
                shown(&point)
            ),
            Some(libc::EPERM) => {
                format!("{}: cannot remount it: only root can", shown(&point))
            }
            _ => unusable(&point, "cannot remount it", &error),
        },
    )?;
    Ok(())
}
