//! The table of inodes that the kernel knows, with exact look-up counts.
//!
//! A node of an unguarded file stands for a file below, whatever its names. A node of a guarded
//! file stands for a file *under one name*, because the lock belongs to the name.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::handles::Handle;
use super::in_force::are_alike;
use super::listings::Listing;
use crate::backing::proc_path;
use crate::config::Rule;
use crate::guard::{Key, Target, family};
use crate::lock::{Identity, RealDirectory};
use crate::sys;
use crate::sys::fs::Stat;
use crate::sys::process::boottime;

/// The node id of the root (`FUSE_ROOT_ID`).
pub const ROOT: u64 = 1;
/// How often a file may be replaced while it is being opened.
const REPLACED_AGAIN: usize = 10;
/// Where made-up node ids begin: above the inode numbers that file systems use.
const FIRST_MADE_UP: u64 = 1 << 62;

/// An inode of the mount.
#[derive(Debug)]
pub struct Node {
    /// The kernel's name for it.
    pub id: u64,
    /// Tells it apart from another inode that had the same id before.
    pub generation: u64,
    /// The file below.
    pub file: Identity,
    /// It is a directory.
    pub is_dir: bool,
    /// The rule that guards it under its name, if one does.
    pub rule: Option<Arc<Rule>>,
    /// Where it was seen last; `None` for the root.
    place: Mutex<Option<Place>>,
    /// Directories stay open (`O_PATH`), so that they are found wherever they are moved. Other
    /// files do not: NFS does not remove or replace a file that this host has open, it renames it.
    pin: Mutex<Option<Arc<OwnedFd>>>,
    /// Who has the file open.
    opens: Mutex<Opens>,
    /// How many of them the kernel keeps a page cache for.
    pub cached_opens: AtomicU32,
    /// Its name has another node: it was moved to one that is guarded, or another rule came into force.
    superseded: AtomicBool,
    /// At how many changes of the rules this was found to be no reason for another.
    pub generation_seen: AtomicU64,
    /// A size that the file had when nobody was writing to it; `u64::MAX`: not known.
    pub settled: AtomicU64,
    /// The file may have set-user-ID or set-group-ID bits, which a write must clear.
    pub set_id: AtomicBool,
    /// For directories: not everybody may search it, so the kernel must ask for each entry again.
    pub restricted: AtomicBool,
    /// For directories: the last listing, if there was one. (A box, since there are many nodes.)
    pub listing: Mutex<Option<Box<Listing>>>,
}

/// Who has a file open.
#[derive(Debug, Default)]
struct Opens {
    /// Open descriptors.
    handles: Vec<Arc<Handle>>,
    /// Those of files that were made a moment ago, and are on their way.
    coming: usize,
}

/// How a file is found.
#[derive(Debug, Clone, Copy)]
pub struct Finding {
    /// The node may have been made by another rule, which stays in force while it is open.
    pub rules_have_changed: bool,
    /// A handle is about to be entered, which will not be refused ([`Node::opened`]).
    pub to_open: bool,
}

/// A name in a directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory.
    pub parent: Arc<Node>,
    /// The name in it.
    pub name: OsString,
}

/// What makes two nodes the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct NodeKey {
    dev: u64,
    ino: u64,
    guarded_as: Option<Key>,
}

impl NodeKey {
    fn new(file: Identity, rule: Option<&Arc<Rule>>, parent: &Node, name: &OsStr) -> NodeKey {
        NodeKey {
            dev: file.dev,
            ino: file.ino,
            guarded_as: rule.map(|_| Key::new(parent.file, name.to_owned())),
        }
    }
}

impl Node {
    /// The directory and name where it was seen last.
    pub fn place(&self) -> Option<Place> {
        self.place.lock().clone()
    }

    /// The path below the root of the mount.
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut place = self.place();
        while let Some(Place { parent, name }) = place {
            names.push(name);
            place = parent.place();
        }
        names.iter().rev().collect()
    }

    /// The key of its guard, if it is guarded.
    pub fn guard_key(&self) -> Option<Key> {
        self.rule.as_ref()?;
        let place = self.place()?;
        Some(Key::new(place.parent.file, place.name))
    }

    /// A descriptor to reach the file by: of an open handle, or its own, or (`O_PATH`) a new one
    /// by its name.
    ///
    /// # Errors
    /// `ESTALE` where the name has another file now; the kernel then looks up the path again.
    pub fn reach(&self) -> io::Result<Arc<OwnedFd>> {
        self.reach_for(0)
    }

    /// The same for a thread: a program that works on a private copy reaches that, and nobody
    /// else does.
    ///
    /// # Errors
    /// Those of [`reach`](Self::reach).
    pub fn reach_for(&self, tid: u32) -> io::Result<Arc<OwnedFd>> {
        if let Some(pin) = &*self.pin.lock() {
            return Ok(Arc::clone(pin));
        }
        if let Some(handle) = self.private_of(tid) {
            return Ok(handle.fd());
        }
        // The last: it knows best what a guarded name refers to.
        let is_public = |handle: &&Arc<Handle>| handle.private.is_none();
        let open = self
            .opens
            .lock()
            .handles
            .iter()
            .rev()
            .find(is_public)
            .cloned();
        if let Some(handle) = open {
            return Ok(handle.fd());
        }
        let fd = self.open(libc::O_PATH)?;
        Ok(Arc::new(fd))
    }

    /// Opens the file below: by its name, or, where it has none any more, by way of a descriptor
    /// that is open on it.
    ///
    /// # Errors
    /// `ESTALE` where neither leads there; the kernel then looks up the path again.
    pub fn open(&self, flags: i32) -> io::Result<OwnedFd> {
        match self.open_by_name(flags) {
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {
                self.open_again(flags).ok_or(error)
            }
            other => other,
        }
    }

    fn open_by_name(&self, flags: i32) -> io::Result<OwnedFd> {
        let (fd, stat) = self.open_name(flags)?;
        if Identity::from(stat) == self.file {
            Ok(fd)
        } else {
            Err(io::Error::from_raw_os_error(libc::ESTALE))
        }
    }

    /// Opens what its name refers to, whatever that is.
    fn open_name(&self, flags: i32) -> io::Result<(OwnedFd, Stat)> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let place = self.place().ok_or_else(stale)?;
        let dir = place.parent.reach()?;
        let name = sys::c_name(&place.name)?;
        // Should a pipe have come to stand there, it must not be waited for.
        let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let fd = match sys::fs::openat(&*dir, &name, flags, 0) {
            Ok(fd) => fd,
            Err(error) => {
                return Err(match error.raw_os_error() {
                    // The kernel's knowledge is out of date.
                    Some(libc::ENOENT | libc::ELOOP | libc::ENXIO) => stale(),
                    _ => error,
                });
            }
        };
        let stat = sys::fs::statx(&fd, c"", 0)?;
        Ok((fd, stat))
    }

    /// Opens the file that a guarded name refers to now. The file that the kernel has looked up
    /// may have been replaced since, again and again; it would look only twice. A file without a
    /// name is reached as by [`open`](Self::open); so is one that a program has open, if the lock
    /// is not `held`: that program may mean its own (`/proc/PID/fd`).
    ///
    /// # Errors
    /// `ESTALE` where the name does not lead to a regular file; the kernel then looks up the path
    /// again.
    pub fn open_current(&self, flags: i32, held: bool) -> io::Result<Target> {
        let opened = boottime();
        let of_this = |fd| Target {
            fd: Arc::new(fd),
            id: self.file,
            opened,
        };
        let mut failed = io::Error::from_raw_os_error(libc::ESTALE);
        for _ in 0..REPLACED_AGAIN {
            match self.open_name(flags) {
                Ok((fd, stat)) if Identity::from(stat) == self.file => return Ok(of_this(fd)),
                Ok((fd, stat)) if stat.is_file() => {
                    if !held && let Some(fd) = self.open_again(flags) {
                        return Ok(of_this(fd));
                    }
                    return Ok(Target {
                        fd: Arc::new(fd),
                        id: stat.into(),
                        opened,
                    });
                }
                Ok(_) => break,
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) => failed = error,
                Err(error) => return Err(error),
            }
            if let Some(place) = self.place() {
                RealDirectory::new(place.parent.reach()?).revalidate()?;
            }
        }
        self.open_again(flags).map(of_this).ok_or(failed)
    }

    /// Opens the file by way of a descriptor that is open on it.
    fn open_again(&self, flags: i32) -> Option<OwnedFd> {
        let open = self.opens.lock().handles.clone();
        let handle = open.iter().find(|handle| handle.id() == self.file)?;
        let fd = handle.fd();
        sys::fs::openat(&*fd, &proc_path(&*fd), flags, 0).ok()
    }

    /// The private copy of this file that the program of a thread works on, or one of its family.
    fn private_of(&self, tid: u32) -> Option<Arc<Handle>> {
        let is_private = |handle: &&Arc<Handle>| handle.private.is_some();
        let opens = self.opens.lock();
        let private: Vec<_> = opens
            .handles
            .iter()
            .rev()
            .filter(is_private)
            .cloned()
            .collect();
        drop(opens);
        if private.is_empty() || tid == 0 {
            return None;
        }
        let pid = family::process_of(tid);
        let own = private.iter().find(|handle| handle.holder() == pid);
        let related = || {
            let is_related = |handle: &&Arc<Handle>| family::related(handle.holder(), pid);
            private.iter().find(is_related)
        };
        own.or_else(related).cloned()
    }

    /// A thread is about to change the file other than by writing: if it works on a private copy,
    /// that must be put in its place.
    pub fn changes_private_copy(&self, tid: u32) {
        if let Some(handle) = self.private_of(tid) {
            handle.written.store(true, Ordering::Release);
        }
    }

    /// Enters an open descriptor; `expected` says that it was counted as coming. Gives whether it may
    /// be there: not where the name has another node since.
    pub fn opened(&self, handle: &Arc<Handle>, expected: bool) -> bool {
        let mut opens = self.opens.lock();
        if expected {
            opens.coming -= 1;
        } else if self.is_superseded() {
            return false;
        }
        opens.handles.push(Arc::clone(handle));
        true
    }

    /// The descriptor that was counted as coming does not come.
    pub fn does_not_come(&self) {
        self.opens.lock().coming -= 1;
    }

    /// Takes a descriptor out.
    pub fn closed(&self, handle: &Arc<Handle>) {
        let mut opens = self.opens.lock();
        opens.handles.retain(|open| !Arc::ptr_eq(open, handle));
    }

    /// Whether a program has it open.
    pub fn is_open(&self) -> bool {
        !self.opens.lock().handles.is_empty()
    }

    /// Unless a program has it open, nobody can open it any more. Gives whether that is so.
    pub fn retire(&self) -> bool {
        let opens = self.opens.lock();
        let is_unused = opens.handles.is_empty() && opens.coming == 0;
        if is_unused {
            self.superseded.store(true, Ordering::Release);
        }
        is_unused
    }

    /// Whether the kernel must look up the path again before it opens this node.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Acquire)
    }
}

/// The table.
#[derive(Debug)]
pub struct Nodes {
    tables: Mutex<Tables>,
    root: Arc<Node>,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<u64, Counted>,
    by_key: HashMap<NodeKey, u64>,
    generation: u64,
    made_up: u64,
}

#[derive(Debug)]
struct Counted {
    node: Arc<Node>,
    /// How often the kernel has been told of it, less what it has forgotten.
    lookups: u64,
}

impl Nodes {
    /// A table with the root, whose directory `fd` is open on.
    pub fn new(fd: OwnedFd, stat: &Stat) -> Nodes {
        let root = Arc::new(Node {
            id: ROOT,
            generation: 0,
            file: Identity::from(*stat),
            is_dir: true,
            rule: None,
            place: Mutex::new(None),
            pin: Mutex::new(Some(Arc::new(fd))),
            opens: Mutex::default(),
            cached_opens: AtomicU32::new(0),
            superseded: AtomicBool::new(false),
            generation_seen: AtomicU64::new(0),
            settled: AtomicU64::new(u64::MAX),
            set_id: AtomicBool::new(false),
            restricted: AtomicBool::new(true),
            listing: Mutex::default(),
        });
        let mut tables = Tables::default();
        // The kernel never forgets the root.
        let counted = Counted {
            node: Arc::clone(&root),
            lookups: u64::MAX / 2,
        };
        tables.by_id.insert(ROOT, counted);
        Nodes {
            tables: Mutex::new(tables),
            root,
        }
    }

    /// The root.
    pub fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// Waits until nobody has the table locked.
    pub fn take_lock(&self) {
        drop(self.tables.lock());
    }

    /// The node with this id.
    ///
    /// # Errors
    /// `ESTALE` where there is none (the kernel does not ask for such).
    pub fn get(&self, id: u64) -> io::Result<Arc<Node>> {
        let tables = self.tables.lock();
        let counted = tables.by_id.get(&id);
        counted
            .map(|counted| Arc::clone(&counted.node))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    /// All nodes but those of directories.
    pub fn files(&self) -> Vec<Arc<Node>> {
        let tables = self.tables.lock();
        let nodes = tables.by_id.values().map(|counted| &counted.node);
        nodes.filter(|node| !node.is_dir).cloned().collect()
    }

    /// The file `stat` was found under `name` in `parent`: gives its node, made where there is
    /// none, and counts one look-up. A file that is in use under another rule keeps that. `pin` opens a directory that gets a new node.
    pub fn found(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        stat: &Stat,
        (rule, how): (Option<&Arc<Rule>>, Finding),
        pin: impl FnOnce() -> Option<OwnedFd>,
    ) -> Arc<Node> {
        let file = Identity::from(*stat);
        let key = NodeKey::new(file, rule, parent, name);
        // Opened without holding the table, since the server may take its time. A directory that
        // is known is opened again: it may be another one, that was made elsewhere in place of
        // the known one and got its inode number.
        let pin = if stat.is_dir() {
            pin().map(Arc::new)
        } else {
            None
        };
        let mut tables = self.tables.lock();
        let changed = how.rules_have_changed && stat.is_file();
        let used = changed.then(|| tables.used_by_another_rule(&key, rule, (parent, name)));
        let key = used.flatten().unwrap_or(key);
        if let Some(node) = tables.count(&key) {
            if how.to_open {
                node.opens.lock().coming += 1;
            }
            drop(tables);
            if pin.is_some() {
                *node.pin.lock() = pin;
            }
            node.update(parent, name, stat);
            return node;
        }
        tables.generation += 1;
        let node = Arc::new(Node {
            id: tables.free_id(file.ino),
            generation: tables.generation,
            file,
            is_dir: stat.is_dir(),
            rule: rule.cloned(),
            place: Mutex::new(Some(Place {
                parent: Arc::clone(parent),
                name: name.to_owned(),
            })),
            pin: Mutex::new(pin),
            opens: Mutex::default(),
            cached_opens: AtomicU32::new(0),
            superseded: AtomicBool::new(false),
            generation_seen: AtomicU64::new(0),
            settled: AtomicU64::new(u64::MAX),
            set_id: AtomicBool::new(has_set_id(stat)),
            restricted: AtomicBool::new(true),
            listing: Mutex::default(),
        });
        if how.to_open {
            node.opens.lock().coming += 1;
        }
        tables.by_key.insert(key, node.id);
        let counted = Counted {
            node: Arc::clone(&node),
            lookups: 1,
        };
        tables.by_id.insert(node.id, counted);
        node
    }

    /// The kernel has forgotten `count` look-ups of a node.
    pub fn forget(&self, id: u64, count: u64) {
        let mut tables = self.tables.lock();
        let Some(counted) = tables.by_id.get_mut(&id) else {
            return;
        };
        counted.lookups = counted.lookups.saturating_sub(count);
        if counted.lookups > 0 || id == ROOT {
            return;
        }
        let forgotten = tables.by_id.remove(&id);
        if let Some(Counted { node, .. }) = &forgotten {
            tables.remove_key(node);
        }
        let shrunk = tables.shrink();
        // Dropped without the table, since a directory is closed with it.
        drop(tables);
        drop(forgotten);
        if shrunk {
            sys::process::trim_memory();
        }
    }

    /// The file `file` was moved from one name to another through this mount.
    pub fn moved(
        &self,
        file: Identity,
        from: (&Arc<Node>, &OsStr),
        to: (&Arc<Node>, &OsStr),
        rule: Option<&Arc<Rule>>,
    ) {
        let place = Place {
            parent: Arc::clone(to.0),
            name: to.1.to_owned(),
        };
        let plain = NodeKey {
            dev: file.dev,
            ino: file.ino,
            guarded_as: None,
        };
        let guarded = |(parent, name): (&Arc<Node>, &OsStr)| NodeKey {
            guarded_as: Some(Key::new(parent.file, name.to_owned())),
            ..plain.clone()
        };
        let mut tables = self.tables.lock();
        if let Some(node) = tables.node(&plain) {
            *node.place.lock() = Some(place.clone());
            if rule.is_some() {
                tables.supersede(&node, &plain);
            }
        }
        let (before, after) = (guarded(from), guarded(to));
        let Some(node) = tables.node(&before) else {
            return;
        };
        let same_rule = rule.is_some() && are_alike(node.rule.as_ref(), rule);
        if !same_rule {
            *node.place.lock() = Some(place);
            tables.supersede(&node, &before);
        } else if !tables.by_key.contains_key(&after) {
            *node.place.lock() = Some(place);
            tables.by_key.remove(&before);
            tables.by_key.insert(after, node.id);
        }
    }
}

impl Tables {
    fn count(&mut self, key: &NodeKey) -> Option<Arc<Node>> {
        let id = self.by_key.get(key)?;
        let counted = self.by_id.get_mut(id)?;
        if counted.node.is_superseded() {
            // It was retired, and is never opened again.
            self.by_key.remove(key);
            return None;
        }
        counted.lookups += 1;
        Some(Arc::clone(&counted.node))
    }

    /// The key of a node that the file has under this name by another rule than `rule`, while that is
    /// open. Those that are not are retired. `key` is the one by `rule`.
    fn used_by_another_rule(
        &mut self,
        key: &NodeKey,
        rule: Option<&Arc<Rule>>,
        (parent, name): (&Arc<Node>, &OsStr),
    ) -> Option<NodeKey> {
        let plain = NodeKey {
            guarded_as: None,
            ..key.clone()
        };
        let guarded = NodeKey {
            guarded_as: Some(Key::new(parent.file, name.to_owned())),
            ..key.clone()
        };
        for key in [guarded, plain] {
            let Some(node) = self.node(&key) else {
                continue;
            };
            // A file that is not guarded may have been found by another name, which is not.
            let is_of_name = node
                .place()
                .is_some_and(|place| Arc::ptr_eq(&place.parent, parent) && place.name == name);
            if !is_of_name || are_alike(node.rule.as_ref(), rule) {
                continue;
            }
            if !node.retire() {
                return Some(key);
            }
            self.by_key.remove(&key);
        }
        None
    }

    fn node(&self, key: &NodeKey) -> Option<Arc<Node>> {
        let id = self.by_key.get(key)?;
        Some(Arc::clone(&self.by_id.get(id)?.node))
    }

    /// The name under which the kernel knows the node has a node of another kind from now on.
    fn supersede(&mut self, node: &Node, key: &NodeKey) {
        node.superseded.store(true, Ordering::Release);
        self.by_key.remove(key);
    }

    /// A node id: the inode number of the file below where that is free, else a made-up one.
    fn free_id(&mut self, ino: u64) -> u64 {
        if ino > ROOT && !self.by_id.contains_key(&ino) {
            return ino;
        }
        loop {
            self.made_up += 1;
            let id = FIRST_MADE_UP + self.made_up;
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    fn remove_key(&mut self, node: &Node) {
        let plain = NodeKey {
            dev: node.file.dev,
            ino: node.file.ino,
            guarded_as: None,
        };
        let key = match node.guard_key() {
            Some(key) => NodeKey {
                guarded_as: Some(key),
                ..plain
            },
            None => plain,
        };
        if self.by_key.get(&key) == Some(&node.id) {
            self.by_key.remove(&key);
        }
    }

    /// Makes the tables smaller after many nodes were forgotten; gives whether it did.
    fn shrink(&mut self) -> bool {
        let sparse = self.by_id.capacity() > 4096 && self.by_id.len() < self.by_id.capacity() / 8;
        if sparse {
            self.by_id.shrink_to(self.by_id.len() * 2);
            self.by_key.shrink_to(self.by_key.len() * 2);
        }
        sparse
    }
}

impl Node {
    fn update(&self, parent: &Arc<Node>, name: &OsStr, stat: &Stat) {
        self.set_id.store(has_set_id(stat), Ordering::Relaxed);
        let mut place = self.place.lock();
        let same = place
            .as_ref()
            .is_some_and(|place| Arc::ptr_eq(&place.parent, parent) && place.name == name);
        if !same && self.id != ROOT {
            *place = Some(Place {
                parent: Arc::clone(parent),
                name: name.to_owned(),
            });
        }
    }
}

/// Whether the mode has bits that a write clears.
pub fn has_set_id(stat: &Stat) -> bool {
    stat.is_file() && stat.mode & (libc::S_ISUID | libc::S_ISGID) != 0
}

/// A name for messages.
pub fn label(parent: &Node, name: &OsStr) -> String {
    let path = parent.path().join(OsStr::from_bytes(name.as_bytes()));
    crate::config::error::shown(&path)
}
