//! Opening and closing what is locked for as long as it is open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{FileHandle, Request};

use super::files::{Created, Descriptor, NewFile, Opened};
use super::handles::Handle;
use super::nodes::Node;
use super::private::Private;
use super::reading;
use super::{Overlay, versions::Version};
use crate::backing::Caller;
use crate::config::{Append, Replace, Rule, Update};
use crate::guard::{Guard, Hold, Job, Key, Target, Waiter, Work, family};
use crate::lock::RealDirectory;
use crate::sys;

/// Whether the kernel opens a program to run it (`__FMODE_EXEC` of linux/fs.h).
pub(super) const FMODE_EXEC: i32 = 0x20;

impl Overlay {
    /// Whether a file with this rule must be locked to be opened with `flags`.
    ///
    /// # Errors
    /// `EROFS` where it may not be opened so at all. (Not `EACCES`, which some programs take for a
    /// reason to remove the file and make it anew.)
    pub(super) fn must_lock(
        &self,
        rule: &Rule,
        flags: i32,
        is_held: impl FnOnce() -> bool,
    ) -> io::Result<bool> {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let appending = flags & libc::O_APPEND != 0;
        match (writable, appending) {
            // To wait here is better than to wait with the first write: the kernel lets nobody
            // else write to the file meanwhile, not even who has the lock.
            (true, true) => Ok(rule.append == Append::Open || is_held()),
            (true, false) => match rule.update {
                Update::Open | Update::Atomic => Ok(true),
                Update::Off => Ok(false),
                Update::Deny => Err(io::Error::from_raw_os_error(libc::EROFS)),
            },
            (false, _) => Ok(rule.replace == Replace::Hold && flags & FMODE_EXEC == 0),
        }
    }

    /// Whether a program on this host has the lock of a guarded name, or has made its lock file.
    pub(super) fn is_held_here(&self, key: &Key) -> bool {
        let is_held = |guard: Arc<Guard>| guard.is_held();
        self.guards.find(key).is_some_and(is_held) || self.guards.lock_files().beside(key).is_some()
    }

    /// Whether a process that opens a file to read it has the lock for that already.
    /// Counts one more descriptor then, and gives which lock.
    pub(super) fn reading_hold(
        &self,
        tid: u32,
        node: &Node,
        flags: i32,
    ) -> Option<reading::Number> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return None;
        }
        let key = node.guard_key()?;
        self.reading.opens(&key, family::process_of(tid))
    }

    /// Opens a file once its lock is there; the lock stays until the last close.
    pub(super) fn open_under_lock(
        self: &Arc<Self>,
        waiter: Waiter,
        node: &Arc<Node>,
        flags: i32,
        reply: Opened,
    ) {
        let guard = match self.guard_of(node) {
            Ok(guard) => guard,
            Err(error) => return reply(Err(error)),
        };
        let waiter = opener(waiter, flags);
        let (caller, tid) = (waiter.caller.clone(), waiter.tid);
        let (overlay, node, user) = (Arc::clone(self), Arc::clone(node), Arc::clone(&guard));
        let work = move |permitted: io::Result<()>| {
            let opened =
                permitted.and_then(|()| overlay.open_held(&user, &node, flags, caller, tid));
            user.leave();
            reply(opened);
        };
        guard.submit(Job::new(Work::Alone(Box::new(work)), waiter));
    }

    /// Makes a file and opens it, once its lock is there.
    pub(super) fn create_under_lock(
        self: &Arc<Self>,
        req: &Request,
        file: NewFile,
        reply: Created,
    ) {
        let guard = file.rule.as_ref().map_or_else(
            || Err(io::Error::from_raw_os_error(libc::ESTALE)),
            |rule| self.guard_of_name(&file.parent, &file.name, rule),
        );
        let guard = match guard {
            Ok(guard) => guard,
            Err(error) => return reply(Err(error)),
        };
        let waiter = opener(self.waiter(req), file.flags);
        let (overlay, user) = (Arc::clone(self), Arc::clone(&guard));
        let work = move |permitted: io::Result<()>| {
            let created = permitted.and_then(|()| {
                let hold = user.hold(family::process_of(file.tid));
                overlay.create(&file, Some(hold))
            });
            user.leave();
            reply(created);
        };
        guard.submit(Job::new(Work::Alone(Box::new(work)), waiter));
    }

    /// Opens what the name refers to, under its lock.
    fn open_held(
        self: &Arc<Self>,
        guard: &Arc<Guard>,
        node: &Arc<Node>,
        flags: i32,
        caller: Caller,
        tid: u32,
    ) -> io::Result<Descriptor> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let (rule, place) = (
            node.rule.as_ref().ok_or_else(stale)?,
            node.place().ok_or_else(stale)?,
        );
        let pid = family::process_of(tid);
        let hold = guard.hold(pid);
        let _assumed = self.credentials.assume(&caller)?;
        let kind = self.kind_of_file(node)?;
        let below = self.flags_below(true, flags, kind);
        let dir = place.parent.reach()?;
        RealDirectory::new(Arc::clone(&dir)).look_up_anew(&sys::c_name(&place.name)?)?;
        let target = node.open_current(below, true)?;
        // What is opened from here on is what a breaker of the turn would fence.
        guard.may_begin()?;
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            self.note_read(tid, node, flags, &target);
            let reader = match (node.guard_key(), family::identify(pid)) {
                (Some(key), Some(process)) => Some(self.reading.begin(key, process, hold)),
                _ => None,
            };
            return self.enter_reader(node, flags, kind, target, caller, reader);
        }
        let version = sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC)?.into();
        let in_place = rule.update != Update::Atomic
            || flags & libc::O_APPEND != 0
            || hold.is_under_a_lock_file();
        if flags & libc::O_APPEND != 0 && rule.append != Append::Open {
            return self.enter(node, flags, kind, target, caller, None);
        }
        if in_place {
            let held = Held {
                hold,
                version: Some(version),
                private: None,
            };
            return self.enter(node, flags, kind, target, caller, Some(held));
        }
        let (private, copy) =
            Private::copy_of(guard, dir, &target, below, &self.credentials, &caller)?;
        // The file itself must not be open while another is put in its place.
        drop(target);
        let held = Held {
            hold,
            version: Some(version),
            private: Some(private),
        };
        self.enter(node, flags, kind, copy, caller, Some(held))
    }

    /// One of the program's descriptors is closed: NFS writes back and tells errors now, and the
    /// program's fcntl locks go.
    pub(super) fn flush_file(
        self: &Arc<Self>,
        req: &Request,
        fh: FileHandle,
        owner: u64,
        reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    ) {
        let handle = match self.handles.get(fh.0) {
            Ok(handle) => handle,
            Err(error) => return reply(Err(error)),
        };
        if let Some(private) = &handle.private {
            // One of several may be killed, and the others bring it to its end.
            private.set_killed(family::is_killed(req.pid()));
        }
        if let Some(hold) = &*handle.hold.lock() {
            let publishes = handle.private.is_some() && handle.written.load(Ordering::Acquire);
            hold.set_closing(family::process_of(req.pid()), publishes);
        }
        let is_written = handle.written.load(Ordering::Acquire);
        let overlay = Arc::clone(self);
        let closed = Arc::clone(&handle);
        let then = move |result: io::Result<usize>| {
            overlay.close_locks(&closed, owner);
            reply(result);
        };
        match handle.appending() {
            Some(file) => file.finish(Some(owner), (req.pid(), None), Box::new(then)),
            None if handle.is_writable() && self.is_written_at_once(&handle) => then(Ok(0)),
            None if handle.is_writable() => {
                let written = write_back(&handle);
                if let Some(hold) = &*handle.hold.lock() {
                    // The program goes on from here: its time counts from now, and what it has written
                    // it knows. (It may be told that the file is closed before we are.)
                    if handle.private.is_none() && is_written {
                        self.note_written(&handle, hold);
                    }
                    let publishes = handle.private.is_some() && is_written;
                    hold.set_closing(family::process_of(req.pid()), publishes);
                }
                // The lock may have been lost since the last write; close is the last to tell.
                let ours = match is_written {
                    true => handle.lock_is_ours(),
                    false => Ok(()),
                };
                then(written.and(ours).map(|()| 0));
            }
            None => then(Ok(0)),
        }
    }

    /// Whether a close makes nothing happen below that has not happened before: a file that is not
    /// guarded, on a file system of this host.
    fn is_written_at_once(&self, handle: &Handle) -> bool {
        let is_local = || self.kinds.is_local(handle.node.file.dev, &*handle.fd());
        handle.node.rule.is_none() && is_local().unwrap_or(false)
    }

    /// The last descriptor is gone.
    pub(super) fn release_file(self: &Arc<Self>, fh: FileHandle) {
        if let Some(handle) = self.handles.remove(fh.0) {
            self.release(handle);
        }
    }

    pub(super) fn release(self: &Arc<Self>, handle: Arc<Handle>) {
        self.through.closed(&handle);
        let Some(file) = handle.appending().cloned() else {
            self.end_update(&handle);
            return;
        };
        let process = handle.hold.lock().as_ref().map(Hold::pid);
        let overlay = Arc::clone(self);
        let report = move |result: io::Result<usize>| {
            if let Err(error) = result {
                log::error!(
                    "{}: the end of an unfinished record is lost: {error}",
                    handle.node.path().display()
                );
            }
            overlay.end_update(&handle);
        };
        file.finish(None, (0, process), Box::new(report));
    }

    /// What was written is put in its place, and the lock is let go.
    fn end_update(self: &Arc<Self>, handle: &Arc<Handle>) {
        let hold = handle.hold.lock().take();
        let written = handle.written.load(Ordering::Acquire);
        if let Some(hold) = hold
            .as_ref()
            .filter(|_| written && handle.private.is_some())
        {
            hold.set_publishing();
        }
        if written
            && hold.is_some()
            && let Err(error) = write_back(handle)
        {
            log::error!(
                "{}: what a program wrote before it closed the file may not be on the server: {error}",
                handle.node.path().display()
            );
        }
        if let (Some(private), Some(hold)) = (&handle.private, &hold)
            && written
            && !private.is_abandoned()
            && !hold.is_lost()
            && let Err(error) = self.publish(handle, private, hold.guard())
        {
            log::error!(
                "{}: the update could not be put in its place, and the file is as it was: {error}",
                handle.node.path().display()
            );
        }
        if let Some(private) = &handle.private {
            // While the lock is held: nobody finds it.
            private.discard();
        }
        if written && let Some(hold) = &hold {
            self.note_written(handle, hold);
        }
        self.end_locks(handle);
        if let Some(reader) = handle.reader {
            self.reading.closed(reader);
        }
    }

    /// Who has written to a file under the lock knows the version that it has become.
    fn note_written(&self, handle: &Handle, hold: &Hold) {
        if is_checked(&handle.node)
            && let Some(key) = &handle.key
            && let Ok(stat) = sys::fs::statx(&*handle.fd(), c"", libc::AT_STATX_FORCE_SYNC)
        {
            let readers = family::readers(hold.pid());
            self.versions.written(key, &readers, Version::from(stat));
        }
    }

    /// Notes what a program is about to read.
    pub(super) fn note_read(&self, tid: u32, node: &Node, flags: i32, target: &Target) {
        if !is_checked(node) || flags & libc::O_ACCMODE == libc::O_WRONLY || flags & FMODE_EXEC != 0
        {
            return;
        }
        let stat = sys::fs::statx(&*target.fd, c"", libc::AT_STATX_FORCE_SYNC);
        if let (Some(key), Ok(stat)) = (node.guard_key(), stat) {
            let readers = family::readers(family::process_of(tid));
            self.versions.read(key, &readers, Version::from(stat));
        }
    }

    /// The same, of what a program has open for writing too.
    pub(super) fn note_read_by(&self, tid: u32, handle: &Handle) {
        match (handle.version, handle.node.guard_key()) {
            (Some(version), Some(key)) if is_checked(&handle.node) => {
                let readers = family::readers(family::process_of(tid));
                self.versions.read(key, &readers, version);
            }
            _ => self.note_read(tid, &handle.node, handle.flags, &handle.target()),
        }
    }

    /// A process has made a file.
    pub(super) fn note_new_file(&self, tid: u32) {
        self.reading.makes(|| family::process_of(tid));
    }

    /// Before a file is emptied in order to be written anew: whether the process has read an older
    /// version of it. Goes by what the name refers to: what the process has open may be a private
    /// copy, which nobody has read.
    ///
    /// # Errors
    /// `ESTALE` where it has.
    pub(super) fn check_emptying(&self, tid: u32, node: &Node) -> io::Result<()> {
        let is_checked = node
            .rule
            .as_ref()
            .is_some_and(|rule| rule.replace == Replace::Check && rule.update != Update::Off);
        let (Some(key), Some(place)) = (node.guard_key().filter(|_| is_checked), node.place())
        else {
            return Ok(());
        };
        let Some(process) = family::identify(family::process_of(tid)) else {
            return Ok(());
        };
        let Some(version) = self.versions.last_read(&key, &[process]) else {
            return Ok(());
        };
        // What is open may be a private copy.
        let dir = RealDirectory::new(place.parent.reach()?);
        let now = dir.look(&sys::c_name(&place.name)?)?.map(Version::from);
        if now == Some(version) || now.is_none() {
            return Ok(());
        }
        log::info!(
            "{}: process {} would overwrite a newer version than it has read, and gets ESTALE",
            node.path().display(),
            process.pid
        );
        Err(io::Error::from_raw_os_error(libc::ESTALE))
    }
}

/// The lock that lasts as long as a file is open, and what belongs to it.
pub(super) struct Held {
    pub hold: Hold,
    /// What the file was when it was opened.
    pub version: Option<Version>,
    /// The copy that is open in its stead.
    pub private: Option<Private>,
}

/// Whether it counts which version of the file a process has read.
fn is_checked(node: &Node) -> bool {
    let rule = node.rule.as_ref();
    rule.is_some_and(|rule| matches!(rule.replace, Replace::Check | Replace::Hold))
}

/// Who waits for the lock of a file that is opened.
fn opener(waiter: Waiter, flags: i32) -> Waiter {
    let nonblocking = flags & libc::O_NONBLOCK != 0;
    Waiter {
        patience: nonblocking.then_some(Duration::ZERO),
        ..waiter
    }
}

/// Makes sure that what was written is on the server, and tells what went wrong with it.
fn write_back(handle: &Handle) -> io::Result<()> {
    let fd = handle.fd();
    let result = match &handle.private {
        Some(_) if handle.written.load(Ordering::Acquire) => sys::fs::fsync(&*fd, false),
        _ => sys::fs::flush(&*fd),
    };
    if result.is_err()
        && let Some(private) = &handle.private
    {
        private.abandon();
    }
    result
}
