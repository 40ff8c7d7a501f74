//! `dotlockfs SOURCE MOUNTPOINT`: checks what it is given, mounts, and serves until it is
//! unmounted.

mod daemon;
mod session;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::MountArgs;
use crate::backing;
use crate::config::error::shown;
use crate::config::{self, MountOptions, Rules};
use crate::sys;

/// What the checks have made of the arguments.
struct Plan {
    /// For messages, `findmnt` and `df`.
    source: PathBuf,
    /// The source's root, opened before anything is mounted over it.
    root: OwnedFd,
    mountpoint: PathBuf,
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
    let (root, source) = open_source(&args.source)?;
    let mountpoint = check_mountpoint(&args.mountpoint)?;
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
    let rules = rules(args.config.as_deref(), &options, &source)?;
    Ok(Plan {
        root,
        mountpoint,
        rules,
        log_level: options.log_level.unwrap_or(args.log_level),
        threads: usize::from(args.threads),
        source,
        options,
    })
}

/// A path that cannot be used, with the reason and without the number of the error.
fn unusable(path: &Path, what: &str, error: &io::Error) -> String {
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    format!("{}: {what}: {reason}", shown(path))
}

fn open_source(source: &Path) -> Result<(OwnedFd, PathBuf), Box<dyn Error>> {
    let fail = |error| unusable(source, "cannot use it as the source", &error);
    let path = fs::canonicalize(source).map_err(fail)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let cwd = fs::File::open("/")?;
    let root = sys::fs::openat(cwd, &sys::c_name(path.as_os_str())?, flags, 0).map_err(fail)?;
    Ok((root, path))
}

fn check_mountpoint(mountpoint: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let fail = |error: io::Error| {
        if error.raw_os_error() == Some(libc::ENOTCONN) {
            return format!(
                "{0}: a file system whose daemon has ended is still mounted there; run: umount -l {0}",
                shown(mountpoint)
            );
        }
        unusable(mountpoint, "cannot mount there", &error)
    };
    let path = fs::canonicalize(mountpoint).map_err(fail)?;
    if !fs::metadata(&path).map_err(fail)?.is_dir() {
        return Err(format!("{}: cannot mount there: Not a directory", shown(mountpoint)).into());
    }
    Ok(path)
}

/// The rules: those of the command line, else those at the root of the source, else none.
fn rules(
    file: Option<&Path>,
    options: &MountOptions,
    source: &Path,
) -> Result<Rules, Box<dyn Error>> {
    let file = file.or(options.config.as_deref());
    match (file, options.guard.is_empty()) {
        (Some(_), false) => {
            Err("a rule file and -o guard=... exclude each other; give one of them".into())
        }
        (Some(file), true) => Ok(Rules::load(file)?),
        (None, false) => Ok(Rules::from_globs(&options.guard)?),
        (None, true) => match Rules::load(&source.join(OsStr::new(config::FILE_NAME))) {
            Err(error) if error.is_not_found() => Ok(Rules::everything()),
            other => Ok(other?),
        },
    }
}
