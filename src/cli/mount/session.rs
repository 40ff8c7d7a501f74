//! The mount itself: made, served, and taken away.

use std::error::Error;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::dead::Dead;
use super::{Plan, unusable};
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
/// asks for the end.
pub(super) fn serve(
    plan: Plan,
    mut ready: impl FnMut() -> io::Result<()>,
) -> Result<(), Box<dyn Error>> {
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
        threads,
        ..
    } = plan;
    let settings = Settings {
        many_users: options.allow_other,
        passthrough: !options.no_passthrough,
        only_ids: None,
    };
    let overlay = Overlay::new(root, rules, settings)?;
    // Before the mount, so that no signal can end us with the mount left behind.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let place = Place {
        source: &source,
        mountpoint: &mountpoint,
        dead: dead.as_ref(),
    };
    let mut session = mount(&overlay, &place, &options, threads)?;
    overlay.set_notifier(session.notifier());
    let mut unmounter = session.unmount_callable();

    let (sender, ends) = mpsc::channel();
    let signal_sender = sender.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if signal != SIGHUP && signal_sender.send(End::Signal(signal)).is_err() {
                    return;
                }
            }
        })?;
    std::thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            let _ = sender.send(End::Session(session.run()));
        })?;

    let mounted = fs::metadata(&mountpoint)
        .map_err(|error| unusable(&mountpoint, "the mount does not answer", &error))?;
    log::info!("{} is mounted at {}", shown(&source), shown(&mountpoint));
    ready()?;

    let end = ends.recv()?;
    if let End::Signal(signal) = end {
        log::info!("ending by signal {signal}");
        let unmounted = unmounter
            .unmount()
            .and_then(|()| unmount(&mountpoint, mounted.dev()));
        if let Err(error) = unmounted {
            log::warn!("{}", unusable(&mountpoint, "could not unmount", &error));
        }
    }
    // Before the rest, which may take a while: whoever unmounts it expects it to be unmounted.
    if let Some(Err(error)) = dead.map(|dead| dead.detach()) {
        let what = "the mount of an earlier daemon is still there";
        log::warn!("{}", unusable(&mountpoint, what, &error));
    }
    let finished = overlay.finish(FINISH);
    log::info!("{} is unmounted", shown(&mountpoint));
    match end {
        End::Session(Err(error)) => Err(error.into()),
        _ if finished => Ok(()),
        _ => Err(format!(
            "{}: not all locks could be given back; `ls -a` in the source shows their turns",
            shown(&source)
        )
        .into()),
    }
}

/// Sets what holds for the whole process of a daemon.
pub fn prepare_process() {
    sys::process::clear_umask();
    sys::process::bound_free_memory(KEPT_FREE, OWN_MAPPING);
    match sys::process::raise_open_files() {
        Ok(limit) => log::debug!("may open {limit} files"),
        Err(error) => log::warn!("could not raise the limit of open files: {error}"),
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

fn mount(
    overlay: &Arc<Overlay>,
    place: &Place<'_>,
    options: &MountOptions,
    threads: usize,
) -> Result<Session<Mounted>, Box<dyn Error>> {
    let Place {
        source, mountpoint, ..
    } = *place;
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = true;
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let device = open_device()?;
    if sys::creds::euid() == 0 {
        let device = OwnedFd::from(device);
        match mount_as_root(&device, source, mountpoint, options) {
            Ok(()) => {
                let session =
                    Session::from_fd(Mounted(Arc::clone(overlay)), device, config.acl, config);
                return session.map_err(|error| {
                    let _ = sys::c_name(mountpoint.as_os_str())
                        .and_then(|path| sys::mount::unmount(&path, libc::MNT_DETACH));
                    unusable(mountpoint, "the kernel refused the session", &error).into()
                });
            }
            // Root of a container may still have the helper.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            Err(error) => return Err(unusable(mountpoint, "cannot mount there", &error).into()),
        }
    }
    if let Some(dead) = place.dead {
        // The helper, and fuser, cannot mount upon it. The directory below is another than the
        // source here, and its place is shown to nobody as the guarded one.
        dead.detach_by_helper().map_err(|error| {
            let what =
                "the mount of a daemon that has ended cannot be taken away (fusermount3 -u -z)";
            unusable(mountpoint, what, &error)
        })?;
    }
    config.mount_options = options_of_fuser(source, options);
    Session::new(Mounted(Arc::clone(overlay)), mountpoint, &config)
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
    let text = error.to_string();
    format!(
        "{}: cannot mount there: {}",
        shown(mountpoint),
        text.trim().replace('\n', "; ")
    )
}

/// Mounts by mount(2), so that the type is `fuse.dotlockfs` without a helper.
fn mount_as_root(
    device: &OwnedFd,
    source: &Path,
    mountpoint: &Path,
    options: &MountOptions,
) -> io::Result<()> {
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
    sys::mount::mount(
        &sys::c_name(source.as_os_str())?,
        &sys::c_name(mountpoint.as_os_str())?,
        c"fuse.dotlockfs",
        flags,
        &CString::new(data)?,
    )
}

/// The same for fusermount3, by way of fuser.
fn options_of_fuser(source: &Path, options: &MountOptions) -> Vec<MountOption> {
    // Commas and backslashes are escaped for fusermount3 as libfuse does it.
    let name = String::from_utf8_lossy(source.as_os_str().as_bytes())
        .replace('\\', "\\\\")
        .replace(',', "\\,");
    let mut list = vec![
        MountOption::FSName(name),
        MountOption::Subtype("dotlockfs".to_owned()),
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if options.read_only {
        list.push(MountOption::RO);
    }
    if options.default_permissions {
        list.push(MountOption::DefaultPermissions);
    }
    let known = ["nosuid", "nodev"];
    let others = options
        .kernel
        .iter()
        .filter(|word| !known.contains(&word.as_str()));
    list.extend(others.map(|word| MountOption::CUSTOM(word.clone())));
    list
}

/// Unmounts by umount(2), lazily where programs still use it; programs then see the end when this
/// process ends. Only while it is our mount that is seen there.
fn unmount(mountpoint: &PathBuf, dev: u64) -> io::Result<()> {
    match fs::metadata(mountpoint) {
        Ok(seen) if seen.dev() == dev => {}
        _ => return Ok(()),
    }
    let path = sys::c_name(mountpoint.as_os_str())?;
    match sys::mount::unmount(&path, libc::UMOUNT_NOFOLLOW) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            sys::mount::unmount(&path, libc::UMOUNT_NOFOLLOW | libc::MNT_DETACH)
        }
        other => other,
    }
}
