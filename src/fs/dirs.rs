//! Reading directories. Positions are those of the file system below, so they stay right while
//! entries come and go.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus,
    Request,
};
use parking_lot::Mutex;

use super::Overlay;
use super::attr::{entry_attr, file_type};
use super::handles::{Handle, Open};
use super::listings::{Listing, Use};
use super::nodes::Node;
use super::vacate::{Reply, Vacate};
use crate::backing::{Caller, proc_path};
use crate::lock::names::is_hidden;
use crate::lock::{self, Owner};
use crate::sys;
use crate::sys::dirents;
use crate::sys::fs::Stat;
use crate::sys::process::boottime;

/// An open directory.
#[derive(Debug)]
pub struct DirStream {
    fd: Arc<OwnedFd>,
    state: Mutex<State>,
    /// What the kernel does with it.
    used: Use,
    /// Something was told of it that may not be so: it could not be looked at, or not by this user.
    doubtful: AtomicBool,
}

/// What has been read ahead.
#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    /// How much of the buffer has been handed over.
    used: usize,
    /// The position behind what has been handed over.
    position: u64,
}

impl DirStream {
    /// A stream that begins at the beginning of the directory.
    pub fn new(fd: OwnedFd, used: Use) -> DirStream {
        DirStream {
            fd: Arc::new(fd),
            state: Mutex::default(),
            used,
            doubtful: AtomicBool::new(false),
        }
    }

    fn set_doubtful(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// The descriptor below.
    pub fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Hands the entries from `position` on that nobody `hides` to `take`, until it refuses one
    /// (`false`) or the directory ends.
    fn read(
        &self,
        position: u64,
        hides: impl Fn(&[u8]) -> bool,
        mut take: impl FnMut(&dirents::Entry<'_>) -> bool,
    ) -> io::Result<()> {
        let mut state = self.state.lock();
        let State {
            buffer,
            used,
            position: at,
        } = &mut *state;
        if position != *at || position == 0 {
            sys::fs::lseek(&*self.fd, position as i64, libc::SEEK_SET)?;
            buffer.clear();
            *used = 0;
            *at = position;
        }
        loop {
            for entry in dirents::entries(&buffer[*used..]) {
                if !hides(entry.name) && !take(&entry) {
                    return Ok(());
                }
                *used += entry.len;
                *at = entry.next;
            }
            buffer.resize(32 * 1024, 0);
            *used = 0;
            let len = sys::fs::getdents(&*self.fd, buffer)?;
            buffer.truncate(len);
            if len == 0 {
                return Ok(());
            }
        }
    }
}

/// The type behind `d_type`; `None` where the file system does not tell.
fn entry_type(kind: u8) -> Option<FileType> {
    // DT_* are the S_IFMT bits, shifted (inode(7), readdir(3)).
    (kind != libc::DT_UNKNOWN).then(|| file_type(u32::from(kind) << 12))
}

impl Overlay {
    pub(super) fn open_dir(&self, req: &Request, ino: INodeNo) -> io::Result<(u64, FopenFlags)> {
        let node = self.nodes.get(ino.0)?;
        let _assumed = self.assume(req)?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        // By way of /proc: "." would take the right to search the directory, not only to read it.
        let dir = node.reach()?;
        let fd = sys::fs::openat(&*dir, &proc_path(&*dir), flags, 0)?;
        let used = self.listing_at_open(&node, &fd).unwrap_or(Use::Once);
        let open = Open::Dir(DirStream::new(fd, used));
        let handle = Arc::new(Handle::new(node, flags, open));
        Ok((self.handles.insert(handle, false, false)?, used.flags()))
    }

    pub(super) fn release_dir(&self, fh: FileHandle) {
        let Some(handle) = self.handles.remove(fh.0) else {
            return;
        };
        if let Open::Dir(stream) = &handle.open
            && let Some(listing) = &mut *handle.node.listing.lock()
        {
            let sound = !stream.doubtful.load(Ordering::Relaxed);
            listing.at_release(stream.used, sound);
        }
    }

    /// Whether the kernel may keep the listing of a directory, and use what it has kept.
    fn listing_at_open(&self, node: &Node, fd: &OwnedFd) -> io::Result<Use> {
        let dev = node.file.dev;
        if !self.kinds.tells_of_changes(dev, fd)? {
            return Ok(Use::Once);
        }
        let is_local = self.kinds.is_local(dev, fd)?;
        let stat = sys::fs::statx(fd, c"", 0)?;
        let clock = is_local.then(SystemTime::now);
        let mut last = node.listing.lock();
        let (listing, used) = Listing::at_open(last.as_deref().copied(), &stat, boottime(), clock);
        *last = Some(Box::new(listing));
        Ok(used)
    }

    pub(super) fn read_dir(
        &self,
        req: &Request,
        fh: FileHandle,
        position: u64,
        reply: &mut ReplyDirectory,
    ) -> io::Result<()> {
        let handle = self.handles.get(fh.0)?;
        let Open::Dir(stream) = &handle.open else {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        };
        let caller = self.caller(req);
        let hides = |name: &[u8]| self.hides(&caller, stream, name);
        stream.read(position, hides, |entry| {
            let known = entry_type(entry.kind);
            let kind = known.unwrap_or_else(|| self.kind_of(&caller, stream, entry.name));
            let name = OsStr::from_bytes(entry.name);
            !reply.add(INodeNo(entry.ino), entry.next, kind, name)
        })
    }

    pub(super) fn read_dir_plus(
        &self,
        req: &Request,
        fh: FileHandle,
        position: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> io::Result<()> {
        let handle = self.handles.get(fh.0)?;
        let Open::Dir(stream) = &handle.open else {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        };
        let caller = self.caller(req);
        let mut first = true;
        let hides = |name: &[u8]| self.hides(&caller, stream, name);
        stream.read(position, hides, |entry| {
            let name = OsStr::from_bytes(entry.name);
            let mut add = |ttl: Duration, attr, generation| {
                reply.add(
                    INodeNo(entry.ino),
                    entry.next,
                    name,
                    &ttl,
                    &attr,
                    Generation(generation),
                )
            };
            if entry.name == b"." || entry.name == b".." {
                // The kernel looks at the number and the type of these two only.
                let kind = FileType::Directory;
                first = false;
                return !add(Duration::ZERO, entry_attr(entry.ino, kind), 0);
            }
            let (found, ttl) = self.find_listed(&caller, &handle.node, name);
            let Ok((node, stat)) = found else {
                // It was removed meanwhile; or cannot be reached just now, which must not be kept.
                stream.set_doubtful();
                return true;
            };
            // The kernel shows the node id as the inode number here. It takes the rest of the
            // directory without attributes, that is, with the true number.
            let full = (node.id != stat.ino && !first)
                || add(ttl, self.attributes(&stat, node.id), node.generation);
            first = false;
            if full {
                self.nodes.forget(node.id, 1);
            }
            !full
        })
    }

    /// Finds an entry of a listing, and tells how long the kernel may use it. Who may read a
    /// directory, but not search it, sees the names all the same.
    fn find_listed(
        &self,
        caller: &Caller,
        dir: &Arc<Node>,
        name: &OsStr,
    ) -> (io::Result<(Arc<Node>, Stat)>, Duration) {
        let assumed = self.credentials.assume(caller);
        match assumed.and_then(|_assumed| self.find(dir, name, false)) {
            Ok((node, stat)) => {
                let ttl = self.lifetime(dir, &node);
                (Ok((node, stat)), ttl)
            }
            Err(_) => (self.find(dir, name, false), Duration::ZERO),
        }
    }

    /// The type of a name, where the directory does not tell.
    fn kind_of(&self, caller: &Caller, stream: &DirStream, name: &[u8]) -> FileType {
        let look = || {
            let name = sys::c_name(OsStr::from_bytes(name))?;
            sys::fs::statx(&*stream.fd, &name, 0)
        };
        match self.as_either(caller, look) {
            Ok(stat) => file_type(stat.mode),
            Err(_) => {
                stream.set_doubtful();
                FileType::RegularFile
            }
        }
    }

    /// Whether a name is there for the lock protocol only.
    fn hides(&self, caller: &Caller, stream: &DirStream, name: &[u8]) -> bool {
        is_of_protocol_by(name, || {
            let look = || is_claim(&stream.fd, name);
            self.as_either(caller, look)
                .inspect_err(|_| stream.set_doubtful())
        })
    }

    /// Looks at an entry of a listing as the caller, and else as ourselves: who may read a directory,
    /// but not search it, sees the names all the same; and we may have less of a right than the
    /// caller, on NFS.
    fn as_either<T>(&self, caller: &Caller, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let assumed = self.credentials.assume(caller);
        assumed.and_then(|_assumed| look()).or_else(|_| look())
    }

    /// Removes a directory.
    pub(super) fn remove_dir(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: Reply,
    ) {
        let (parent, c_name) = match self.name_to_use(parent, name) {
            Ok(names) => names,
            Err(error) => return reply(Err(error)),
        };
        let overlay = Arc::clone(self);
        let attempt = move |parent: &Arc<Node>, name: &CStr| {
            sys::fs::unlinkat(&*parent.reach()?, name, libc::AT_REMOVEDIR)?;
            overlay.note_no_lock_file(parent, OsStr::from_bytes(name.to_bytes()));
            Ok(())
        };
        let vacate = Vacate::new(self.waiter(req), parent, c_name, Box::new(attempt));
        vacate.run(self, reply);
    }
}

/// Whether a name in a directory is there for the lock protocol only: one of its hidden names, or
/// an `X.lock` that is another name of a claim.
pub(super) fn is_of_protocol(dir: &OwnedFd, name: &[u8]) -> bool {
    is_of_protocol_by(name, || is_claim(dir, name))
}

/// The same, where `look` tells of an `X.lock` whether it is another name of a claim. Nothing else need
/// be looked at.
fn is_of_protocol_by(name: &[u8], look: impl FnOnce() -> io::Result<bool>) -> bool {
    // One that is gone by now was there for the moment of a turn, or might as well have been.
    let looks_so = || look().unwrap_or_else(|error| error.kind() == io::ErrorKind::NotFound);
    is_hidden(name) || (name.ends_with(b".lock") && looks_so())
}

/// Whether a name is another name of a claim.
fn is_claim(dir: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let name = sys::c_name(OsStr::from_bytes(name))?;
    let stat = sys::fs::statx(dir, &name, 0)?;
    if !stat.is_file() || stat.nlink < 2 {
        return Ok(false);
    }
    let text = lock::directory::read_record(dir, &name)?;
    Ok(Owner::parse(&text).is_some())
}
