//! Open files: reading, writing, and handing guarded work over to the guards.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use fuser::{FileHandle, FopenFlags, INodeNo, Request};
use parking_lot::Mutex;

use super::dirs::is_of_protocol;
use super::handles::{Handle, Open};
use super::in_force::are_alike;
use super::locked::{FMODE_EXEC, Held};
use super::names::{Found, LOCK, makers};
use super::nodes::{Finding, Node, label};
use super::private::Private;
use super::reading;
use super::{Overlay, with_umask_of};
use crate::backing::{Caller, Kind};
use crate::config::error::shown;
use crate::config::{Ack, Rule, Update};
use crate::guard::append::{Pages, backing_flags};
use crate::guard::{AppendFile, Guard, GuardedFile, Hold, Job, Key, Target, Waiter, Work};
use crate::lock::RealDirectory;
use crate::sys;

/// A read is made up to its full length in steps, since the kernel takes a short answer for the
/// end of the file. Gives how much was read.
fn read_full(fd: &OwnedFd, offset: u64, data: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match sys::fs::pread(fd, &mut data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(len) => done += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether the kernel opens a program to run it, which takes the right to run it and not the right
/// to read it.
fn may_run_unread(error: &io::Error, flags: i32) -> bool {
    flags & FMODE_EXEC != 0 && error.raw_os_error() == Some(libc::EACCES)
}

impl Overlay {
    /// The flags with which the file below is opened.
    pub(super) fn flags_below(&self, node_is_guarded: bool, flags: i32, kind: Kind) -> i32 {
        let access = flags & libc::O_ACCMODE;
        let kept = flags & (libc::O_SYNC | libc::O_DSYNC | libc::O_NOATIME);
        let writable = access != libc::O_RDONLY;
        match (node_is_guarded, writable) {
            (true, true) if flags & libc::O_APPEND != 0 => backing_flags(flags, kind),
            // No descriptor that writes through the client's page cache may be open on a guarded
            // file: the client would take others' changes for its own, and keep stale pages.
            //
            // Nor is it read through that cache: to the client any descriptor that is open for
            // writing, direct or not, is a reason to keep its pages when the file has changed on
            // the server; it showed zeros where another host had appended. The kernel's pages
            // above us are cache enough.
            (true, _) if kind == Kind::Nfs => access | kept | libc::O_DIRECT,
            (true, _) => access | kept,
            // O_DIRECT is between the program and the kernel; our buffers are not aligned.
            (false, _) => access | kept | (flags & libc::O_APPEND),
        }
    }

    pub(super) fn kind_of_file(&self, node: &Node) -> io::Result<Kind> {
        let place = node
            .place()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
        self.kinds.of(node.file.dev, &*place.parent.reach()?)
    }

    /// Opens a file; where that takes the lock, `reply` is called once it is there.
    pub(super) fn open_file(
        self: &Arc<Self>,
        waiter: Waiter,
        ino: INodeNo,
        flags: i32,
        reply: Opened,
    ) {
        let node = match self.nodes.get(ino.0) {
            Ok(node) => node,
            Err(error) => return reply(Err(error)),
        };
        let overlay = Arc::clone(self);
        let guard = node.guard_key().and_then(|key| self.guards.find(&key));
        let user = waiter.clone();
        let open = move || match overlay.open_now(&user, &node, flags) {
            Ok(Some(opened)) => reply(Ok(opened)),
            Ok(None) => overlay.open_under_lock(user, &node, flags, reply),
            Err(error) => reply(Err(error)),
        };
        match guard {
            Some(guard) => guard.after_closing(&waiter, Box::new(open)),
            None => open(),
        }
    }

    /// Opens a file, unless it must be locked for that.
    fn open_now(
        self: &Arc<Self>,
        waiter: &Waiter,
        node: &Arc<Node>,
        flags: i32,
    ) -> io::Result<Option<Descriptor>> {
        if !self.is_up_to_date(node) {
            // The kernel looks up the path again, and finds the node that the name has now.
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        let mut reader = None;
        if let Some(rule) = &node.rule
            && self.must_lock(
                rule,
                flags,
                || shown(&node.path()),
                || node.guard_key().is_some_and(|key| self.is_held_here(&key)),
            )?
        {
            reader = self.reading_hold(waiter.tid, node, flags);
            if reader.is_none() {
                return Ok(None);
            }
        }
        let opened = self.open_unlocked(waiter, node, flags, reader);
        if let (Err(_), Some(reader)) = (&opened, reader) {
            self.reading.closed(reader);
        }
        opened.map(Some)
    }

    fn open_unlocked(
        self: &Arc<Self>,
        waiter: &Waiter,
        node: &Arc<Node>,
        flags: i32,
        reader: Option<reading::Number>,
    ) -> io::Result<Descriptor> {
        let caller = waiter.caller.clone();
        let kind = self.kind_of_file(node)?;
        let below = self.flags_below(node.rule.is_some(), flags, kind);
        if flags & libc::O_APPEND != 0
            && let Some(key) = node
                .guard_key()
                .filter(|key| !key.name.as_bytes().ends_with(LOCK))
            && let Some(guard) = self.guards.find(&key)
            && let Some(target) = guard.lend(node.file, &caller, below)
        {
            return self.enter_reader(node, flags, kind, target, caller, reader);
        }
        let assumed = self.credentials.assume(&caller)?;
        let open = || match node.rule {
            Some(_) => node.open_current(below, false),
            None => node.open(below).map(|fd| Target {
                fd: Arc::new(fd),
                id: node.file,
                opened: Duration::ZERO,
            }),
        };
        let target = match open() {
            Err(error) if may_run_unread(&error, flags) => {
                sys::fs::access(&*node.reach()?, libc::X_OK)?;
                drop(assumed);
                open()?
            }
            other => other?,
        };
        if flags & libc::O_ACCMODE != libc::O_RDONLY
            && let Some(place) = node.place()
            && place.name.as_bytes().ends_with(b".lock")
            && !is_of_protocol(&*place.parent.reach()?, place.name.as_bytes())
        {
            self.note_lock_file(&place.parent, &place.name, target.id, || None);
        }
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            self.note_read(waiter.tid, node, flags, &target);
        }
        self.enter_reader(node, flags, kind, target, caller, reader)
    }

    pub(super) fn create_file(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        (mode, umask): (u32, u32),
        flags: i32,
        reply: Created,
    ) {
        let new = match self.new_file(req, parent, name, mode, umask, flags) {
            Ok(new) => new,
            Err(error) => return reply(Err(error)),
        };
        self.note_new_file(req.pid());
        let overlay = Arc::clone(self);
        match &new.rule {
            Some(rule) => {
                match self.must_lock(rule, flags, || label(&new.parent, name), || false) {
                    Ok(false) => {}
                    Ok(true) => return self.create_under_lock(req, new, reply),
                    Err(error) => return reply(Err(error)),
                }
            }
            None if name.as_bytes().ends_with(b".lock") => {
                let (place, maker) = (Arc::clone(&new.parent), self.waiter(req));
                let make = move || reply(overlay.create(&new, None));
                return self.make_lock_file(&place, name, maker, Box::new(make));
            }
            None => {}
        }
        reply(self.create(&new, None));
    }

    fn new_file(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
    ) -> io::Result<NewFile> {
        let (parent, c_name) = self.name_to_make(parent, name)?;
        let rule = self.rule_for(&parent, name);
        Ok(NewFile {
            kind: self.kinds.of(parent.file.dev, &*parent.reach()?)?,
            rule,
            parent,
            name: name.to_owned(),
            c_name,
            mode,
            umask,
            flags,
            caller: self.caller(req),
            tid: req.pid(),
        })
    }

    /// Makes a file and opens it; with `hold`, under that lock.
    pub(super) fn create(
        self: &Arc<Self>,
        file: &NewFile,
        hold: Option<Hold>,
    ) -> io::Result<(Found, Descriptor)> {
        let NewFile {
            parent,
            name,
            flags,
            kind,
            ..
        } = file;
        let _assumed = self.credentials.assume(&file.caller)?;
        let dir = parent.reach()?;
        let below = self.flags_below(file.rule.is_some(), *flags, *kind);
        let private = match (&hold, &file.rule) {
            (Some(hold), Some(rule)) if rule.update == Update::Atomic => {
                if RealDirectory::new(Arc::clone(&dir))
                    .look(&file.c_name)?
                    .is_some()
                {
                    return Err(io::Error::from_raw_os_error(libc::ESTALE));
                }
                let (guard, dir) = (hold.guard(), Arc::clone(&dir));
                Some(Private::new_file(
                    guard,
                    dir,
                    &self.credentials,
                    &file.caller,
                ))
            }
            _ => None,
        };
        let c_name = private.as_ref().map_or(&*file.c_name, Private::name);
        let new = below | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let _forget = self.forgets_look(parent, name);
        let make = || sys::fs::openat(&*dir, c_name, new, file.mode);
        let fd = match with_umask_of(file.umask, make) {
            Ok(fd) => fd,
            Err(error)
                if error.raw_os_error() == Some(libc::EEXIST) && flags & libc::O_EXCL == 0 =>
            {
                // It came into being since the kernel looked; let it look again.
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
            Err(error) => return Err(error),
        };
        let stat = sys::fs::statx(&fd, c"", 0)?;
        let how = Finding {
            rules_have_changed: self.rules.have_changed(),
            to_open: true,
        };
        let rule = file.rule.as_ref();
        let node = self.nodes.found(parent, name, &stat, (rule, how), || None);
        let exclusive = flags & libc::O_EXCL != 0;
        let makers = || exclusive.then(|| makers(file.tid)).flatten();
        self.note_lock_file(parent, name, stat.into(), makers);
        let target = Target {
            fd: Arc::new(fd),
            id: stat.into(),
            // By making it, which takes no right to write to it.
            opened: Duration::ZERO,
        };
        let held = hold.map(|hold| Held {
            hold,
            version: None,
            private,
        });
        let caller = file.caller.clone();
        let entered = self.enter(&node, *flags, *kind, target, caller, (held, true));
        if entered.is_err() {
            node.does_not_come();
            self.nodes.forget(node.id, 1);
        }
        let descriptor = entered?;
        let parent = Arc::clone(parent);
        Ok((Found { parent, node, stat }, descriptor))
    }

    /// Makes a handle for a program that has no lock, or, for `reader`, one for reading.
    pub(super) fn enter_reader(
        self: &Arc<Self>,
        node: &Arc<Node>,
        flags: i32,
        kind: Kind,
        target: Target,
        caller: Caller,
        reader: Option<reading::Number>,
    ) -> io::Result<Descriptor> {
        let (handle, how) = self.handle(node, flags, kind, target, caller.clone())?;
        let handle = Handle { reader, ..handle };
        self.hand_over(handle, how, caller, false)
    }

    /// Makes a handle of a descriptor of the file below, with the lock that lasts as long as it,
    /// and the private copy that it is open on. `expected`: the node has counted it as coming, and else
    /// it may be refused with `ESTALE`.
    pub(super) fn enter(
        self: &Arc<Self>,
        node: &Arc<Node>,
        flags: i32,
        kind: Kind,
        target: Target,
        caller: Caller,
        (held, expected): (Option<Held>, bool),
    ) -> io::Result<Descriptor> {
        let (mut handle, how) = self.handle(node, flags, kind, target, caller.clone())?;
        if let Some(held) = held {
            handle.hold = Mutex::new(Some(held.hold));
            handle.version = held.version;
            // A new file must appear even if nothing is written to it.
            let is_new = held.private.is_some() && held.version.is_none();
            handle.written = AtomicBool::new(is_new);
            handle.private = held.private;
        }
        self.hand_over(handle, how, caller, expected)
    }

    fn hand_over(
        &self,
        handle: Handle,
        how: FopenFlags,
        opener: Caller,
        expected: bool,
    ) -> io::Result<Descriptor> {
        let handle = Arc::new(handle);
        Ok(Descriptor {
            fh: self
                .handles
                .insert(Arc::clone(&handle), expected, self.rules.have_changed())?,
            handle,
            how,
            opener,
        })
    }

    fn handle(
        self: &Arc<Self>,
        node: &Arc<Node>,
        flags: i32,
        kind: Kind,
        target: Target,
        caller: Caller,
    ) -> io::Result<(Handle, FopenFlags)> {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let is_guarded = node.rule.is_some();
        let another = target.id != node.file;
        let open = if is_guarded && writable && flags & libc::O_APPEND != 0 {
            Open::Append(self.append_file(node, flags, kind, target, caller)?)
        } else if is_guarded {
            let below = self.flags_below(true, flags, kind);
            Open::Guarded(Arc::new(GuardedFile::new(caller, below, kind, target)))
        } else {
            Open::File(target.fd)
        };
        let mut handle = Handle::new(Arc::clone(node), flags, open);
        // Each write to a guarded file comes to us as the program made it. Nor may the kernel keep
        // pages of one file with those of another that the name had before.
        // Nor do the sizes of a file and of a program's private copy of it go together.
        let is_atomic = |rule: &Arc<Rule>| rule.update == Update::Atomic;
        let two_sizes = node.rule.as_ref().is_some_and(is_atomic);
        let direct = is_guarded && (writable || another || two_sizes);
        handle.cached = !direct;
        let how = if direct {
            FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::empty()
        };
        Ok((handle, how))
    }

    fn append_file(
        self: &Arc<Self>,
        node: &Arc<Node>,
        flags: i32,
        kind: Kind,
        target: Target,
        caller: Caller,
    ) -> io::Result<Arc<AppendFile>> {
        let guard = self.guard_of(node)?;
        if self.rules.have_changed()
            && !node.is_superseded()
            && !are_alike(Some(&guard.rule()), node.rule.as_ref())
        {
            // Somebody uses the name by an older rule: the kernel looks it up again.
            guard.leave();
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        let pages = PagesOf {
            overlay: Arc::downgrade(self),
            node: Arc::clone(node),
        };
        let file = GuardedFile::new(caller, backing_flags(flags, kind), kind, target);
        Ok(AppendFile::new(guard, file, flags, Box::new(pages)))
    }

    /// The guard of a guarded node; the caller must `leave` it.
    pub(super) fn guard_of(&self, node: &Node) -> io::Result<Arc<Guard>> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let own = node.rule.as_ref().ok_or_else(stale)?;
        let place = node.place().ok_or_else(stale)?;
        // Its name has another node, whose rule it is.
        let present = node
            .is_superseded()
            .then(|| self.rule_for(&place.parent, &place.name));
        let rule = present.flatten();
        self.guard_of_name(&place.parent, &place.name, rule.as_ref().unwrap_or(own))
    }

    /// The guard of a name; the caller must `leave` it.
    pub(super) fn guard_of_name(
        &self,
        parent: &Node,
        name: &OsStr,
        rule: &Arc<Rule>,
    ) -> io::Result<Arc<Guard>> {
        let dir = parent.reach()?;
        let key = Key::new(parent.file, name.to_owned());
        let label = || label(parent, name);
        Ok(self.guards.enter(key, dir, rule, label))
    }

    /// Who waits for the answer to a request.
    pub(super) fn waiter(&self, req: &Request) -> Waiter {
        Waiter {
            caller: self.caller(req),
            tid: req.pid(),
            process: None,
            patience: None,
        }
    }

    /// Does `work` under the lock of a guarded node, in its turn.
    pub(super) fn under_lock(
        &self,
        req: &Request,
        node: &Node,
        work: impl FnOnce(io::Result<&Guard>) + Send + 'static,
    ) {
        let guard = match self.guard_of(node) {
            Ok(guard) => guard,
            Err(error) => return work(Err(error)),
        };
        let waiter = self.waiter(req);
        let user = Arc::clone(&guard);
        let work = Box::new(move |result: io::Result<()>| {
            work(result.map(|()| &*user));
            user.leave();
        });
        let is_update = node
            .rule
            .as_ref()
            .is_some_and(|rule| rule.update != Update::Off);
        let work = if is_update {
            Work::Alone(work)
        } else {
            Work::Write(work)
        };
        guard.submit(Job::new(work, waiter));
    }

    /// Does `then` when all is done that programs have appended to a file and were answered for.
    pub(super) fn after_appends(&self, ino: INodeNo, then: impl FnOnce() + Send + 'static) {
        let guard = || {
            let node = self.nodes.get(ino.0).ok()?;
            node.rule.as_ref().filter(|rule| rule.ack == Ack::Close)?;
            let guard = self.guards.find(&node.guard_key()?)?;
            guard.is_behind().then_some(guard)
        };
        let acks_at_close = self.rules.acks_at_close.load(Ordering::Relaxed);
        match acks_at_close.then(guard).flatten() {
            Some(guard) => guard.after_appends(Box::new(then)),
            None => then(),
        }
    }

    /// Reads into `data`, and gives how much was read.
    pub(super) fn read_file(
        &self,
        tid: u32,
        fh: FileHandle,
        offset: u64,
        data: &mut [u8],
    ) -> io::Result<usize> {
        let handle = self.handles.get(fh.0)?;
        // To open a file for writing is not to read it: it may be emptied next.
        if handle.is_writable() && !handle.read.swap(true, Ordering::AcqRel) {
            self.note_read_by(tid, &handle);
        }
        let fd = handle.fd();
        let guard = handle
            .node
            .guard_key()
            .and_then(|key| self.guards.find(&key));
        let Some(guard) = guard else {
            return read_full(&fd, offset, data);
        };
        let look = || read_full(&fd, offset, data);
        let (len, limit) = guard.visible.watch(handle.id(), look)?;
        let visible = |limit: u64| usize::try_from(limit.saturating_sub(offset));
        Ok(limit.map_or(len, |limit| len.min(visible(limit).unwrap_or(usize::MAX))))
    }

    /// Writes, or queues an append; `reply` gets the number of bytes.
    pub(super) fn write_file(
        self: &Arc<Self>,
        req: &Request,
        write: Write<'_>,
        reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    ) {
        let handle = match self.handles.get(write.fh.0) {
            Ok(handle) => handle,
            Err(error) => return reply(Err(error)),
        };
        if write.from_memory && handle.node.rule.is_some() && handle.hold.lock().is_none() {
            // A file to be appended to: nobody's lock is there for this.
            log::error!(
                "{}: written through memory that is shared with it, without a lock: refused",
                handle.node.path().display()
            );
            return reply(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        if write.flags & libc::O_APPEND != 0 && handle.node.rule.is_some() && !write.from_memory {
            match self.as_appending(req, &handle, write.flags) {
                Ok(file) => {
                    file.append(write.data, write.offset, write.owner, req.pid(), reply);
                }
                Err(error) => reply(Err(error)),
            }
            return;
        }
        let at = WriteAt {
            offset: write.offset,
            flags: write.flags,
            clears_set_id: write.clears_set_id,
        };
        let caller = self.caller(req);
        if let Open::Append(_) = handle.open
            && handle.hold.lock().is_none()
        {
            // The program has cleared `O_APPEND`; it has no lock for this.
            let (overlay, held) = (Arc::clone(self), Arc::clone(&handle));
            let data = write.data.to_vec();
            return self.under_lock(req, &handle.node, move |permitted| {
                reply(permitted.and_then(|guard| {
                    guard.may_begin()?;
                    let written = overlay.write_at(&caller, &held, &data, &at)?;
                    guard.still_ours()?;
                    Ok(written)
                }));
            });
        }
        reply(self.write_at(&caller, &handle, write.data, &at));
    }

    /// The handle's file as one to append to; made so where the program has set `O_APPEND` after
    /// it had opened the file.
    fn as_appending(
        self: &Arc<Self>,
        req: &Request,
        handle: &Handle,
        flags: i32,
    ) -> io::Result<Arc<AppendFile>> {
        if let Some(file) = handle.appending() {
            return Ok(Arc::clone(file));
        }
        let kind = self.kind_of_file(&handle.node)?;
        let target = Target {
            // Not by the program that writes.
            opened: Duration::ZERO,
            ..handle.target()
        };
        let file = self.append_file(&handle.node, flags, kind, target, self.caller(req))?;
        Ok(Arc::clone(handle.late.get_or_init(|| file)))
    }

    fn write_at(
        &self,
        caller: &Caller,
        handle: &Handle,
        data: &[u8],
        write: &WriteAt,
    ) -> io::Result<usize> {
        handle.may_change()?;
        let fd = handle.fd();
        let appends = write.flags & libc::O_APPEND != 0;
        let below = &handle.appends_below;
        if handle.node.rule.is_none() && appends != below.load(Ordering::Acquire) {
            // The program has changed its mind since it opened the file.
            sys::fs::set_append(&*fd, appends)?;
            below.store(appends, Ordering::Release);
        }
        self.guards.note_writer(handle.id());
        let clears = write.clears_set_id && handle.node.set_id.load(Ordering::Relaxed);
        let assumed = clears.then(|| self.credentials.assume(caller));
        let mut done = 0;
        while done < data.len() {
            match sys::fs::pwrite(&*fd, &data[done..], write.offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if done > 0 => {
                    handle.note_failure(&error);
                    break;
                }
                Err(error) => {
                    handle.note_failure(&error);
                    handle.lock_is_ours()?;
                    return Err(error);
                }
            }
        }
        drop(assumed);
        self.guards.note_writer(handle.id());
        handle.lock_is_ours()?;
        Ok(done)
    }

    pub(super) fn sync_file(
        &self,
        req: &Request,
        fh: FileHandle,
        data_only: bool,
        reply: Box<dyn FnOnce(io::Result<usize>) + Send>,
    ) {
        let handle = match self.handles.get(fh.0) {
            Ok(handle) => handle,
            Err(error) => return reply(Err(error)),
        };
        match handle.appending() {
            // Who asks for what it wrote to be on disk means unfinished records too.
            Some(file) => file.finish(None, (req.pid(), None), reply),
            None => {
                let synced = self.sync(fh, data_only);
                reply(synced.and_then(|()| handle.lock_is_ours()).map(|()| 0));
            }
        }
    }

    /// Allocates space, as `caller`, so that set-user-ID bits are cleared where they must be.
    pub(super) fn allocate(
        &self,
        caller: &Caller,
        handle: &Handle,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> io::Result<()> {
        handle.may_change()?;
        let assumed = self.credentials.assume(caller)?;
        let allocated = sys::fs::fallocate(&*handle.fd(), mode, offset, length);
        self.guards.note_writer(handle.id());
        allocated.inspect_err(|error| handle.note_failure(error))?;
        drop(assumed);
        handle.lock_is_ours()
    }

    pub(super) fn seek(&self, fh: FileHandle, offset: i64, whence: i32) -> io::Result<i64> {
        let handle = self.handles.get(fh.0)?;
        sys::fs::lseek(&*handle.fd(), offset, whence)
    }

    pub(super) fn copy_range(
        &self,
        caller: &Caller,
        from: (FileHandle, u64),
        to: (FileHandle, u64),
        len: u64,
    ) -> io::Result<usize> {
        let (source, target) = (self.handles.get(from.0.0)?, self.handles.get(to.0.0)?);
        target.may_change()?;
        let assumed = self.credentials.assume(caller)?;
        // The answer has 32 bits for the length.
        let len = len.min(1 << 30) as usize;
        let copied = sys::fs::copy_file_range(&*source.fd(), from.1, &*target.fd(), to.1, len);
        self.guards.note_writer(target.id());
        let copied = copied.inspect_err(|error| target.note_failure(error))?;
        drop(assumed);
        target.lock_is_ours()?;
        Ok(copied)
    }
}

/// What a program gets of a file that was opened.
pub(super) struct Descriptor {
    /// The number of its handle.
    pub fh: u64,
    pub handle: Arc<Handle>,
    pub how: FopenFlags,
    /// As whom it was opened.
    pub opener: Caller,
}

/// Gets the handle of a file that was opened.
pub(super) type Opened = Box<dyn FnOnce(io::Result<Descriptor>) + Send>;

/// Gets what was made, and its handle.
pub(super) type Created = Box<dyn FnOnce(io::Result<(Found, Descriptor)>) + Send>;

/// A file that is to be made and opened.
pub(super) struct NewFile {
    pub parent: Arc<Node>,
    pub name: OsString,
    pub c_name: CString,
    pub mode: u32,
    pub umask: u32,
    pub flags: i32,
    pub rule: Option<Arc<Rule>>,
    pub kind: Kind,
    pub caller: Caller,
    pub tid: u32,
}

/// Where a write goes, and how.
struct WriteAt {
    offset: u64,
    flags: i32,
    clears_set_id: bool,
}

/// A write, as the kernel hands it over.
pub(super) struct Write<'a> {
    pub fh: FileHandle,
    pub offset: u64,
    pub data: &'a [u8],
    /// The program's open flags at this moment.
    pub flags: i32,
    /// The kernel's name for the program's table of open files.
    pub owner: Option<u64>,
    /// The program may not keep set-user-ID and set-group-ID bits on what it writes to.
    pub clears_set_id: bool,
    /// It comes from memory that programs share with the file (mmap(2)).
    pub from_memory: bool,
}

/// The kernel's pages of a guarded file.
struct PagesOf {
    overlay: Weak<Overlay>,
    node: Arc<Node>,
}

impl Pages for PagesOf {
    fn are_kept(&self) -> bool {
        self.node.cached_opens.load(Ordering::Acquire) > 0
    }

    fn drop_from(&self, offset: u64) {
        if self.are_kept()
            && let Some(overlay) = self.overlay.upgrade()
        {
            overlay.invalidate(&self.node, offset);
        }
    }
}
