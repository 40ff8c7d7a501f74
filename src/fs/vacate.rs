//! Removing directories, in which the lock protocol may have left something.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::Overlay;
use super::dirs::is_of_protocol;
use super::nodes::Node;
use crate::guard::{Guard, Outlook, Waiter};
use crate::lock;
use crate::sys;
use crate::sys::dirents;
use crate::sys::process::boottime;

/// How long a call waits for files in the directory that are in use, though they have no name.
const LONGEST: Duration = Duration::from_secs(3);
/// How often the protocol's names are removed from a directory in which new ones turn up.
const TRIES: u32 = 8;

/// Gets the result of a call that may have had to wait.
pub(super) type Reply = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Takes the directory above, and the name in it.
pub(super) type Attempt = Box<dyn Fn(&Arc<Node>, &CStr) -> io::Result<()> + Send>;

/// A call that removes an empty directory, or puts another in its place. What the lock protocol
/// has left in it does not count as its contents.
pub(super) struct Vacate {
    /// Whose call it is.
    waiter: Waiter,
    /// Where the directory is that must be empty.
    parent: Arc<Node>,
    name: CString,
    /// The call itself, with the two fields before.
    attempt: Attempt,
    /// Until when it waits, in the time of `boottime`.
    until: Duration,
    /// It has waited for one who had closed a file.
    has_waited: bool,
}

/// What the call waits for.
enum Wait {
    /// A file in it was appended to a moment ago; the lock is about to be given back.
    UntilIdle(Arc<Guard>),
    /// Who has a file in it locked has closed it: the kernel tells later whether that was the last
    /// close.
    UntilClosed(Arc<Guard>),
}

impl Vacate {
    pub(super) fn new(waiter: Waiter, parent: Arc<Node>, name: CString, attempt: Attempt) -> Self {
        Vacate {
            waiter,
            parent,
            name,
            attempt,
            until: boottime() + LONGEST,
            has_waited: false,
        }
    }

    pub(super) fn run(mut self, overlay: &Arc<Overlay>, reply: Reply) {
        match self.try_often(overlay) {
            Ok(None) => reply(Ok(())),
            Ok(Some(wait)) => {
                let overlay = Arc::clone(overlay);
                let waiter = self.waiter.clone();
                self.has_waited |= matches!(wait, Wait::UntilClosed(_));
                let until = self.until;
                let again = move |is_over: bool| match is_over {
                    true => self.run(&overlay, reply),
                    false => reply(Err(io::Error::from_raw_os_error(libc::ENOTEMPTY))),
                };
                match wait {
                    Wait::UntilIdle(guard) => guard.when_idle(until, Box::new(again)),
                    Wait::UntilClosed(guard) => {
                        guard.after_ending(waiter, Box::new(|| again(true)))
                    }
                }
            }
            Err(error) => reply(Err(error)),
        }
    }

    fn try_often(&self, overlay: &Overlay) -> io::Result<Option<Wait>> {
        let _assumed = overlay.credentials.assume(&self.waiter.caller)?;
        let mut tries = 0;
        loop {
            let error = match (self.attempt)(&self.parent, &self.name) {
                Err(error) if is_not_empty(&error) => error,
                other => return other.map(|()| None),
            };
            let dir = self.parent.reach()?;
            let stat = sys::fs::statx(&*dir, &self.name, 0)?;
            if !stat.is_dir() || tries == TRIES {
                return Err(error);
            }
            let Some(hidden) = only_hidden(&dir, &self.name)? else {
                return Err(error);
            };
            if let Some(busy) = overlay.guards.busy_in(stat.into()) {
                return match busy.outlook() {
                    _ if boottime() >= self.until => Err(error),
                    Outlook::Idle => Ok(Some(Wait::UntilIdle(busy))),
                    Outlook::Ending if !self.has_waited => Ok(Some(Wait::UntilClosed(busy))),
                    // It has a lock, or a file that is being updated, though that has no name. Or
                    // the wait for that was interrupted.
                    Outlook::Ending | Outlook::Held => Err(error),
                };
            }
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let emptied = sys::fs::openat(&*dir, &self.name, flags, 0)?;
            for name in hidden {
                match sys::fs::unlinkat(&emptied, &name, 0) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            // A turn that ended after the list was made has left another name.
            tries += 1;
        }
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST))
}

/// The protocol's names in a directory that holds nothing else and is about to be removed, the
/// ends of turns last; `None` where it holds more. The numbers of turns start again only in
/// another directory: a late call names its directory by a handle, and finds this one gone.
fn only_hidden(parent: &OwnedFd, name: &CStr) -> io::Result<Option<Vec<CString>>> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let dir = sys::fs::openat(parent, name, flags, 0)?;
    sys::fs::statx(&dir, c"", libc::AT_STATX_FORCE_SYNC)?;
    let mut hidden = Vec::new();
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let len = sys::fs::getdents(&dir, &mut buffer)?;
        if len == 0 {
            break;
        }
        for entry in dirents::entries(&buffer[..len]) {
            match entry.name {
                b"." | b".." => {}
                name if is_of_protocol(&dir, name) => {
                    hidden.push(sys::c_name(OsStr::from_bytes(name))?);
                }
                _ => return Ok(None),
            }
        }
    }
    hidden.sort_by_key(|name| lock::names::is_end(name.as_bytes()));
    Ok(Some(hidden))
}
