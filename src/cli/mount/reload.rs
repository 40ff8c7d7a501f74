//! SIGHUP: the rules are read again.
//!
//! By a thread of its own: the file may lie on a server that hangs, and the mount must still come to its
//! end by a signal then.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::thread;

use super::rule_file::Origin;
use super::service::Service;
use crate::config::Rules;
use crate::config::error::shown;
use crate::fs::Overlay;

/// So many files that are in use are named in the log.
const NAMED: usize = 10;

/// Reads the rules of `overlay` again whenever `asked` says so. `what` is mounted, for people.
///
/// # Errors
/// Where no thread can be started.
pub(super) fn start(
    asked: Receiver<()>,
    origin: Origin,
    overlay: &Arc<Overlay>,
    service: Service,
    what: String,
) -> io::Result<()> {
    let overlay = Arc::downgrade(overlay);
    let wait = move || {
        while asked.recv().is_ok() {
            service.reloads();
            let words = reload(&origin, &overlay);
            service.is_ready(&format!("{what}, {words}"));
        }
    };
    let thread = thread::Builder::new().name("reload".to_owned());
    thread.spawn(wait).map(drop)
}

/// Reads the rules again, and puts them into force. Gives in a few words what is in force now.
fn reload(origin: &Origin, overlay: &Weak<Overlay>) -> String {
    let Some(overlay) = overlay.upgrade() else {
        return "ending".to_owned();
    };
    let before = overlay.rules();
    match change(origin, &overlay, &before) {
        Ok(()) => origin.words(&overlay.rules()),
        Err(error) => {
            log::error!("the rules stay as they were: {error}");
            format!("{} as before: {error}", origin.words(&before))
        }
    }
}

fn change(origin: &Origin, overlay: &Overlay, before: &Rules) -> Result<(), String> {
    let rules = origin.load_again(before)?;
    for warning in rules.warnings() {
        log::warn!("{warning}");
    }
    let words = origin.words(&rules);
    let in_use = overlay.change_rules(rules)?;
    log::info!("the rules were read again: {words}");
    for file in in_use.iter().take(NAMED) {
        log::info!(
            "{}: is in use, and goes by its old rule until it is closed",
            shown(file)
        );
    }
    if in_use.len() > NAMED {
        log::info!("and so do {} others", in_use.len() - NAMED);
    }
    Ok(())
}
