//! Which daemons are asked: that of one mount, or those of all mounts of this host that the caller may
//! ask.

use std::io;
use std::path::Path;
use std::thread;

use crate::cli::mount_table::{self, Entry};
use crate::config::error::shown;
use crate::observe::control;
use crate::observe::report::Report;
use crate::observe::runtime::{self, Found};
use crate::sys::creds;

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
    let sockets = everywhere();
    let of_it = sockets.iter().filter(|found| found.dev == entry.dev);
    let mut worst = None;
    for found in of_it {
        match control::ask(found) {
            Ok(report) => {
                return Ok(Asked {
                    reports: vec![report],
                    problems: Vec::new(),
                });
            }
            Err(error) => worst = Some(error),
        }
    }
    Err(silent(&entry, worst.as_ref()))
}

/// Asks for all mounts.
pub(super) fn all() -> Asked {
    let sockets = everywhere();
    let answers: Vec<(Found, io::Result<Report>)> = thread::scope(|scope| {
        let asking: Vec<_> = sockets
            .iter()
            .map(|found| (found, scope.spawn(|| control::ask(found))))
            .collect();
        asking
            .into_iter()
            .map(|(found, answer)| {
                let fault = || Err(io::Error::from(io::ErrorKind::Other));
                (found.clone(), answer.join().unwrap_or_else(|_| fault()))
            })
            .collect()
    });
    let mut asked = Asked::default();
    for entry in mount_table::read().unwrap_or_default() {
        if entry.kind != mount_table::OURS || !is_for_us(&entry) {
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

fn everywhere() -> Vec<Found> {
    let dirs = runtime::known();
    let sockets = dirs
        .iter()
        .flat_map(|(dir, uid)| runtime::sockets(dir, *uid));
    sockets.flatten().collect()
}

/// Whether the daemon of this mount would answer us.
fn is_for_us(entry: &Entry) -> bool {
    let own = format!("user_id={}", creds::euid());
    creds::euid() == 0 || entry.super_options.split(',').any(|option| option == own)
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
            "{point}: its daemon is of another version, whose answer is not understood: {error}"
        ),
        Some((_, error)) => format!("{point}: its daemon cannot be asked: {error}"),
        None => format!(
            "{point}: nobody answers for this mount: its daemon has ended, is of a version without a \
             control socket, or could not make one, as its log says then"
        ),
    }
}
