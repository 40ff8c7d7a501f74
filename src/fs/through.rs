//! Passthrough: the kernel reads and writes a file below by itself, without asking us.
//!
//! It does so for files that are not guarded (Linux 6.9, as root). The kernel decides by inode:
//! while one descriptor of it goes through, each other must, by the same registration
//! (`BackingId`); and while one goes by the kernel's own page cache, none may. So the first to open
//! a file decides for those who come while it is open. A node of the mount is an inode of the
//! kernel, and a guarded name has a node of its own, so a file with two names, one of them guarded,
//! takes no part of this by the guarded one.
//!
//! Beside it one other way is allowed: reads and writes come to us, and only memory that is mapped
//! is the file's own (`FOPEN_DIRECT_IO`). That is for descriptors of which the kernel would make
//! something else than a local disk does:
//!
//! - The kernel opens the file below with the flags that the program gave, and does not hear that
//!   `O_APPEND` or `O_DIRECT` are taken back later (`F_SETFL` of fcntl(2); `dd oflag=direct` does
//!   that before its last, short block).
//! - It writes with the rights of whoever registered the file. Root may leave set-user-ID bits on
//!   what it writes to, users may not; so nobody writes by another's registration.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use fuser::{BackingId, InitFlags, KernelConfig};

use super::Overlay;
use super::handles::{Handle, Open};
use crate::backing::Caller;
use crate::sys;

/// A file that the kernel reads and writes by itself.
#[derive(Debug)]
pub struct Registered {
    /// Its number in the kernel, which is given back when this is dropped.
    pub id: BackingId,
    /// As whom it was registered.
    by: Caller,
}

/// How the kernel does what a program does with a descriptor.
#[derive(Debug, Clone)]
pub enum Way {
    /// It asks us.
    Asking,
    /// It does it by itself.
    Through(Arc<Registered>),
    /// It asks us to read and to write; what is mapped is the file's own memory.
    MappedThrough(Arc<Registered>),
}

/// The files that are open and not guarded, by node id.
#[derive(Debug, Default)]
pub struct Through {
    /// The kernel offers it, and it was asked for.
    enabled: AtomicBool,
    open: DashMap<u64, OpenFile>,
    /// File systems, by device number, of which the kernel has refused a file.
    refused: DashMap<u64, ()>,
}

#[derive(Debug)]
struct OpenFile {
    descriptors: usize,
    registered: Option<Arc<Registered>>,
}

impl Through {
    /// Whether files may be registered.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// From now on files may be registered.
    pub fn enable(&self) {
        self.enabled.store(true, Ordering::Release);
    }

    /// A descriptor of the file that `handle` has open is about to be handed over; gives its way.
    /// Counts it, until [`closed`](Self::closed). `register` is asked where nobody has the file
    /// open and it may go through.
    fn opened(
        &self,
        handle: &Handle,
        by: &Caller,
        may: bool,
        register: impl FnOnce() -> io::Result<BackingId>,
    ) -> Way {
        let join = |open: &mut OpenFile| {
            open.descriptors += 1;
            open.registered.clone()
        };
        if let Some(mut open) = self.open.get_mut(&handle.node.id) {
            let registered = join(&mut open);
            drop(open);
            return way(handle, by, registered);
        }
        // Without the table, since the kernel is asked; should somebody be faster, that counts.
        let own = may.then(|| self.register(handle, by, register)).flatten();
        let registered = match self.open.entry(handle.node.id) {
            Entry::Occupied(mut open) => join(open.get_mut()),
            Entry::Vacant(place) => {
                place.insert(OpenFile {
                    descriptors: 1,
                    registered: own.clone(),
                });
                own
            }
        };
        way(handle, by, registered)
    }

    fn register(
        &self,
        handle: &Handle,
        by: &Caller,
        register: impl FnOnce() -> io::Result<BackingId>,
    ) -> Option<Arc<Registered>> {
        let by = by.clone();
        match register() {
            Ok(id) => Some(Arc::new(Registered { id, by })),
            Err(error) => {
                log::debug!(
                    "{}: the kernel does not pass it through: {error}",
                    handle.node.path().display()
                );
                if is_lasting(&error) {
                    self.refused.insert(handle.node.file.dev, ());
                }
                None
            }
        }
    }

    /// A descriptor was closed.
    pub fn closed(&self, handle: &Handle) {
        if !is_concerned(handle) || self.open.is_empty() {
            return;
        }
        let last = self.open.remove_if_mut(&handle.node.id, |_, open| {
            open.descriptors = open.descriptors.saturating_sub(1);
            open.descriptors == 0
        });
        // Here the registration ends, without the table.
        drop(last);
    }
}

/// Whether a refusal is of all files of a file system: one that lies on another file system
/// itself (overlayfs, FUSE with passthrough), or a right that we do not have.
fn is_lasting(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::ENOMEM | libc::ENFILE | libc::EMFILE | libc::EINTR | libc::EBADF)
    )
}

/// Whether a descriptor is of a file that is not guarded.
fn is_concerned(handle: &Handle) -> bool {
    handle.node.rule.is_none() && matches!(handle.open, Open::File(_))
}

/// The way of a descriptor of a file that is registered, or is not.
fn way(handle: &Handle, by: &Caller, registered: Option<Arc<Registered>>) -> Way {
    let Some(registered) = registered else {
        return Way::Asking;
    };
    let taken_back = handle.flags & (libc::O_APPEND | libc::O_DIRECT) != 0;
    let by_another = handle.is_writable() && registered.by != *by;
    if taken_back || by_another || loses_bits(handle) {
        Way::MappedThrough(registered)
    } else {
        Way::Through(registered)
    }
}

/// Whether a write may have to clear set-user-ID bits, of which the kernel would then not know
/// that they are gone.
fn loses_bits(handle: &Handle) -> bool {
    handle.is_writable() && handle.node.set_id.load(Ordering::Relaxed)
}

impl Overlay {
    /// Asks the kernel for it, in the exchange at the mount's beginning.
    pub(super) fn ask_for_passthrough(&self, config: &mut KernelConfig) {
        // It takes CAP_SYS_ADMIN to register a file.
        if !self.passthrough || sys::creds::euid() != 0 {
            return;
        }
        if config
            .add_capabilities(InitFlags::FUSE_PASSTHROUGH)
            .is_err()
        {
            return log::debug!("this kernel does not pass files through");
        }
        // A source that is stacked upon another file system is not passed through, so that others
        // may be stacked upon us.
        if config.set_max_stack_depth(1).is_ok() {
            self.through.enable();
        }
    }

    /// The way of a descriptor that is about to be handed over. `register` registers a file with
    /// the kernel.
    pub(super) fn way_of(
        &self,
        handle: &Handle,
        by: &Caller,
        register: impl FnOnce(&OwnedFd) -> io::Result<BackingId>,
    ) -> Way {
        if !self.through.is_enabled() || !is_concerned(handle) {
            return Way::Asking;
        }
        let fd = handle.fd();
        let may = self.may_go_through(handle, &fd);
        self.through.opened(handle, by, may, || {
            // What the kernel does with the file it does as whom we are now.
            let _assumed = self.credentials.assume(by)?;
            register(&fd)
        })
    }

    /// Whether a file that nobody has open may go through, for this descriptor and those that may
    /// come.
    fn may_go_through(&self, handle: &Handle, fd: &OwnedFd) -> bool {
        let dev = handle.node.file.dev;
        let direct = handle.flags & libc::O_DIRECT != 0;
        if direct || loses_bits(handle) || self.through.refused.contains_key(&dev) {
            return false;
        }
        // A server, or a daemon, may refuse one user what it allows another; but the kernel opens
        // the file anew for each descriptor, always as the one who registered it. And between our
        // open and the kernel's another host may have removed the file.
        self.kinds.is_local(dev, fd).unwrap_or(false)
    }
}
