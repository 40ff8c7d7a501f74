//! The FUSE file system: what the kernel asks, passed through to the directory below, or handed
//! over to a guard.
//!
//! This file only translates. What a request means stands with its kind: `names` (look up, make,
//! move, remove), `meta` (attributes), `files` (open, read, write), `dirs` (listing), `locked`
//! (what is locked while it is open), `replace` (renaming over a guarded file), `advisory`
//! (flock and fcntl), `in_force` (by which rules), `through` (what the kernel reads and writes by itself); what the kernel knows
//! is kept in `nodes` and `handles`.

mod advisory;
pub mod attr;
pub mod below;
pub mod dirs;
mod files;
pub mod handles;
pub mod in_force;
mod listings;
mod locked;
mod meta;
mod names;
pub mod nodes;
pub mod private;
pub mod reading;
mod replace;
mod requests;
mod through;
mod vacate;
pub mod versions;

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{INodeNo, Notifier, Request};

use crate::backing::credentials::Assumed;
use crate::backing::{Caller, Credentials, Freshnesses, Kinds};
use crate::config::Rules;
use crate::guard::{Guards, Hold};
use crate::lock::Owner;
use crate::sys;
use below::Below;
use handles::Handles;
use in_force::InForce;
pub use meta::DAEMON;
use nodes::{Node, Nodes};
use reading::Reading;
use through::Through;
use versions::Versions;

/// The largest write that the kernel is asked to hand over in one piece, in bytes. Linux allows
/// 256 pages without a change of its settings.
pub const MAX_WRITE: usize = 1024 * 1024;

/// What a mount may do, besides its rules.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Others than the user who mounts may use it.
    pub many_users: bool,
    /// The kernel may read and write files by itself that are not guarded, if it can.
    pub passthrough: bool,
    /// How many threads read requests.
    pub threads: usize,
    /// The only ids that the mount's user namespace knows, where it is not that of this process.
    pub only_ids: Option<Ids>,
}

/// A user's id and a group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The user's.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
}

/// The state of a mount.
#[derive(Debug)]
pub struct Overlay {
    nodes: Nodes,
    handles: Handles,
    guards: Guards,
    below: Below,
    versions: Versions,
    reading: Reading,
    through: Through,
    passthrough: bool,
    rules: InForce,
    credentials: Arc<Credentials>,
    kinds: Kinds,
    freshness: Freshnesses,
    many_users: bool,
    only_ids: Option<Ids>,
    notifier: OnceLock<Notifier>,
}

/// The overlay as fuser wants it.
#[derive(Debug)]
pub struct Mounted(pub Arc<Overlay>);

impl Overlay {
    /// An overlay of the directory that `root` is open on (`O_PATH`).
    ///
    /// # Errors
    /// Those of the directory; where `/proc` is missing; where no thread can be started.
    pub fn new(root: OwnedFd, rules: Rules, settings: Settings) -> io::Result<Arc<Overlay>> {
        let stat = sys::fs::statx(&root, c"", 0)?;
        let credentials = Arc::new(Credentials::of_this_process()?);
        let owner = Arc::new(Owner::this_process()?);
        let overlay = Overlay {
            nodes: Nodes::new(root, &stat),
            handles: Handles::default(),
            guards: Guards::new(Arc::clone(&credentials), owner, MAX_WRITE, settings.threads)?,
            below: Below::default(),
            versions: Versions::default(),
            reading: Reading::default(),
            through: Through::default(),
            passthrough: settings.passthrough,
            rules: InForce::new(rules),
            credentials,
            kinds: Kinds::default(),
            freshness: Freshnesses::default(),
            many_users: settings.many_users,
            only_ids: settings.only_ids,
            notifier: OnceLock::new(),
        };
        let root = overlay.nodes.root();
        root.restricted
            .store(overlay.is_restricted(root, &stat), Ordering::Relaxed);
        let overlay = Arc::new(overlay);
        let putting = Arc::downgrade(&overlay);
        overlay
            .guards
            .set_put(Box::new(move |guard, staged| match putting.upgrade() {
                Some(overlay) => overlay.put_in_place(guard, staged),
                None => guard.rename_beside(staged),
            }));
        Ok(overlay)
    }

    /// The guards of the mount, for those who watch it.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }

    /// Whether the kernel may read and write files by itself that are not guarded.
    pub fn passes_through(&self) -> bool {
        self.through.is_enabled()
    }

    /// Gives the way by which the kernel is told that a file has changed.
    pub fn set_notifier(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    /// Takes each lock, one after another, that is never held while a file system below is asked;
    /// returns when it could have them all. One that is never let go is a fault of this program.
    pub fn take_all_locks(&self) {
        self.nodes.take_lock();
        self.handles.take_locks();
        self.guards.take_locks();
    }

    /// Finishes what is queued, writes what is held back of unfinished records, and gives all
    /// locks back, within `limit`. Gives whether that came about.
    pub fn finish(self: &Arc<Self>, limit: Duration) -> bool {
        for handle in self.handles.drain() {
            if let Some(private) = &handle.private
                && !handle.hold.lock().as_ref().is_some_and(Hold::was_closed)
            {
                // The program has not come to the end of its update.
                private.abandon();
            }
            self.release(handle);
        }
        self.reading.end();
        self.guards.finish(limit)
    }

    fn caller(&self, req: &Request) -> Caller {
        self.credentials.caller(req.uid(), req.gid(), req.pid())
    }

    fn assume(&self, req: &Request) -> io::Result<Assumed> {
        self.credentials.assume(&self.caller(req))
    }

    /// Tells the kernel that a file has other contents from an offset on.
    fn invalidate(&self, node: &Node, from: u64) {
        let Some(notifier) = self.notifier.get() else {
            return;
        };
        let from = i64::try_from(from).unwrap_or(0);
        if let Err(error) = notifier.inval_inode(INodeNo(node.id), from, 0) {
            log::debug!("could not invalidate {}: {error}", node.path().display());
        }
    }
}

/// Runs `make` with the program's file mode creation mask. The mask does not count where the
/// directory has a default access control list, so it must be left to the file system below.
fn with_umask_of<T>(umask: u32, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    thread_local! {
        static OWN: Cell<bool> = const { Cell::new(false) };
    }
    if !OWN.get() {
        sys::process::own_umask()?;
        OWN.set(true);
    }
    sys::process::umask(umask);
    let made = make();
    sys::process::umask(0);
    made
}
