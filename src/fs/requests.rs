//! The requests of the kernel, one by one, as fuser hands them over.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::advisory::Asked;
use super::attr::set_time;
use super::files::{Descriptor, Write};
use super::meta::{Changes, Xattr};
use super::names::Found;
use super::through::Way;
use super::{MAX_WRITE, Mounted, Overlay};
use crate::config::error::shown;
use crate::config::{Rule, Update};
use crate::guard::Guard;
use crate::guard::locks::{Kind, Lock, Range};

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Answers with what was found or made, or with the error.
fn answer_entry(overlay: &Overlay, found: io::Result<Found>, reply: ReplyEntry) {
    match found {
        Ok(Found { parent, node, stat }) => {
            let (entry_ttl, attr_ttl) = overlay.lifetimes(&parent, &node);
            let attr = overlay.attributes(&stat, node.id);
            reply.entry_with_ttls(&entry_ttl, &attr_ttl, &attr, Generation(node.generation));
        }
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_empty(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_xattr(result: io::Result<Xattr>, reply: ReplyXattr) {
    match result {
        Ok(Xattr::Size(size)) => reply.size(size),
        Ok(Xattr::Value(value)) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for Mounted {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            // Pages are dropped when size or time of a file have changed.
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // The umask is for the file system below to apply.
            InitFlags::FUSE_DONT_MASK,
            // The kernel need not ask for security.capability before each write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // Advisory locks are ours to keep.
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_FLOCK_LOCKS,
        ] {
            if let Err(missing) = config.add_capabilities(wanted) {
                log::debug!("this kernel does not know {missing:?}");
            }
        }
        if self.0.rules.now().lock_all_updates() {
            // Memory that is shared with a file is written at any time until it is unmapped; the
            // lock of an update lasts so long, others do not.
            let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
            self.0.rules.shares_memory.store(true, Ordering::Release);
        }
        if self.0.rules.now().guards_everything_alike().is_none() {
            // Of a guarded file the kernel keeps nothing, so a listing with attributes would
            // save no question, and its inode numbers are those of the mount, not those below.
            let listing = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
            let _ = config.add_capabilities(listing);
            self.0.ask_for_passthrough(config);
        }
        if let Err(nearest) = config.set_max_write(MAX_WRITE as u32) {
            let _ = config.set_max_write(nearest);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let overlay = Arc::clone(&self.0);
        let answer = Box::new(move |found| answer_entry(&overlay, found, reply));
        self.0.look_up(req, parent, name, answer);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.0.nodes.forget(ino.0, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let (overlay, caller, tid) = (Arc::clone(&self.0), self.0.caller(req), req.pid());
        self.0.after_appends(ino, move || {
            match overlay.get_attributes(&caller, tid, ino) {
                Ok((node, stat)) => {
                    let (_, ttl) = overlay.lifetimes(&node, &node);
                    reply.attr(&ttl, &overlay.attributes(&stat, stat.ino));
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime: set_time(atime),
            mtime: set_time(mtime),
        };
        let node = match self.0.nodes.get(ino.0) {
            Ok(node) => node,
            Err(error) => return reply.error(errno(&error)),
        };
        let handle = fh.and_then(|fh| self.0.handles.get(fh.0).ok());
        let by_name = size.is_some() && fh.is_none();
        if by_name && self.0.rules.have_changed() && !self.0.is_up_to_date(&node) {
            // The kernel looks up the path again.
            return reply.error(Errno::ESTALE);
        }
        let denied = |rule: &Arc<Rule>| rule.update == Update::Deny;
        if size.is_some() && node.rule.as_ref().is_some_and(denied) {
            self.0.note_denied(&shown(&node.path()));
            return reply.error(Errno::EROFS);
        }
        let caller = self.0.caller(req);
        let tid = req.pid();
        let overlay = Arc::clone(&self.0);
        let changed = Arc::clone(&node);
        // A file that is locked since it was opened is truncated under that lock.
        let is_locked = handle
            .as_ref()
            .is_some_and(|handle| handle.hold.lock().is_some());
        let change = move |permitted: io::Result<Option<&Guard>>| {
            let result = permitted.and_then(|guard| {
                let assumed = overlay.credentials.assume(&caller)?;
                if size == Some(0) && changed.rule.is_some() && !is_locked {
                    overlay.check_emptying(tid, &changed)?;
                }
                let may_begin = || guard.map_or(Ok(()), Guard::may_begin);
                let handle = handle.as_deref();
                let stat = overlay
                    .change(&changed, handle, &changes, tid, may_begin)
                    .inspect_err(|error| match (guard, handle) {
                        (Some(guard), _) => guard.note_failure(error),
                        (None, Some(handle)) => handle.note_failure(error),
                        (None, None) => {}
                    })?;
                drop(assumed);
                guard.map_or(Ok(()), Guard::still_ours)?;
                if let Some(handle) = handle.filter(|_| size.is_some()) {
                    handle.lock_is_ours()?;
                }
                Ok(stat)
            });
            match result {
                Ok(stat) => {
                    let (_, ttl) = overlay.lifetimes(&changed, &changed);
                    reply.attr(&ttl, &overlay.attributes(&stat, stat.ino));
                }
                Err(error) => reply.error(errno(&error)),
            }
        };
        if size.is_some() && node.rule.is_some() && !is_locked {
            let change = move |permitted: io::Result<&Guard>| change(permitted.map(Some));
            self.0.under_lock(req, &node, change);
        } else {
            self.0.after_appends(ino, move || change(Ok(None)));
        }
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.read_link(req, ino) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let overlay = Arc::clone(&self.0);
        let answer = Box::new(move |made| answer_entry(&overlay, made, reply));
        self.0
            .make_node(req, parent, name, (mode, umask, rdev), answer);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let overlay = Arc::clone(&self.0);
        let answer = Box::new(move |made| answer_entry(&overlay, made, reply));
        self.0.make_dir(req, parent, name, (mode, umask), answer);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.0.remove(req, parent, name), reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = move |result| answer_empty(result, reply);
        self.0.remove_dir(req, parent, name, Box::new(answer));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let overlay = Arc::clone(&self.0);
        let answer = Box::new(move |made| answer_entry(&overlay, made, reply));
        self.0.make_symlink(req, parent, link_name, target, answer);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let answer = move |result| answer_empty(result, reply);
        let (from, to) = ((parent, name), (newparent, newname));
        self.0.move_name(req, from, to, flags, Box::new(answer));
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let overlay = Arc::clone(&self.0);
        let answer = Box::new(move |made| answer_entry(&overlay, made, reply));
        self.0.make_link(req, ino, newparent, newname, answer);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let overlay = Arc::clone(&self.0);
        let answer = move |opened: io::Result<Descriptor>| {
            let Descriptor {
                fh,
                handle,
                how,
                opener,
            } = match opened {
                Ok(descriptor) => descriptor,
                Err(error) => return reply.error(errno(&error)),
            };
            let fh = FileHandle(fh);
            let direct = how | FopenFlags::FOPEN_DIRECT_IO;
            match overlay.way_of(&handle, &opener, |fd| reply.open_backing(fd)) {
                Way::Asking => reply.opened(fh, how),
                Way::Through(file) => reply.opened_passthrough(fh, how, &file.id),
                Way::MappedThrough(file) => reply.opened_passthrough(fh, direct, &file.id),
            }
        };
        let waiter = self.0.waiter(req);
        if flags.0 & libc::O_ACCMODE == libc::O_WRONLY {
            return self.0.open_file(waiter, ino, flags.0, Box::new(answer));
        }
        let overlay = Arc::clone(&self.0);
        self.0.after_appends(ino, move || {
            overlay.open_file(waiter, ino, flags.0, Box::new(answer));
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let overlay = Arc::clone(&self.0);
        let answer = move |created: io::Result<(Found, Descriptor)>| {
            let (Found { parent, node, stat }, descriptor) = match created {
                Ok(created) => created,
                Err(error) => return reply.error(errno(&error)),
            };
            let ttl = overlay.lifetime(&parent, &node);
            let (attr, generation) = (
                overlay.attributes(&stat, node.id),
                Generation(node.generation),
            );
            let Descriptor {
                fh,
                handle,
                how,
                opener,
            } = descriptor;
            let fh = FileHandle(fh);
            let direct = how | FopenFlags::FOPEN_DIRECT_IO;
            match overlay.way_of(&handle, &opener, |fd| reply.open_backing(fd)) {
                Way::Asking => reply.created(&ttl, &attr, generation, fh, how),
                Way::Through(file) => {
                    reply.created_passthrough(&ttl, &attr, generation, fh, how, &file.id);
                }
                Way::MappedThrough(file) => {
                    reply.created_passthrough(&ttl, &attr, generation, fh, direct, &file.id);
                }
            }
        };
        self.0
            .create_file(req, parent, name, (mode, umask), flags, Box::new(answer));
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread_local! {
            /// What was read, on its way to the kernel. It grows to the largest read, 1 MiB.
            static DATA: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let (overlay, tid, size) = (Arc::clone(&self.0), req.pid(), size as usize);
        self.0.after_appends(ino, move || {
            DATA.with_borrow_mut(|data| {
                if data.len() < size {
                    data.resize(size, 0);
                }
                match overlay.read_file(tid, fh, offset, &mut data[..size]) {
                    Ok(len) => reply.data(&data[..len]),
                    Err(error) => reply.error(errno(&error)),
                }
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = Write {
            fh,
            offset,
            data,
            flags: flags.0,
            owner: lock_owner.map(|owner| owner.0),
            clears_set_id: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            from_memory: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        let answer = move |result: io::Result<usize>| match result {
            Ok(len) => reply.written(len as u32),
            Err(error) => reply.error(errno(&error)),
        };
        self.0.write_file(req, write, Box::new(answer));
    }

    fn flush(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let answer = move |result: io::Result<usize>| answer_empty(result.map(drop), reply);
        self.0.flush_file(req, fh, lock_owner.0, Box::new(answer));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.release_file(fh);
        reply.ok();
    }

    fn fsync(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let answer = move |result: io::Result<usize>| answer_empty(result.map(drop), reply);
        self.0.sync_file(req, fh, datasync, Box::new(answer));
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.0.open_dir(req, ino) {
            Ok((fh, flags)) => reply.opened(FileHandle(fh), flags),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.0.read_dir(req, fh, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.0.read_dir_plus(req, fh, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.release_dir(fh);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer_empty(self.0.sync(fh, datasync), reply);
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.0.stat_fs(req, ino) {
            Ok(s) => reply.statfs(
                s.f_blocks,
                s.f_bfree,
                s.f_bavail,
                s.f_files,
                s.f_ffree,
                s.f_bsize as u32,
                s.f_namelen as u32,
                s.f_frsize as u32,
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        answer_empty(self.0.set_xattr(req, ino, name, value, flags), reply);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(self.0.get_xattr(req, ino, name, size), reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(self.0.list_xattrs(req, ino, size), reply);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(self.0.remove_xattr(req, ino, name), reply);
    }

    fn access(&self, req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        answer_empty(self.0.check_access(req, ino, mask.bits()), reply);
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let handle = match self.0.handles.get(fh.0) {
            Ok(handle) => handle,
            Err(error) => return reply.error(errno(&error)),
        };
        let caller = self.0.caller(req);
        if handle.node.rule.is_none() || handle.hold.lock().is_some() {
            let result = self.0.allocate(&caller, &handle, offset, length, mode);
            return answer_empty(result, reply);
        }
        let overlay = Arc::clone(&self.0);
        let node = Arc::clone(&handle.node);
        self.0.under_lock(req, &node, move |permitted| {
            let result = permitted.and_then(|guard| {
                guard.may_begin()?;
                overlay.allocate(&caller, &handle, offset, length, mode)?;
                guard.still_ours()
            });
            answer_empty(result, reply);
        });
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let overlay = Arc::clone(&self.0);
        self.0
            .after_appends(ino, move || match overlay.seek(fh, offset, whence) {
                Ok(position) => reply.offset(position),
                Err(error) => reply.error(errno(&error)),
            });
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (overlay, caller) = (Arc::clone(&self.0), self.0.caller(req));
        let (from, to) = ((fh_in, offset_in), (fh_out, offset_out));
        self.0.after_appends(ino_in, move || {
            match overlay.copy_range(&caller, from, to, len) {
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn getlk(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let asked = Asked {
            fh,
            owner: lock_owner.0,
            range: Range { start, end },
            kind: typ,
            pid,
        };
        let answer = move |found: io::Result<Option<Lock>>| match found {
            Ok(Some(lock)) => {
                let kind = match lock.kind {
                    Kind::Shared => libc::F_RDLCK,
                    Kind::Exclusive => libc::F_WRLCK,
                };
                reply.locked(lock.range.start, lock.range.end, kind, lock.holder.pid);
            }
            Ok(None) => reply.locked(0, 0, libc::F_UNLCK, 0),
            Err(error) => reply.error(errno(&error)),
        };
        self.0.test_lock(req, &asked, Box::new(answer));
    }

    fn setlk(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let asked = Asked {
            fh,
            owner: lock_owner.0,
            range: Range { start, end },
            kind: typ,
            pid,
        };
        let answer = move |result: io::Result<()>| answer_empty(result, reply);
        self.0.set_lock(req, &asked, sleep, Box::new(answer));
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
