//! `dotlockfs SOURCE MOUNTPOINT`: checks what it is given, mounts, and serves until it is
//! unmounted.

mod daemon;
mod dead;
mod fusermount;
pub mod helper;
mod observed;
mod own;
mod reload;
mod remount;
mod rule_file;
mod service;
mod session;
mod syslog;
mod watchdog;

use std::error::Error;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::MountArgs;
use crate::backing;
use crate::config::error::shown;
use crate::config::options::{self, Unknown};
use crate::config::{MountOptions, Rules};
use crate::observe::http;
use crate::sys::{self, mount_table};
pub(super) use daemon::log_plainly;
use dead::Dead;
pub(super) use rule_file::Origin;
use service::Service;
pub(super) use session::{open_device, prepare_process};

/// More about it, for `--help`.
pub const HELP: &str = "\
Programs need not be changed. dotlockfs returns when the mount answers, and goes on in the \
background. Do the same on every host that writes. Rules in SOURCE/.dotlockfs.toml say which files are guarded, and how; without them it is \
every file, for appends and for flock and fcntl locks.

Mount options:
  allow_other            every user may use the mount (as root only)
  require_mount[=TYPE]   mount only where SOURCE is on NFS, or on this type
  guard=GLOB[:GLOB...]   guard these files, in place of a rule file
  config=FILE            as --config; log_level= and threads= likewise
  metrics=[ADDR:]PORT    as --metrics
  nopassthrough          unguarded files go by way of dotlockfs too
  default_permissions    the kernel checks modes and owners itself
  ro, noexec, noatime    and other flags of mount(8), which the kernel heeds;
                         mount.dotlockfs(8) has them all

Signals:
  HUP              reads the rules again, also a file of --config; files in use
                   keep their old rule until they are closed, and a file that
                   is not understood changes nothing
  TERM, INT, QUIT  end it cleanly: it unmounts, lazily where programs use the
                   mount, finishes what was acknowledged, gives locks back

Exit status:
  0  it is mounted; with -f: it was mounted, and has ended
  1  it failed, and a line says why
  2  the arguments were not understood

Files:
  SOURCE/.dotlockfs.toml   the rules, see dotlockfs.toml(5)
  SOURCE/.FILE.*           locks of FILE, which the mount hides; never remove
                           those of turns by hand
  /run/dotlockfs           sockets for dotlockfs status; of other users:
                           $XDG_RUNTIME_DIR/dotlockfs
  /etc/dotlockfs/NAME.env  what dotlockfs@NAME.service of systemd mounts";

/// Examples, for `-h` and `--help`.
pub const EXAMPLES: &str = "\
Examples:
  dotlockfs -o allow_other /net/data /srv/data  as root, for all users
  dotlockfs /net/data /net/data                 mount a directory over itself
  umount /srv/data                              end it
  fusermount3 -u ~/guarded                      end it, without root
  dotlockfs demo                                see what it does";

/// Threads that read requests, where nothing else is asked for.
const THREADS: usize = 2;

/// What is to be mounted, and where, as it was asked for.
struct Asked {
    source: PathBuf,
    mountpoint: PathBuf,
    options: MountOptions,
}

/// What the checks have made of it.
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
    /// Where they stand.
    origin: Origin,
    /// The port at which metrics are to be served, if they are.
    metrics: Option<TcpListener>,
}

/// Runs it. In the background this returns once the mount answers.
///
/// # Errors
/// One line for the user: what failed, on which path, what to do.
pub fn run(args: MountArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut options = options::parse(&args.options, Unknown::Refuse)?;
    options.config = args.config.or(options.config);
    options.log_level.get_or_insert(args.log_level);
    options.threads.get_or_insert(args.threads);
    options.metrics = args.metrics.or(options.metrics);
    let asked = Asked {
        source: args.source,
        mountpoint: args.mountpoint,
        options,
    };
    if asked.options.remount {
        remount::run(&asked)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.foreground {
        return in_background(asked);
    }
    let plan = check(asked)?;
    daemon::log_to_stderr(plan.log_level());
    session::serve(plan, Service::of_this_process(), || Ok(()))?;
    Ok(ExitCode::SUCCESS)
}

/// Mounts, and returns once the mount answers.
fn in_background(asked: Asked) -> Result<ExitCode, Box<dyn Error>> {
    let plan = check(asked)?;
    daemon::in_background(plan.log_level(), |ready| {
        session::serve(plan, Service::nobody(), ready)
    })
}

impl Plan {
    fn log_level(&self) -> log::LevelFilter {
        self.options.log_level.unwrap_or(log::LevelFilter::Info)
    }

    fn threads(&self) -> usize {
        self.options.threads.map_or(THREADS, usize::from)
    }
}

fn check(asked: Asked) -> Result<Plan, Box<dyn Error>> {
    let Asked {
        source: asked_source,
        mountpoint: asked_mountpoint,
        options,
    } = asked;
    backing::check_proc()?;
    let no_source = |error| unusable(&asked_source, "cannot use it as the source", &error);
    let source = fs::canonicalize(&asked_source).map_err(no_source)?;
    let no_mountpoint = |error| unusable(&asked_mountpoint, "cannot mount there", &error);
    let mountpoint = fs::canonicalize(&asked_mountpoint).map_err(no_mountpoint)?;
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
    if let Some(living) = mount_table::id_of(&root)
        .and_then(mount_table::ours)
        .map_err(no_source)?
    {
        return Err(format!(
            "{}: is guarded by dotlockfs already, which is mounted at {1}; to mount it with other \
             options, first: umount {1}",
            shown(&source),
            shown(&living.point)
        )
        .into());
    }
    // First, since that makes autofs mount what it has for the place.
    if dead.is_none() && !fs::metadata(&mountpoint).map_err(no_mountpoint)?.is_dir() {
        return Err(format!(
            "{}: cannot mount there: Not a directory",
            shown(&mountpoint)
        )
        .into());
    }
    if dead.is_none() && shows(&mountpoint, &source).map_err(no_mountpoint)? {
        return Err(format!(
            "{1}: is mounted already, and shows {0}; to mount it with other options, first: umount \
             {1}",
            shown(&source),
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
    check_names(&options, &asked_source, &source)?;
    check_type(&options, &root, &source)?;
    if options.allow_other && sys::creds::euid() != 0 {
        return Err(format!(
            "{}: only root can mount it for other users (allow_other): their files are reached \
             with their own rights, which only root can take",
            shown(&mountpoint)
        )
        .into());
    }
    if !options.read_only && sys::fs::is_read_only(&root).map_err(no_source)? {
        return Err(format!(
            "{}: is on a read-only file system; add -o ro to mount it for reading",
            shown(&source)
        )
        .into());
    }
    // What would be read by way of a mount over it, dead or our own, is reached below that.
    let places = [&*source, &*mountpoint];
    let places = match dead.is_some() {
        true => &places[..],
        false => &places[..1],
    };
    let file = options.config.as_deref();
    let origin = Origin::new(file, &options, &source, (&root, places))?;
    let rules = origin.load()?;
    let metrics = options.metrics.map(http::bind).transpose()?;
    Ok(Plan {
        root,
        mountpoint,
        dead,
        rules,
        origin,
        source,
        options,
        metrics,
    })
}

/// Whether a mount of ours stands at the mountpoint that shows the source already.
fn shows(mountpoint: &Path, source: &Path) -> io::Result<bool> {
    let (_, id) = mount_table::open(mountpoint)?;
    let there = mount_table::ours(id)?;
    Ok(there.is_some_and(|entry| entry.point == mountpoint && entry.source == source))
}

/// Refuses another name than the source's: by it `mount -a` knows what is mounted already.
fn check_names(options: &MountOptions, asked: &Path, source: &Path) -> Result<(), String> {
    match options.fsname.as_deref().map(Path::new) {
        Some(name) if name != source && name != asked => Err(format!(
            "mount option fsname={}: the name is always that of the source, {}, so leave it out",
            shown(name),
            shown(source)
        )),
        _ => Ok(()),
    }
}

/// Refuses a source on another type of file system than `require_mount` asks for: most often the
/// bare directory on which the NFS is not mounted yet.
fn check_type(options: &MountOptions, root: &OwnedFd, source: &Path) -> Result<(), Box<dyn Error>> {
    if options.require_mount.is_empty() {
        return Ok(());
    }
    let unknown = |error| unusable(source, "the type of its file system is not known", &error);
    let kind = file_system(root).map_err(unknown)?;
    let kind = kind.as_deref().unwrap_or("an unknown file system");
    let wanted = |wanted: &String| wanted == kind || (wanted == "nfs" && kind == "nfs4");
    match options.require_mount.iter().any(wanted) {
        true => Ok(()),
        false => Err(format!(
            "{}: is on {kind}, and require_mount asks for {}: is the file system mounted there yet?",
            shown(source),
            options.require_mount.join(" or ")
        )
        .into()),
    }
}

/// The type of the file system that the source is on, where the table of mounts tells it.
fn file_system(root: &OwnedFd) -> io::Result<Option<String>> {
    let id = mount_table::id_of(root)?;
    let dev = sys::fs::statx(root, c"", 0)?.dev;
    let table = mount_table::read()?;
    // The mount of a copy is in no table.
    let by_id = table.iter().find(|entry| entry.id == id);
    let entry = by_id.or_else(|| table.iter().find(|entry| entry.dev == dev));
    Ok(entry.map(|entry| entry.kind.clone()))
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
