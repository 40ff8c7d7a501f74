//! The directory as it is, without the mount of dotlockfs that may lie over it.
//!
//! A mount hides the names of the lock protocol. Whoever wants to see them goes by way of the
//! daemon: it has the directory below open, and [`DAEMON`] tells where.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::backing::proc_path;
use crate::config::error::shown;
use crate::fs::DAEMON;
use crate::sys;
use crate::sys::mount_table::{self, Entry};

/// The longest answer to the question for the daemon: two numbers.
const ANSWER_MAX: usize = 64;
/// Node ids from here on are made up by the mount, and say nothing of the file below.
const FIRST_MADE_UP: u64 = 1 << 62;

/// A directory on the file system itself.
#[derive(Debug)]
pub struct Bare {
    /// A descriptor (`O_PATH`) of it.
    pub dir: OwnedFd,
    /// The whole path, as it was asked for.
    pub path: PathBuf,
    /// The mount of dotlockfs that it was asked for in.
    pub mount: Option<Over>,
}

/// A mount of dotlockfs.
#[derive(Debug)]
pub struct Over {
    /// Its line in the table of mounts.
    pub entry: Entry,
    /// The process that serves it.
    pub daemon: u32,
}

/// Why a directory cannot be reached: a line for the user that says what failed, on which path,
/// and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreachable {
    /// The daemon of the mount has ended.
    Dead(String),
    /// This user may not.
    Forbidden(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Dead(line) | Self::Forbidden(line) | Self::Other(line)) = self;
        f.write_str(line)
    }
}

impl Error for Unreachable {}

/// Opens a directory; if it lies in a mount of dotlockfs, the one below.
///
/// # Errors
/// Where it cannot be reached, or is no directory.
pub fn open(dir: &Path) -> Result<Bare, Unreachable> {
    let fail = |error: io::Error| failed(dir, "cannot open it", &error);
    let path = std::fs::canonicalize(dir).map_err(fail)?;
    let (fd, id) = mount_table::open(&path).map_err(fail)?;
    let ours = mount_table::ours(id).map_err(|error| {
        let table = Path::new("/proc/self/mountinfo");
        failed(table, "cannot be read", &error)
    })?;
    // What the kernel remembers outlives a daemon.
    let seen = sys::fs::statx(&fd, c"", libc::AT_STATX_FORCE_SYNC).map_err(|error| {
        match (error.raw_os_error(), &ours) {
            (Some(libc::ENOTCONN), Some(entry)) => Unreachable::Dead(format!(
                "{}: the daemon of this mount has ended; start it again, by the same command as \
                 before",
                shown(&entry.point)
            )),
            (Some(libc::EACCES), Some(entry)) => Unreachable::Forbidden(format!(
                "{}: the mount is another user's, and does not answer this one",
                shown(&entry.point)
            )),
            _ => fail(error),
        }
    })?;
    if !seen.is_dir() {
        let line = format!("{}: is not a directory", shown(dir));
        return Err(Unreachable::Other(line));
    }
    let Some(entry) = ours else {
        return Ok(Bare {
            dir: fd,
            path,
            mount: None,
        });
    };
    let (daemon, number) = ask(&fd).map_err(|error| {
        let what = "the mount does not tell where its directory is";
        failed(dir, what, &error)
    })?;
    let below =
        below(&path, &entry, daemon, number).map_err(|error| match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => Unreachable::Forbidden(format!(
                "{}: a mount of dotlockfs hides its locks; they are reached by way of its daemon, \
                 process {daemon}: this takes root, or the user who started it",
                shown(dir)
            )),
            _ => failed(
                dir,
                &format!("the directory below is not found at the daemon, process {daemon}"),
                &error,
            ),
        })?;
    let found = sys::fs::statx(&below, c"", 0).map_err(fail)?;
    if found.ino != seen.ino && seen.ino < FIRST_MADE_UP {
        return Err(Unreachable::Other(format!(
            "{}: process {daemon} is not the daemon of this mount; is that in another pid \
             namespace? run this there, or on the directory without the mount",
            shown(dir)
        )));
    }
    Ok(Bare {
        dir: below,
        path,
        mount: Some(Over { entry, daemon }),
    })
}

/// Asks the mount for its daemon, and for the number of the descriptor.
fn ask(fd: &OwnedFd) -> io::Result<(u32, u32)> {
    let name = sys::c_name(OsStr::new(DAEMON))?;
    let mut answer = vec![0; ANSWER_MAX];
    let len = sys::fs::getxattr(&proc_path(fd), &name, &mut answer)?;
    std::str::from_utf8(&answer[..len])
        .ok()
        .and_then(|text| {
            let (daemon, number) = text.split_once(' ')?;
            Some((daemon.parse().ok()?, number.parse().ok()?))
        })
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Opens what the daemon has at the place of `path`.
fn below(path: &Path, entry: &Entry, daemon: u32, number: u32) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let root = sys::c_name(OsStr::new(&format!("/proc/{daemon}/fd/{number}")))?;
    let root = sys::fs::openat(std::fs::File::open("/")?, &root, flags, 0)?;
    // A part of the mount may be mounted once more elsewhere.
    let mut relative = OsString::from_vec(b".".to_vec());
    for part in [
        entry.root.strip_prefix("/"),
        path.strip_prefix(&entry.point),
    ] {
        let part = part.unwrap_or(Path::new(""));
        if !part.as_os_str().is_empty() {
            relative.push("/");
            relative.push(part);
        }
    }
    sys::fs::openat(&root, &sys::c_name(&relative)?, flags, 0)
}

/// A line for the user, without the number of the error.
fn failed(path: &Path, what: &str, error: &io::Error) -> Unreachable {
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    Unreachable::Other(format!("{}: {what}: {reason}", shown(path)))
}
