//! What becomes the command: it goes into namespaces of its own, and mounts there.

use std::ffi::CString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use nix::unistd::{Pid, getppid};

use super::supervise::Signals;
use super::{OWN_FAILURE, Plan, refusal};
use crate::backing;
use crate::cli::RunArgs;
use crate::cli::mount::{open_device, unusable};
use crate::sys::{self, again, creds, mount_table, process};

/// What the daemon says once it serves the mount.
pub(super) const READY: &[u8] = b"ready";

const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// Becomes the command, with the directory guarded. Returns only where that fails, with the exit
/// status; the reason has been told.
pub(super) fn run(
    args: &RunArgs,
    plan: Plan,
    daemon: OwnedFd,
    signals: &Signals,
    parent: Pid,
) -> u8 {
    // The server may not answer: signals end this one, as they would end the command.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals.before), None);
    match enter(&plan, daemon, parent) {
        Ok(true) => {
            drop(plan);
            become_command(args, signals)
        }
        // The daemon has said why.
        Ok(false) => OWN_FAILURE,
        Err(line) => {
            eprintln!("dotlockfs: {line}");
            OWN_FAILURE
        }
    }
}

/// Becomes the command. Returns only where that fails, with the exit status.
pub(super) fn become_command(args: &RunArgs, signals: &Signals) -> u8 {
    let (program, arguments) = (&args.command[0], &args.command[1..]);
    let error = process::exec(program, arguments, signals.before, signals.ignores_children);
    let line = unusable(Path::new(program), "cannot be run", &error);
    eprintln!("dotlockfs: {line}");
    match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_RUNNABLE,
    }
}

/// Mounts, and waits until the daemon serves; false where it has told a failure.
fn enter(plan: &Plan, daemon: OwnedFd, parent: Pid) -> Result<bool, String> {
    let Plan { dir, .. } = plan;
    let fail = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| unusable(dir, &what, &error)
    };
    let refuse = |what: &str, error| match plan.as_root {
        true => refusal::of_root(dir, what, &error),
        false => refusal::of_user(dir, what, error),
    };
    let (uid, gid) = (creds::euid(), creds::egid());
    if plan.as_root {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|error| refuse("making a mount namespace", error.into()))?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
            .map_err(|error| refuse("making a user namespace", error.into()))?;
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{uid} {uid} 1")),
            ("gid_map", format!("{gid} {gid} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), text)
                .map_err(|error| refuse(&format!("writing /proc/self/{file}"), error))?;
        }
    }
    // After the namespaces, for what has got new rights forgets it. What the parent's end means
    // for the command's children is up to the daemon.
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| fail("cannot be guarded: prctl")(error.into()))?;
    if getppid() != parent {
        return Ok(false);
    }
    // From now on nobody outside is told of our mounts; we are told of theirs.
    sys::mount::mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_SLAVE, c"")
        .map_err(|error| refuse("setting the propagation of mounts", error))?;
    let device = open_device()?;
    mount(plan, &device, uid, gid).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => refuse("mounting", error),
        _ => fail("cannot be mounted over")(error),
    })?;
    let dev = mount_table::open(dir)
        .and_then(|(_, id)| mount_table::ours(id))
        .map_err(fail(
            "cannot be guarded: the table of mounts cannot be read",
        ))?
        .ok_or_else(|| fail("cannot be guarded")(io::Error::from_raw_os_error(libc::ENOENT)))?
        .dev;
    let told = fail("cannot be guarded: the daemon has ended");
    let devices = [device.as_raw_fd()];
    let words = dev.to_ne_bytes();
    let sent = again(|| {
        sendmsg::<()>(
            daemon.as_raw_fd(),
            &[IoSlice::new(&words)],
            &[ControlMessage::ScmRights(&devices)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
    });
    // While we have one, too, the programs of a killed daemon would wait for ever.
    drop(device);
    if sent.is_err() {
        return Ok(false);
    }
    let mut answer = [0; READY.len()];
    let len = match again(|| recv(daemon.as_raw_fd(), &mut answer, MsgFlags::empty())) {
        // It has ended before it had read what it was sent.
        Err(Errno::ECONNRESET) => return Ok(false),
        other => other.map_err(|error| told(error.into()))?,
    };
    if answer[..len] != *READY {
        return Ok(false);
    }
    // The kernel knows nothing of the root of a new mount before it has asked for it, and takes it
    // for nobody's.
    fs::metadata(dir).map_err(fail("the mount does not answer"))?;
    if let Some(cwd) = &plan.cwd {
        std::env::set_current_dir(cwd)
            .map_err(|error| unusable(cwd, "cannot go there in the mount", &error))?;
    }
    Ok(true)
}

fn mount(plan: &Plan, device: &fs::File, uid: u32, gid: u32) -> io::Result<()> {
    let path = sys::c_name(plan.dir.as_os_str())?;
    // The path might lead elsewhere by now, and again in a moment: whoever may write in a directory
    // above could have root mount over another one. So what is looked at is what is mounted over.
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let target = sys::fs::openat(fs::File::open("/")?, &path, flags, 0)?;
    let id = |fd| sys::fs::statx(fd, c"", 0).map(|stat| (stat.dev, stat.ino));
    if id(&target)? != id(&plan.root)? {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let target = backing::proc_path(&target);
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if plan.read_only {
        flags |= libc::MS_RDONLY;
    }
    if plan.no_exec {
        flags |= libc::MS_NOEXEC;
    }
    let others = if plan.as_root { ",allow_other" } else { "" };
    let data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid}{others}",
        device.as_raw_fd()
    );
    sys::mount::mount(
        &path,
        &target,
        c"fuse.dotlockfs",
        flags,
        &CString::new(data)?,
    )
}
