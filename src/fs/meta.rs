//! Attributes, extended attributes, permissions.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::{FileAttr, FileHandle, INodeNo, Request};

use super::Overlay;
use super::attr::file_attr;
use super::handles::{Handle, Open};
use super::nodes::{Node, has_set_id};
use crate::backing::{Caller, Kind, proc_path};
use crate::lock::{LockNames, RealDirectory, part};
use crate::sys;
use crate::sys::fs::{SetTime, Stat};

/// The extended attribute, in no list, by which a mount tells the process that serves it, and the
/// descriptor that this process has open on the directory below: two decimal numbers with a blank
/// between them. Every file of the mount has it.
pub const DAEMON: &str = "user.dotlockfs.daemon";

/// The longest list of names of extended attributes (`XATTR_LIST_MAX` of linux/limits.h).
const XATTR_LIST_MAX: usize = 65536;

/// How often the size of a file is asked for again when it changes while we look: with others
/// writing all the time it is never the same twice, and long writes are announced anyway.
const SETTLE_LOOKS: usize = 3;

/// Attributes to set; what is `None` or `Omit` stays.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: SetTime,
    pub mtime: SetTime,
}

impl Changes {
    fn is_empty(&self) -> bool {
        let times = (self.atime, self.mtime);
        times == (SetTime::Omit, SetTime::Omit) && self.mode.is_none() && self.size.is_none()
    }
}

impl Overlay {
    /// Attributes in the form that the kernel is told, under the inode number `ino`.
    ///
    /// In a user namespace that knows only the user and one group the kernel lets nobody change a
    /// file, or make one in a directory, that belongs to others: it could not write their ids
    /// back. It is we who write them, so such a file is shown as the user's own. Nothing rests on
    /// that: whether the user may is decided below.
    pub(super) fn attributes(&self, stat: &Stat, ino: u64) -> FileAttr {
        let mut attributes = file_attr(stat, ino);
        if let Some(ids) = self.only_ids {
            attributes.uid = ids.uid;
            attributes.gid = ids.gid;
        }
        attributes
    }

    /// The attributes of a node; of a guarded one as the server has them now.
    pub(super) fn stat(&self, node: &Node, tid: u32) -> io::Result<Stat> {
        let flags = if node.rule.is_some() {
            libc::AT_STATX_FORCE_SYNC
        } else {
            0
        };
        let look = || sys::fs::statx(&*node.reach_for(tid)?, c"", flags);
        let stat = match node.guard_key().and_then(|key| self.guards.find(&key)) {
            Some(guard) => {
                let look = || self.settled(node, look()?, &look);
                let (mut stat, limit) = guard.visible.watch(node.file, look)?;
                stat.size = limit.map_or(stat.size, |limit| stat.size.min(limit));
                stat
            }
            None => self.settled(node, look()?, &look)?,
        };
        node.set_id.store(has_set_id(&stat), Ordering::Relaxed);
        if stat.is_dir() && self.many_users {
            node.restricted
                .store(self.is_restricted(node, &stat), Ordering::Relaxed);
        }
        Ok(stat)
    }

    /// The attributes of a file that a program has open, without what another host is writing to
    /// it at this moment. Costs nothing while the size stays the same.
    fn settled(
        &self,
        node: &Node,
        mut stat: Stat,
        look: &impl Fn() -> io::Result<Stat>,
    ) -> io::Result<Stat> {
        if node.rule.is_none() || !node.is_open() || self.kind_of_file(node)? != Kind::Nfs {
            return Ok(stat);
        }
        let Some(place) = node.place() else {
            return Ok(stat);
        };
        let dir = RealDirectory::new(place.parent.reach()?);
        let names = LockNames::new(&place.name);
        for _ in 0..SETTLE_LOOKS {
            if stat.size == 0 || stat.size == node.settled.load(Ordering::Acquire) {
                break;
            }
            // A sign that cannot be looked for is none: whoever has inherited a descriptor may have
            // no right to the directory.
            if let Ok(Some(start)) = part::look(&dir, &names) {
                stat.size = stat.size.min(start);
                break;
            }
            // Had a long write been under way when we looked first, and ended since, the size
            // would be another one now.
            let again = look()?;
            if again.size == stat.size {
                node.settled.store(stat.size, Ordering::Release);
            }
            stat = again;
        }
        Ok(stat)
    }

    /// How much of a guarded file may be shown while a batch is being written to it.
    pub(super) fn visible_limit(&self, node: &Node) -> Option<u64> {
        let guard = self.guards.find(&node.guard_key()?)?;
        guard.visible.limit(node.file)
    }

    pub(super) fn get_attributes(
        &self,
        caller: &Caller,
        tid: u32,
        ino: INodeNo,
    ) -> io::Result<(Arc<Node>, Stat)> {
        let node = self.nodes.get(ino.0)?;
        let _assumed = self.credentials.assume(caller)?;
        let stat = self.stat(&node, tid)?;
        Ok((node, stat))
    }

    /// Makes the changes, with the credentials of the moment, in the order in which the kernel
    /// makes them for one call: what can be refused for lack of rights first. `may_begin` is asked
    /// once it is known which file they are for.
    pub(super) fn change(
        &self,
        node: &Node,
        handle: Option<&Handle>,
        changes: &Changes,
        tid: u32,
        may_begin: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Stat> {
        let file = node.reach_for(tid)?;
        let changes = &self.without_ids_shown(&file, *changes)?;
        may_begin()?;
        node.changes_private_copy(tid);
        let _forget = self.forgets_look_of(node);
        let path = proc_path(&*file);
        // Not even a chown(2) that changes nothing is without effect: it clears set-user-ID bits.
        // The kernel sends the same before a write that must clear them, for whoever writes, but
        // then the write comes with a flag for it.
        let clears = changes.is_empty() && owns(&file)?;
        if changes.uid.is_some() || changes.gid.is_some() || clears {
            let keep = u32::MAX;
            sys::fs::chown(
                &*file,
                changes.uid.unwrap_or(keep),
                changes.gid.unwrap_or(keep),
            )?;
        }
        if let Some(size) = changes.size {
            if let Some(handle) = handle {
                handle.may_change()?;
            }
            let cut = match handle.filter(|handle| handle.is_writable()) {
                // The right to do so came with opening it.
                Some(handle) => sys::fs::ftruncate(&*handle.fd(), size),
                None => sys::fs::truncate(&path, size),
            };
            self.guards
                .note_writer(sys::fs::statx(&*file, c"", libc::AT_STATX_DONT_SYNC)?.into());
            cut?;
        }
        if let Some(mode) = changes.mode {
            sys::fs::chmod(&path, mode & 0o7777)?;
        }
        if (changes.atime, changes.mtime) != (SetTime::Omit, SetTime::Omit) {
            sys::fs::set_times(&*file, changes.atime, changes.mtime)?;
        }
        self.stat(node, tid)
    }

    /// Leaves out an owner or a group that is only shown: a program that sets what it sees, as
    /// `cp -p` does, does not mean to change it.
    fn without_ids_shown(&self, file: &OwnedFd, mut changes: Changes) -> io::Result<Changes> {
        if self.only_ids.is_some() && (changes.uid.is_some() || changes.gid.is_some()) {
            let stat = sys::fs::statx(file, c"", 0)?;
            // The namespace knows no others, so what is set is what is shown.
            changes.uid = changes.uid.filter(|uid| *uid == stat.uid);
            changes.gid = changes.gid.filter(|gid| *gid == stat.gid);
        }
        Ok(changes)
    }

    pub(super) fn get_xattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
    ) -> io::Result<Xattr> {
        if name == DAEMON {
            return self.daemon(size);
        }
        let name = sys::c_name(name)?;
        self.with_path(req, ino, |path| {
            read_xattr(size, |buffer| sys::fs::getxattr(path, &name, buffer))
        })
    }

    /// Where the directory below the mount is to be found.
    fn daemon(&self, size: u32) -> io::Result<Xattr> {
        let root = self.nodes.root().reach()?;
        let text = format!("{} {}", std::process::id(), root.as_raw_fd());
        match size as usize {
            0 => Ok(Xattr::Size(text.len() as u32)),
            size if size < text.len() => Err(io::Error::from_raw_os_error(libc::ERANGE)),
            _ => Ok(Xattr::Value(text.into_bytes())),
        }
    }

    pub(super) fn list_xattrs(&self, req: &Request, ino: INodeNo, size: u32) -> io::Result<Xattr> {
        if req.uid() == 0 || sys::creds::euid() != 0 {
            return self.with_path(req, ino, |path| {
                read_xattr(size, |buffer| sys::fs::listxattr(path, buffer))
            });
        }
        // The list shows `trusted.` names to whoever has CAP_SYS_ADMIN, which this thread keeps
        // while it acts as a user.
        let names = self.with_path(req, ino, |path| {
            let mut names = vec![0; XATTR_LIST_MAX];
            let len = sys::fs::listxattr(path, &mut names)?;
            names.truncate(len);
            Ok(names)
        })?;
        let shown: Vec<u8> = names
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| !name.starts_with(b"trusted."))
            .flatten()
            .copied()
            .collect();
        match size as usize {
            0 => Ok(Xattr::Size(shown.len() as u32)),
            size if size < shown.len() => Err(io::Error::from_raw_os_error(libc::ERANGE)),
            _ => Ok(Xattr::Value(shown)),
        }
    }

    pub(super) fn set_xattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> io::Result<()> {
        let name = sys::c_name(name)?;
        let node = self.nodes.get(ino.0)?;
        node.changes_private_copy(req.pid());
        let _forget = self.forgets_look_of(&node);
        self.with_path(req, ino, |path| {
            sys::fs::setxattr(path, &name, value, flags)
        })
    }

    pub(super) fn remove_xattr(&self, req: &Request, ino: INodeNo, name: &OsStr) -> io::Result<()> {
        let name = sys::c_name(name)?;
        let node = self.nodes.get(ino.0)?;
        node.changes_private_copy(req.pid());
        let _forget = self.forgets_look_of(&node);
        self.with_path(req, ino, |path| sys::fs::removexattr(path, &name))
    }

    fn with_path<T>(
        &self,
        req: &Request,
        ino: INodeNo,
        call: impl FnOnce(&std::ffi::CStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let node = self.nodes.get(ino.0)?;
        let _assumed = self.assume(req)?;
        call(&proc_path(&*node.reach_for(req.pid())?))
    }

    pub(super) fn check_access(&self, req: &Request, ino: INodeNo, mask: i32) -> io::Result<()> {
        let node = self.nodes.get(ino.0)?;
        let _assumed = self.assume(req)?;
        sys::fs::access(&*node.reach()?, mask)
    }

    pub(super) fn read_link(&self, req: &Request, ino: INodeNo) -> io::Result<Vec<u8>> {
        let node = self.nodes.get(ino.0)?;
        let _assumed = self.assume(req)?;
        sys::fs::readlink(&*node.reach()?)
    }

    pub(super) fn stat_fs(&self, req: &Request, ino: INodeNo) -> io::Result<libc::statfs> {
        let node = self.nodes.get(ino.0)?;
        let _assumed = self.assume(req)?;
        sys::fs::fstatfs(&*node.reach()?)
    }

    /// Makes what was written through a handle durable.
    pub(super) fn sync(&self, fh: FileHandle, data_only: bool) -> io::Result<()> {
        let handle = self.handles.get(fh.0)?;
        match &handle.open {
            Open::File(_) | Open::Guarded(_) => {
                let synced = sys::fs::fsync(&*handle.fd(), data_only);
                if let (Err(_), Some(private)) = (&synced, &handle.private) {
                    private.abandon();
                }
                synced
            }
            Open::Dir(stream) => sys::fs::fsync(&*stream.fd(), data_only),
            // Every append was durable before it was answered.
            Open::Append(_) => Ok(()),
        }
    }
}

/// Whether this thread acts as the owner of a file, or as root.
fn owns(file: &OwnedFd) -> io::Result<bool> {
    let uid = sys::creds::fsuid();
    Ok(uid == 0 || uid == sys::fs::statx(file, c"", 0)?.uid)
}

/// The answer to a question for an extended attribute.
pub(super) enum Xattr {
    /// It has this size.
    Size(u32),
    /// This is it.
    Value(Vec<u8>),
}

fn read_xattr(size: u32, call: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<Xattr> {
    let mut value = vec![0; size as usize];
    let len = call(&mut value)?;
    if size == 0 {
        return Ok(Xattr::Size(len as u32));
    }
    value.truncate(len);
    Ok(Xattr::Value(value))
}
