//! The daemon of a run: it serves the mount that was made inside, until nobody uses it any more.
//!
//! It is in a session of its own, and signals mean nothing to it: Ctrl-C and Ctrl-Z are for the
//! command, and what a batch system sends to all processes of a job must not take the file system
//! away from programs that write their last results. It ends when the mount does, that is, with the
//! last process in the namespace; and where `dotlockfs run` is killed it kills them all.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};

use super::Plan;
use super::inside::READY;
use crate::cli::mount::{self, unusable};
use crate::config::error::shown;
use crate::fs::{Ids, Mounted, Overlay, Settings};
use crate::sys::{again, creds, fds, mount_table, process};

/// How long the end may wait for locks held by others, and for the server.
const FINISH: Duration = Duration::from_secs(30);
/// How long after the end of the command others of its processes may end, too, before they count as
/// left behind on purpose.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How long processes may take to die that are killed.
const DEATHS: Duration = Duration::from_secs(10);
/// Threads that read requests.
const THREADS: usize = 2;

/// What `dotlockfs run` says when the command has ended.
pub(super) const COMMAND_ENDED: &[u8] = b"e";
/// The answer where other processes go on.
pub(super) const OTHERS_GO_ON: &[u8] = b"o";

/// What has happened.
enum Event {
    /// The mount is gone: nobody uses it.
    Unused(io::Result<()>),
    /// The command has ended.
    CommandEnded,
    /// `dotlockfs run` is gone.
    Alone,
}

/// Serves, and tells what goes wrong on standard error.
pub(super) fn run(plan: Plan, command: OwnedFd, run: OwnedFd) -> ExitCode {
    match serve(plan, command, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "dotlockfs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(plan: Plan, command: OwnedFd, run: OwnedFd) -> Result<(), Box<dyn Error>> {
    process::new_session()?;
    process::leave_input_and_output()?;
    std::env::set_current_dir("/")?;
    mount::log_plainly();
    for warning in plan.rules.warnings() {
        log::warn!("{warning}");
    }
    mount::prepare_process();
    // A limit of the job's (`ulimit -f`) is an error for its programs, not our end.
    process::ignore(Signal::SIGXFSZ);
    let Plan {
        dir,
        root,
        rules,
        as_root,
        ..
    } = plan;
    let settings = Settings {
        many_users: as_root,
        passthrough: true,
        threads: THREADS,
        only_ids: (!as_root).then(|| Ids {
            uid: creds::euid(),
            gid: creds::egid(),
        }),
    };
    let overlay = Overlay::new(root, rules, settings)?;
    let Some((device, dev)) = receive(&command)? else {
        // It has told why there is no mount.
        return Ok(());
    };
    let mounted = Mount {
        device: device.try_clone()?,
        dev,
    };
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    // One that was opened in another user namespace cannot be cloned here.
    config.clone_fd = as_root;
    config.acl = match as_root {
        true => SessionACL::All,
        false => SessionACL::Owner,
    };
    let session = Session::from_fd(Mounted(Arc::clone(&overlay)), device, config.acl, config)
        .map_err(|error| unusable(&dir, "the kernel refused the session", &error))?;
    overlay.set_notifier(session.notifier());
    let (sender, events) = mpsc::channel();
    let run = Arc::new(run);
    let (heard, watched) = (sender.clone(), Arc::clone(&run));
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(move || watch(&watched, &heard))?;
    thread::Builder::new()
        .name("session".to_owned())
        .spawn(move || {
            let served = match session.run() {
                // The mount went just when a request was being handed over.
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
                other => other,
            };
            let _ = sender.send(Event::Unused(served));
        })?;
    again(|| send(command.as_raw_fd(), READY, MsgFlags::MSG_NOSIGNAL))?;
    drop(command);

    let served = until_unused(&events, &run, &mounted);
    let finished = overlay.finish(FINISH);
    served?;
    if !finished {
        return Err(format!(
            "{}: not all locks could be given back; `ls -a` shows their turns",
            shown(&dir)
        )
        .into());
    }
    Ok(())
}

/// Takes the descriptor of `/dev/fuse`, and the device number of the mount; `None` where the
/// other side has ended without.
fn receive(command: &OwnedFd) -> io::Result<Option<(OwnedFd, u64)>> {
    let mut words = [0; 8];
    let (len, device) = fds::receive(command, &mut words)?;
    Ok(device
        .filter(|_| len == words.len())
        .map(|device| (device, u64::from_ne_bytes(words))))
}

/// Tells what comes from `dotlockfs run`, until it is gone.
fn watch(run: &OwnedFd, events: &mpsc::Sender<Event>) {
    let mut word = [0; 1];
    loop {
        let event = match again(|| recv(run.as_raw_fd(), &mut word, MsgFlags::empty())) {
            Ok(1..) => Event::CommandEnded,
            _ => Event::Alone,
        };
        let last = matches!(event, Event::Alone);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// Waits until nobody uses the mount.
fn until_unused(
    events: &Receiver<Event>,
    run: &OwnedFd,
    mounted: &Mount,
) -> Result<(), Box<dyn Error>> {
    match events.recv()? {
        Event::Unused(served) => return Ok(served?),
        Event::Alone => return kill_all(events, mounted),
        Event::CommandEnded => {}
    }
    // Those that the same signal has ended, say.
    let until = Instant::now() + STRAGGLERS;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match events.recv_timeout(left) {
            Ok(Event::Unused(served)) => return Ok(served?),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            // It has not waited for us.
            Ok(Event::Alone) | Ok(Event::CommandEnded) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    // If not, the session ends in a moment.
    if mounted.is_there() {
        // Others go on, and are served. Whoever reads what this run says must not wait for them.
        process::leave_errors()?;
        let _ = again(|| send(run.as_raw_fd(), OTHERS_GO_ON, MsgFlags::MSG_NOSIGNAL));
    }
    loop {
        if let Event::Unused(served) = events.recv()? {
            return Ok(served?);
        }
    }
}

/// Kills the processes that have the mount until none is left.
fn kill_all(events: &Receiver<Event>, mounted: &Mount) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + DEATHS;
    while Instant::now() < until {
        for entry in fs::read_dir("/proc")?.flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(pid) = pid
                && mounted.is_seen_by(pid)
            {
                process::kill_if(pid, || mounted.is_seen_by(pid));
            }
        }
        if let Ok(Event::Unused(served)) = events.recv_timeout(Duration::from_millis(10)) {
            return Ok(served?);
        }
    }
    Ok(())
}

/// What tells this mount from others.
struct Mount {
    /// Its descriptor of `/dev/fuse`.
    device: OwnedFd,
    /// Its device number, as `st_dev`.
    dev: u64,
}

impl Mount {
    /// Whether a process has it in its mount namespace, be it the one of the command or a copy.
    fn is_seen_by(&self, pid: i32) -> bool {
        let has_it = mount_table::of_process(pid)
            .is_ok_and(|table| table.iter().any(|entry| entry.dev == self.dev));
        // When the mount is gone its number is given to the next one, and that may be another
        // run's. So this is asked last. (The number of a namespace would not do: it is given away
        // just so, and namespaces do not tell when they are gone.)
        has_it && self.is_there()
    }

    fn is_there(&self) -> bool {
        fds::is_broken(&self.device).is_ok_and(|broken| !broken)
    }
}
