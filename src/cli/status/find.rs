//! Which daemons are asked: that of one mount, or those of all mounts of this host that the caller may
//! ask.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::config::error::shown;
use crate::observe::control;
use crate::observe::report::{Report, printable};
use crate::observe::runtime::{self, Found};
use crate::sys::creds;
use crate::sys::mount_table::{self, Entry};

/// So many daemons are asked at the same time.
const AT_ONCE: usize = 16;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The mounts that have answered, by their mountpoints.
    pub reports: Vec<Report>,
    /// A line for each that should have.
    pub problems: Vec<String>,
}

/// Asks for the mount that `path` lies in.
///
/// # Errors
/// A line for the user: there is none, or it does not answer, or not this user.
pub(super) fn one(path: &Path) -> Result<Asked, String> {
    let fail = |error: io::Error| {
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default();
        format!("{}: cannot look at it: {reason}", shown(path))
    };
    let (_, id) = mount_table::open(path).map_err(fail)?;
    let entry = mount_table::ours(id).map_err(fail)?.ok_or_else(|| {
        format!(
            "{}: no dotlockfs is mounted there; `dotlockfs status` shows those of this host",
            shown(path)
        )
    })?;
    let mut reports = Vec::new();
    let mut worst = None;
    for (_, answer) in ask_all(&sockets_of(std::slice::from_ref(&entry))) {
        match answer {
            Ok(report) => reports.push(report),
            Err(error) => worst = Some(error),
        }
    }
    // The number may have been that of a mount before, whose daemon is still at its end.
    let newest = reports
        .into_iter()
        .min_by(|a, b| a.uptime_seconds.total_cmp(&b.uptime_seconds));
    match newest {
        Some(report) => Ok(Asked {
            reports: vec![report],
            problems: Vec::new(),
        }),
        None => Err(silent(&entry, worst.as_ref())),
    }
}

/// Asks for all mounts.
pub(super) fn all() -> Asked {
    let mut table = mount_table::read().unwrap_or_default();
    table.retain(|entry| entry.kind == mount_table::OURS);
    let answers = ask_all(&sockets_of(&table));
    let mut asked = Asked::default();
    for entry in table {
        if !is_for_us(&entry) {
            continue;
        }
        let mut of_it = answers.iter().filter(|(found, _)| found.dev == entry.dev);
        if !of_it.clone().any(|(_, answer)| answer.is_ok()) {
            let error = of_it.find_map(|(_, answer)| answer.as_ref().err());
            asked.problems.push(silent(&entry, error));
        }
    }
    asked.reports = answers
        .into_iter()
        .filter_map(|(_, answer)| answer.ok())
        .collect();
    asked
        .reports
        .sort_by(|a, b| (&a.mountpoint, a.pid).cmp(&(&b.mountpoint, b.pid)));
    asked
}

/// The sockets of these mounts. In the directory of a user there may be anything: what is there counts
/// only for a mount of that user, as the kernel knows it.
fn sockets_of(mounts: &[Entry]) -> Vec<Found> {
    let dirs = runtime::known();
    let sockets = dirs
        .iter()
        .flat_map(|(dir, uid)| runtime::sockets(dir, *uid));
    let is_there = |found: &Found| {
        let mut mounts = mounts.iter();
        mounts.any(|entry| entry.dev == found.dev && owner(entry) == Some(found.uid))
    };
    sockets.flatten().filter(is_there).collect()
}

/// Asks at all sockets, each of which may take its time.
fn ask_all(sockets: &[Found]) -> Vec<(Found, io::Result<Report>)> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::new());
    let work = || {
        while let Some(found) = sockets.get(next.fetch_add(1, Ordering::Relaxed)) {
            let answer = ask(found);
            let mut answers = answers.lock().unwrap_or_else(|fault| fault.into_inner());
            answers.push((found.clone(), answer));
        }
    };
    thread::scope(|scope| {
        for _ in 1..sockets.len().min(AT_ONCE) {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                // There are no more to be had; this one goes on alone.
                break;
            }
        }
        work();
    });
    answers
        .into_inner()
        .unwrap_or_else(|fault| fault.into_inner())
}

/// Asks at one socket. Only an answer about its very mount is believed.
fn ask(found: &Found) -> io::Result<Report> {
    let mut report = control::ask(found)?;
    let device = format!("{}:{}", libc::major(found.dev), libc::minor(found.dev));
    if report.device != device || report.uid != found.uid {
        let what = "what answers tells of another mount";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    report.make_printable();
    Ok(report)
}

/// The user who has made a mount.
fn owner(entry: &Entry) -> Option<u32> {
    let mut options = entry.super_options.split(',');
    options.find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
}

/// Whether the daemon of this mount would answer us.
fn is_for_us(entry: &Entry) -> bool {
    creds::euid() == 0 || owner(entry) == Some(creds::euid())
}

/// What to do about a mount that has not answered.
fn silent(entry: &Entry, error: Option<&io::Error>) -> String {
    let point = shown(&entry.point);
    match error.map(|error| (error.kind(), error)) {
        // Others cannot even see that there is one.
        _ if !is_for_us(entry) => format!(
            "{point}: only root, and the user who has mounted it, may ask: sudo dotlockfs status \
             {point}"
        ),
        Some((io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset, _)) => format!(
            "{point}: the daemon of this mount has ended; start it again, by the same command as \
             before"
        ),
        Some((io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _)) => {
            format!("{point}: its daemon does not answer; is it stopped?")
        }
        Some((io::ErrorKind::InvalidData, error)) => format!(
            "{point}: its daemon is of another version, whose answer is not understood: {}",
            // It may quote the answer.
            printable(&error.to_string())
        ),
        Some((_, error)) => format!("{point}: its daemon cannot be asked: {error}"),
        None => format!(
            "{point}: nobody answers for this mount: its daemon has ended, is of a version without a \
             control socket, or could not make one, as its log says then"
        ),
    }
}
