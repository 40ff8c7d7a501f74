//! The mount itself: made, served, and taken away.

use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::dead::Dead;
use super::observed::About;
use super::own::Own;
use super::service::Service;
use super::{Plan, fusermount, reload, unusable, watchdog};
use crate::config::MountOptions;
use crate::config::error::shown;
use crate::fs::{Mounted, Overlay, Settings};
use crate::sys;

/// How long the end may wait for locks held by others, and for the server.
const FINISH: Duration = Duration::from_secs(30);

/// How much freed memory may wait for its next use at the end of an arena, and how large a piece
/// is that never does: two answers to the largest read, and more than any single one.
const KEPT_FREE: i32 = 2 << 20;
const OWN_MAPPING: i32 = 4 << 20;

/// Why the service ends.
enum End {
    /// It was unmounted, or the connection to the kernel broke.
    Session(io::Result<()>),
    /// A signal asks for it.
    Signal(i32),
}

/// Mounts, calls `ready` once the mount answers, and serves until it is unmounted or a signal
/// asks for the end. `service` is told of it.
pub(super) fn serve(
    plan: Plan,
    service: Service,
    mut ready: impl FnMut() -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let threads = plan.threads();
    let about = About::of(&plan);
    for warning in plan.rules.warnings() {
        log::warn!("{warning}");
    }
    prepare_process();
    let Plan {
        source,
        root,
        mountpoint,
        dead,
        options,
        rules,
        origin,
        metrics,
    } = plan;
    let what = format!("{} at {}", shown(&source), shown(&mountpoint));
    let words = origin.words(&rules);
    let settings = Settings {
        many_users: options.allow_other,
        passthrough: !options.no_passthrough,
        threads,
        only_ids: None,
    };
    let overlay = Overlay::new(root, rules, settings)?;
    // Before the mount, so that no signal can end us with the mount left behind.
    let signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP])?;
    let place = Place {
        source: &source,
        mountpoint: &mountpoint,
        dead: dead.as_ref(),
    };
    let (session, own) = mount(&overlay, &place, &options, threads)?;
    overlay.set_notifier(session.notifier());
    let dev = own.dev();
    // One that waits is enough: what it reads is newer than what asked for it.
    let (reload, asked) = mpsc::sync_channel(1);
    let mut rest = Some((asked, origin, about, metrics));
    let mut watching = None;
    let serving = Arc::new(());
    let mut ready = || {
        let rest = rest.take().map(|(asked, origin, about, metrics)| {
            // Where whoever mounts is told that the mount is there, it can be watched.
            watching = Some(about.observe(&overlay, dev, metrics));
            (asked, origin)
        });
        ready()?;
        service.is_ready(&format!("{what}, {words}"));
        if let Some((asked, origin)) = rest {
            reload::start(asked, origin, &overlay, service, what.clone())?;
        }
        watchdog::start(service, (&overlay, &serving), threads)
    };
    let end = until_the_end(session, (signals, reload), &place, &mut ready);
    // First: the next mount may come at once, and needs the port.
    drop((watching, rest));
    drop(serving);
    service.stops();
    match &end {
        // So that those who still ask are answered: nobody will.
        Ok(End::Session(_)) => drop(own),
        Ok(End::Signal(_)) | Err(_) => {
            if let Ok(End::Signal(signal)) = end {
                log::info!("ending by signal {signal}");
            }
            if let Err(error) = own.take_away() {
                log::warn!("{}", unusable(&mountpoint, "could not unmount", &error));
            }
        }
    }
    // Before the rest, which may take a while: whoever unmounts it expects it to be unmounted.
    if let Some(Err(error)) = dead.map(|dead| dead.detach()) {
        let what = "the mount of an earlier daemon is still there";
        log::warn!("{}", unusable(&mountpoint, what, &error));
    }
    let finished = overlay.finish(FINISH);
    log::info!("{} is unmounted", shown(&mountpoint));
    match end? {
        End::Session(Err(error)) => Err(error.into()),
        _ if finished => Ok(()),
        _ => Err(format!(
            "{}: not all locks could be given back; `ls -a` in the source shows their turns",
            shown(&source)
        )
        .into()),
    }
}

/// Answers, says so by `ready`, and waits for a reason to end. After an error the mount may still be
/// there.
fn until_the_end(
    session: Session<Mounted>,
    (mut signals, reload): (signal_hook::iterator::Signals, SyncSender<()>),
    place: &Place<'_>,
    ready: &mut impl FnMut() -> io::Result<()>,
) -> Result<End, Box<dyn Error>> {
    let mountpoint = place.mountpoint;
    let (sender, ends) = mpsc::channel();
    let signal_sender = sender.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    // A terminal that closes sends it as well.
                    let _ = reload.try_send(());
                } else if signal_sender.send(End::Signal(signal)).is_err() {
                    return;
                }
            }
        })?;
    std::thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            let _ = sender.send(End::Session(session.run()));
        })?;

    fs::metadata(mountpoint)
        .map_err(|error| unusable(mountpoint, "the mount does not answer", &error))?;
    let (source, at) = (shown(place.source), shown(mountpoint));
    log::info!("{source} is mounted at {at}");
    // Where whoever started this process is gone, nobody knows of the mount.
    ready().map_err(|error| unusable(mountpoint, "nobody waits for the mount", &error))?;
    Ok(ends.recv()?)
}

/// Sets what holds for the whole process of a daemon.
pub fn prepare_process() {
    sys::process::clear_umask();
    sys::process::bound_free_memory(KEPT_FREE, OWN_MAPPING);
    match sys::process::raise_open_files() {
        Ok(limit) => log::debug!("may open {limit} files"),
        Err(error) => log::warn!(
            "could not raise the limit of open files, so programs may get EMFILE: {error}; raise it \
             (ulimit -n; systemd: LimitNOFILE=)"
        ),
    }
}

/// Opens the device by which a file system is served.
///
/// # Errors
/// A line for the user.
pub fn open_device() -> Result<fs::File, String> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/fuse")
        .map_err(|error| {
            format!(
                "/dev/fuse: cannot be opened: {}; is the fuse module loaded (modprobe fuse), and \
                 may you use it?",
                error.kind()
            )
        })
}

/// What is mounted, and where.
struct Place<'a> {
    source: &'a Path,
    mountpoint: &'a Path,
    /// The mount of an earlier daemon there.
    dead: Option<&'a Dead>,
}

fn mount<'a>(
    overlay: &Arc<Overlay>,
    place: &Place<'a>,
    options: &MountOptions,
    threads: usize,
) -> Result<(Session<Mounted>, Own<'a>), Box<dyn Error>> {
    let mountpoint = place.mountpoint;
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = true;
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let device = attach(OwnedFd::from(open_device()?), place, options)?;
    let own = Own::new(mountpoint, &device)
        .map_err(|error| unusable(mountpoint, "the new mount cannot be looked at", &error))?;
    // It is not told of the mount, which we take away ourselves: see `fusermount`.
    match Session::from_fd(Mounted(Arc::clone(overlay)), device, config.acl, config) {
        Ok(session) => Ok((session, own)),
        Err(error) => {
            let _ = own.take_away();
            Err(unusable(mountpoint, "the kernel refused the session", &error).into())
        }
    }
}

/// Mounts as this user may, and gives the descriptor by which the kernel asks.
fn attach(
    device: OwnedFd,
    place: &Place<'_>,
    options: &MountOptions,
) -> Result<OwnedFd, Box<dyn Error>> {
    let Place {
        source, mountpoint, ..
    } = *place;
    if sys::creds::euid() == 0 {
        match mount_as_root(&device, source, mountpoint, options) {
            Ok(()) => return Ok(device),
            // Root of a container may still have the helper.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            Err(error) => return Err(unusable(mountpoint, "cannot mount there", &error).into()),
        }
    }
    if let Some(dead) = place.dead {
        // The helper cannot mount upon it. The directory below is another than the source here,
        // and its place is shown to nobody as the guarded one.
        fusermount::unmount(dead.point(), true).map_err(|error| {
            let what =
                "the mount of a daemon that has ended cannot be taken away (fusermount3 -u -z)";
            unusable(mountpoint, what, &error)
        })?;
    }
    fusermount::mount(source, mountpoint, options)
        .map_err(|error| no_mount(mountpoint, &error).into())
}

fn no_mount(mountpoint: &Path, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        return format!(
            "{}: cannot mount there without root: fusermount3 was not found; install it (package \
             fuse3)",
            shown(mountpoint)
        );
    }
    format!("{}: cannot mount there: {error}", shown(mountpoint))
}

/// The flags of mount(2). Mounts of dotlockfs are always `nosuid` and `nodev`.
pub(super) fn flags(options: &MountOptions) -> libc::c_ulong {
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if options.read_only {
        flags |= libc::MS_RDONLY;
    }
    for word in &options.kernel {
        flags |= match word.as_str() {
            "noexec" => libc::MS_NOEXEC,
            "noatime" => libc::MS_NOATIME,
            "nodiratime" => libc::MS_NODIRATIME,
            "relatime" => libc::MS_RELATIME,
            "strictatime" => libc::MS_STRICTATIME,
            "lazytime" => libc::MS_LAZYTIME,
            "nosymfollow" => 256, // MS_NOSYMFOLLOW of linux/mount.h, Linux 5.10
            "dirsync" => libc::MS_DIRSYNC,
            "sync" => libc::MS_SYNCHRONOUS,
            _ => 0,
        };
    }
    flags
}

/// Mounts by mount(2), so that the type is `fuse.dotlockfs` without a helper.
fn mount_as_root(
    device: &OwnedFd,
    source: &Path,
    mountpoint: &Path,
    options: &MountOptions,
) -> io::Result<()> {
    let mut data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        device.as_raw_fd()
    );
    for (wanted, word) in [
        (options.allow_other, ",allow_other"),
        (options.default_permissions, ",default_permissions"),
    ] {
        if wanted {
            data.push_str(word);
        }
    }
    for label in &options.labels {
        // The kernel takes a value with commas in quotes, as mount(8) does.
        data.push_str(&format!(",{label}"));
    }
    sys::mount::mount(
        &sys::c_name(source.as_os_str())?,
        &sys::c_name(mountpoint.as_os_str())?,
        c"fuse.dotlockfs",
        flags(options),
        &CString::new(data)?,
    )
}
