//! `dotlockfs SOURCE MOUNTPOINT`: checks what it is given, mounts, and serves until it is
//! unmounted.

mod daemon;
mod dead;
mod session;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use super::{MountArgs, mount_table};
use crate::backing;
use crate::config::error::shown;
use crate::config::{self, MountOptions, Rules};
use crate::sys;
pub(super) use daemon::log_plainly;
use dead::Dead;
pub(super) use session::{open_device, prepare_process};

/// What the checks have made of the arguments.
struct Plan {
    /// For messages, `findmnt` and `df`.
    source: PathBuf,
    /// The source's root, opened before anything is mounted over it.
    root: OwnedFd,
    mountpoint: PathBuf,
    /// A mount of an earlier daemon there.
    dead: Option<Dead>,
    options: MountOptions,
    rules: Rules,
    log_level: log::LevelFilter,
    threads: usize,
}

/// Runs it. In the background this returns once the mount answers.
///
/// # Errors
/// One line for the user: what failed, on which path, what to do.
pub fn run(args: MountArgs) -> Result<ExitCode, Box<dyn Error>> {
    let foreground = args.foreground;
    let plan = check(args)?;
    if foreground {
        daemon::log_to_stderr(plan.log_level);
        session::serve(plan, || Ok(()))?;
        return Ok(ExitCode::SUCCESS);
    }
    daemon::in_background(plan.log_level, |ready| session::serve(plan, ready))
}

fn check(args: MountArgs) -> Result<Plan, Box<dyn Error>> {
    let options = config::options::parse(&args.options)?;
    backing::check_proc()?;
    let no_source = |error| unusable(&args.source, "cannot use it as the source", &error);
    let source = fs::canonicalize(&args.source).map_err(no_source)?;
    let no_mountpoint = |error| unusable(&args.mountpoint, "cannot mount there", &error);
    let mountpoint = fs::canonicalize(&args.mountpoint).map_err(no_mountpoint)?;
    let dead = dead::find(&mountpoint)?;
    let root = match &dead {
        Some(dead) if mountpoint == source => open_below(dead, &source)?,
        _ => open_source(&source).map_err(|error| match is_not_connected(&error) {
            true => format!(
                "{0}: the daemon of the mount there has ended; start that again first, or end it: \
                 umount -l {0}",
                shown(&source)
            ),
            false => no_source(error),
        })?,
    };
    // One would hide the names from the other by which hosts take turns.
    if let Some(living) = mount_table::ours(mount_table::id_of(&root)?)? {
        return Err(format!(
            "{}: is guarded by dotlockfs already, which is mounted at {1}; to mount it with other \
             options, first: umount {1}",
            shown(&source),
            shown(&living.point)
        )
        .into());
    }
    if dead.is_none() && !fs::metadata(&mountpoint).map_err(no_mountpoint)?.is_dir() {
        return Err(format!(
            "{}: cannot mount there: Not a directory",
            shown(&mountpoint)
        )
        .into());
    }
    if mountpoint != source && mountpoint.starts_with(&source) {
        return Err(format!(
            "{}: lies within the source {}, so the mount would hold itself; choose a mountpoint \
             outside of it, or the source itself",
            shown(&mountpoint),
            shown(&source)
        )
        .into());
    }
    if options.allow_other && sys::creds::euid() != 0 {
        return Err(format!(
            "{}: only root can mount it for other users (allow_other): their files are reached \
             with their own rights, which only root can take",
            shown(&mountpoint)
        )
        .into());
    }
    if !options.read_only && sys::fs::is_read_only(&root)? {
        return Err(format!(
            "{}: is on a read-only file system; add -o ro to mount it for reading",
            shown(&source)
        )
        .into());
    }
    let file = args.config.as_deref().or(options.config.as_deref());
    let rules = rules(file, &options, &source, |file| {
        // What would be read by way of a dead mount is reached below it.
        let file = std::path::absolute(file).ok()?;
        let leads_out = |component| component == Component::ParentDir;
        let within = file.strip_prefix(&source).ok();
        let within = within.or_else(|| {
            let shown_there = dead.is_some().then_some(&mountpoint)?;
            file.strip_prefix(shown_there).ok()
        })?;
        (!within.components().any(leads_out)).then(|| bare(&root).join(within))
    })?;
    Ok(Plan {
        root,
        mountpoint,
        dead,
        rules,
        log_level: options.log_level.unwrap_or(args.log_level),
        threads: usize::from(args.threads),
        source,
        options,
    })
}

/// A path that cannot be used, with the reason and without the number of the error.
pub(super) fn unusable(path: &Path, what: &str, error: &io::Error) -> String {
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    format!("{}: {what}: {reason}", shown(path))
}

/// Opens the source, which must not be in a dead mount.
pub(super) fn open_source(source: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let cwd = fs::File::open("/")?;
    let root = sys::fs::openat(cwd, &sys::c_name(source.as_os_str())?, flags, 0)?;
    // The kernel may remember a dead mount's attributes.
    sys::fs::statx(&root, c"", libc::AT_STATX_FORCE_SYNC)?;
    Ok(root)
}

/// Opens the source below the dead mount over it.
fn open_below(dead: &Dead, source: &Path) -> Result<OwnedFd, String> {
    let fail = |error: io::Error| match error.raw_os_error() {
        Some(libc::EPERM) => format!(
            "{0}: the daemon of the mount over this directory has ended, and only root{1} can go on \
             in its place; end it: {2} {0}",
            shown(source),
            match sys::creds::euid() {
                0 => " with the right to mount",
                _ => "",
            },
            match sys::creds::euid() {
                0 => "umount -l",
                _ => "fusermount3 -u -z",
            }
        ),
        _ => unusable(
            source,
            "the directory below the dead mount there cannot be reached",
            &error,
        ),
    };
    if sys::creds::euid() != 0 {
        return Err(fail(io::Error::from_raw_os_error(libc::EPERM)));
    }
    dead.open_below().map_err(fail)
}

pub(super) fn is_not_connected(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOTCONN)
}

/// A path by which the source is reached, whatever is mounted over it.
fn bare(root: &OwnedFd) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(backing::proc_path(root).to_bytes()))
}

/// The rules: those of the command line, else those at the root of the source, else none. `below`
/// gives another way to a file in the source.
pub(super) fn rules(
    file: Option<&Path>,
    options: &MountOptions,
    source: &Path,
    below: impl Fn(&Path) -> Option<PathBuf>,
) -> Result<Rules, Box<dyn Error>> {
    let load = |file: &Path| match below(file) {
        Some(at) => Rules::load_at(&at, file),
        None => Rules::load(file),
    };
    match (file, options.guard.is_empty()) {
        (Some(_), false) => {
            Err("a rule file and -o guard=... exclude each other; give one of them".into())
        }
        (Some(file), true) => Ok(load(file)?),
        (None, false) => Ok(Rules::from_globs(&options.guard)?),
        (None, true) => match load(&source.join(config::FILE_NAME)) {
            Err(error) if error.is_not_found() => Ok(Rules::everything()),
            other => Ok(other?),
        },
    }
}
