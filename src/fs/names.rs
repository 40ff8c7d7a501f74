//! Names: looking them up, making, moving and removing them.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::{INodeNo, RenameFlags, Request};

use super::dirs::is_of_protocol;
use super::nodes::{Finding, Node};
use super::replace::{Move, Place};
use super::vacate::Reply;
use super::{Overlay, with_umask_of};
use crate::backing::{Kind, proc_path};
use crate::config::{Replace, Rule};
use crate::guard::dotlocks::LockFile;
use crate::guard::family::{self, Process};
use crate::guard::{Guard, Job, Key, Waiter, Work};
use crate::lock::names::is_hidden;
use crate::lock::{Identity, RealDirectory};
use crate::sys;
use crate::sys::fs::Stat;

/// How a lock file's name ends.
pub(super) const LOCK: &[u8] = b".lock";
/// How often, and how long apart, a name that is in use here is looked up again before there is taken
/// to be none.
const MOVED_ASIDE_LOOKS: u32 = 3;
const MOVED_ASIDE: Duration = Duration::from_millis(4);
/// How long a program that makes the lock file of a guarded file waits for a turn in which it can.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Gets what was made.
pub(super) type Made = Box<dyn FnOnce(io::Result<Found>) + Send>;

/// How a name comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    /// With a new file.
    Anew,
    /// For a file that has another already: removing the old and linking the new is a way to
    /// replace a file.
    OfAnother,
}

/// A file that was found or made.
pub(super) struct Found {
    pub parent: Arc<Node>,
    pub node: Arc<Node>,
    pub stat: Stat,
}

/// As long as this is there something is changed that a guard may remember.
pub(super) struct ForgetsLook(Vec<Arc<Guard>>);

impl ForgetsLook {
    fn new(guards: impl IntoIterator<Item = Arc<Guard>>) -> ForgetsLook {
        let guards: Vec<_> = guards.into_iter().collect();
        guards.iter().for_each(|guard| guard.forget_look());
        ForgetsLook(guards)
    }
}

impl Drop for ForgetsLook {
    fn drop(&mut self) {
        self.0.iter().for_each(|guard| guard.forget_look());
    }
}

/// Whether a name is `X.lock` beside a file X. (`Cargo.lock` is a file like any other.)
fn locks_a_file(parent: &Node, name: &OsStr) -> bool {
    let Some(locked) = name.as_bytes().strip_suffix(LOCK) else {
        return false;
    };
    let exists = || {
        let locked = sys::c_name(OsStr::from_bytes(locked))?;
        sys::fs::statx(&*parent.reach()?, &locked, 0)
    };
    !locked.is_empty() && exists().is_ok()
}

/// The process that makes a lock file in such a way that only one can, and those above it.
pub(super) fn makers(tid: u32) -> Option<Vec<Process>> {
    Some(family::readers(family::process_of(tid)))
}

impl Overlay {
    /// The directory, and the name for a system call, of a name that must exist.
    pub(super) fn name_to_use(
        &self,
        parent: INodeNo,
        name: &OsStr,
    ) -> io::Result<(Arc<Node>, CString)> {
        if is_hidden(name.as_bytes()) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        Ok((self.nodes.get(parent.0)?, sys::c_name(name)?))
    }

    /// The same of a name that is to be made. The names of the lock protocol cannot be.
    pub(super) fn name_to_make(
        &self,
        parent: INodeNo,
        name: &OsStr,
    ) -> io::Result<(Arc<Node>, CString)> {
        if is_hidden(name.as_bytes()) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok((self.nodes.get(parent.0)?, sys::c_name(name)?))
    }

    /// The rule that guards a regular file of this name, if one does: that of those who use the name,
    /// else the newest.
    pub(super) fn rule_for(&self, parent: &Node, name: &OsStr) -> Option<Arc<Rule>> {
        let used = || self.rule_in_use(parent, name);
        let used = self.rules.have_changed().then(used).flatten();
        used.or_else(|| self.newest_rule(parent, name))
    }

    /// The rule that guards a regular file of this name, if one does, by the rules in force now.
    pub(super) fn newest_rule(&self, parent: &Node, name: &OsStr) -> Option<Arc<Rule>> {
        let rules = self.rules.now();
        let rule = match rules.guards_everything_alike() {
            Some(rule) => rule,
            None => rules.rule_for(&parent.path().join(name))?,
        };
        // A lock file is no data: `X.lock` beside a guarded X is left to those who use it.
        let is_lock_file = rule.dotlock && locks_a_file(parent, name);
        (rule.guards_anything() && !is_lock_file).then(|| Arc::clone(rule))
    }

    /// Notes that a program has made a file, or opened one for writing, that may be a lock file.
    /// `makers` gives the process, if it made it in such a way that only one can, and those above
    /// it; that takes many calls, so it is asked for lock files only.
    pub(super) fn note_lock_file(
        &self,
        parent: &Node,
        name: &OsStr,
        id: Identity,
        makers: impl FnOnce() -> Option<Vec<Process>>,
    ) {
        if name.as_bytes().ends_with(LOCK) {
            let key = Key::new(parent.file, name.to_owned());
            let makers = makers();
            self.guards
                .lock_files()
                .insert(key, LockFile { id, makers });
        }
    }

    /// Notes that a name is gone that may have been a lock file.
    pub(super) fn note_no_lock_file(&self, parent: &Node, name: &OsStr) {
        if name.as_bytes().ends_with(LOCK) {
            self.guards
                .lock_files()
                .remove(&Key::new(parent.file, name.to_owned()));
        }
    }

    /// Runs `make`, which makes `name`. If that is the lock file of a guarded file that we have
    /// locked ourselves, our lock is given up first.
    pub(super) fn make_lock_file(
        &self,
        parent: &Node,
        name: &OsStr,
        waiter: Waiter,
        make: Box<dyn FnOnce() + Send>,
    ) {
        let locked = name.as_bytes().strip_suffix(LOCK).map(OsStr::from_bytes);
        let rule = locked.and_then(|locked| {
            let rule = self.rule_for(parent, locked)?;
            (rule.dotlock && !locked.is_empty()).then_some((locked, rule))
        });
        let Some((locked, rule)) = rule else {
            return make();
        };
        let Ok(guard) = self.guard_of_name(parent, locked, &rule) else {
            return make();
        };
        let user = Arc::clone(&guard);
        let work = move || {
            make();
            user.leave();
        };
        let waiter = Waiter {
            patience: Some(LOCK_PATIENCE.min(rule.lock_timeout)),
            ..waiter
        };
        let submit = {
            let guard = Arc::clone(&guard);
            move || guard.submit(Job::new(Work::MakeLock(Box::new(work)), waiter))
        };
        // What the program has appended before was not written under this lock.
        guard.after_appends(Box::new(submit));
    }

    /// What was just made under a name.
    pub(super) fn made(&self, parent: Arc<Node>, name: &OsStr, tid: u32) -> io::Result<Found> {
        let (node, stat) = self.find(&parent, name, false)?;
        self.note_lock_file(&parent, name, stat.into(), || makers(tid));
        Ok(Found { parent, node, stat })
    }

    /// How long the kernel may use the entry `node` of `parent`, and its attributes.
    pub(super) fn lifetimes(&self, parent: &Node, node: &Node) -> (Duration, Duration) {
        if node.rule.is_some() {
            return (Duration::ZERO, Duration::ZERO);
        }
        let freshness = self.freshness.of(node.file.dev);
        let attributes = if node.is_dir {
            freshness.directory
        } else {
            freshness.file
        };
        // A path that the kernel remembers is not checked again for the next user's right to
        // walk it, so it must not remember what lies in a directory that is not open to all.
        let entry = if self.many_users && parent.restricted.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            freshness.entry
        };
        (entry, attributes)
    }

    /// The same, where one lifetime serves for both.
    pub(super) fn lifetime(&self, parent: &Node, node: &Node) -> Duration {
        let (entry, attributes) = self.lifetimes(parent, node);
        entry.min(attributes)
    }

    /// Looks a name up below, with the credentials of the moment, and counts the look-up. `fresh`
    /// asks the server where the name is guarded.
    pub(super) fn find(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        fresh: bool,
    ) -> io::Result<(Arc<Node>, Stat)> {
        let c_name = sys::c_name(name)?;
        let dir = parent.reach()?;
        let rule = self.rule_for(parent, name);
        let on_nfs = || {
            self.kinds
                .of(parent.file.dev, &*dir)
                .is_ok_and(|kind| kind == Kind::Nfs)
        };
        let stat = if fresh && rule.is_some() && on_nfs() {
            // What another host has committed is seen by the next open, read or stat; and what
            // the client remembers not to exist may have come into being.
            let dir = RealDirectory::new(Arc::clone(&dir));
            let mut found = dir.look(&c_name)?;
            // Where another host replaces a file that a program of its has just opened, its client
            // moves that aside first, and for a moment there is none.
            for _ in 0..MOVED_ASIDE_LOOKS {
                let key = || Key::new(parent.file, name.to_owned());
                if found.is_some() || self.guards.find_with(key).is_none() {
                    break;
                }
                std::thread::sleep(MOVED_ASIDE);
                found = dir.look(&c_name)?;
            }
            found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?
        } else {
            sys::fs::statx(&*dir, &c_name, 0)?
        };
        Ok(self.found(parent, name, rule, stat))
    }

    /// A name was found to refer to what `stat` describes: gives the node, and what may be shown of
    /// it, and counts the look-up.
    fn found(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
        rule: Option<Arc<Rule>>,
        mut stat: Stat,
    ) -> (Arc<Node>, Stat) {
        let rule = rule.filter(|_| stat.is_file());
        let how = Finding {
            rules_have_changed: self.rules.have_changed(),
            to_open: false,
        };
        let node = self
            .nodes
            .found(parent, name, &stat, (rule.as_ref(), how), || {
                let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                sys::fs::openat(&*parent.reach().ok()?, &sys::c_name(name).ok()?, flags, 0).ok()
            });
        if node.rule.is_some()
            && let Some(limit) = self.visible_limit(&node)
        {
            stat.size = stat.size.min(limit);
        }
        if stat.is_dir() && self.many_users {
            node.restricted
                .store(self.is_restricted(&node, &stat), Ordering::Relaxed);
        }
        (node, stat)
    }

    /// Whether some users may not search a directory.
    pub(super) fn is_restricted(&self, node: &Node, stat: &Stat) -> bool {
        if stat.mode & libc::S_IXOTH == 0 {
            return true;
        }
        // An access control list can shut a user out whom the mode lets in.

        node.reach().is_ok_and(|fd| {
            sys::fs::getxattr(&proc_path(&*fd), c"system.posix_acl_access", &mut []).is_ok()
        })
    }

    pub(super) fn look_up(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: Made,
    ) {
        let parent = match self.name_to_use(parent, name) {
            Ok((parent, _)) => parent,
            Err(error) => return reply(Err(error)),
        };
        let guard = self
            .guards
            .find_with(|| Key::new(parent.file, name.to_owned()));
        let waiter = self.waiter(req);
        let (overlay, caller, name) = (Arc::clone(self), waiter.caller.clone(), name.to_owned());
        let known = guard.clone();
        let look = move || {
            let remembered = known.as_ref().and_then(|known| known.known_to(&caller));
            if let Some(stat) = remembered {
                let rule = overlay.rule_for(&parent, &name);
                let (node, stat) = overlay.found(&parent, &name, rule, stat);
                return reply(Ok(Found { parent, node, stat }));
            }
            let before = known.as_ref().map(|known| known.before_look());
            let found = overlay.credentials.assume(&caller).and_then(|_assumed| {
                if overlay.is_own_lock(&parent, &name)? {
                    return Err(io::Error::from_raw_os_error(libc::ENOENT));
                }
                let (node, stat) = overlay.find(&parent, &name, true)?;
                if let (Some(known), Some(before)) = (&known, before) {
                    known.note_found(before, &caller, stat.into());
                }
                Ok(Found { parent, node, stat })
            });
            reply(found);
        };
        match guard {
            Some(guard) => guard.after_closing(&waiter, Box::new(look)),
            None => look(),
        }
    }

    /// Whether a name is the `X.lock` of a turn that this host has, or waits for. The kernel must
    /// not know of it: to a program that would make the lock file itself it would answer EEXIST
    /// without asking us, though our own is given up for that.
    fn is_own_lock(&self, parent: &Node, name: &OsStr) -> io::Result<bool> {
        let Some(locked) = name.as_bytes().strip_suffix(LOCK).map(OsStr::from_bytes) else {
            return Ok(false);
        };
        let key = Key::new(parent.file, locked.to_owned());
        let is_busy = self.guards.find(&key).is_some_and(|guard| guard.is_busy());
        Ok(is_busy && is_of_protocol(&*parent.reach()?, name.as_bytes()))
    }

    pub(super) fn make_node(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        (mode, umask, rdev): (u32, u32, u32),
        reply: Made,
    ) {
        self.make(
            req,
            parent,
            name,
            (Make::Anew, reply),
            move |parent, name| {
                with_umask_of(umask, || {
                    sys::fs::mknodat(&*parent.reach()?, name, mode, u64::from(rdev))
                })
            },
        );
    }

    pub(super) fn make_dir(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        (mode, umask): (u32, u32),
        reply: Made,
    ) {
        self.make(
            req,
            parent,
            name,
            (Make::Anew, reply),
            move |parent, name| {
                with_umask_of(umask, || sys::fs::mkdirat(&*parent.reach()?, name, mode))
            },
        );
    }

    pub(super) fn make_symlink(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: Made,
    ) {
        let target = match sys::c_name(target.as_os_str()) {
            Ok(target) => target,
            Err(error) => return reply(Err(error)),
        };
        self.make(
            req,
            parent,
            name,
            (Make::Anew, reply),
            move |parent, name| sys::fs::symlinkat(&target, &*parent.reach()?, name),
        );
    }

    pub(super) fn make_link(
        self: &Arc<Self>,
        req: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: Made,
    ) {
        let node = match self.nodes.get(ino.0) {
            Ok(node) => node,
            Err(error) => return reply(Err(error)),
        };
        self.note_new_file(req.pid());
        let overlay = Arc::clone(self);
        self.make(
            req,
            parent,
            name,
            (Make::OfAnother, reply),
            move |parent, name| {
                // Its next name has a lock of its own.
                let _forget = overlay.forgets_look_of(&node);
                // By way of /proc, since AT_EMPTY_PATH takes a capability that users do not have.
                let file = node.reach()?;
                let dir = parent.reach()?;
                let flags = libc::AT_SYMLINK_FOLLOW;
                sys::fs::linkat(&*dir, &proc_path(&*file), &*dir, name, flags)
            },
        );
    }

    /// Makes a name by `call`, as the program that asks for it.
    fn make(
        self: &Arc<Self>,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        (how, reply): (Make, Made),
        call: impl FnOnce(&Arc<Node>, &CStr) -> io::Result<()> + Send + 'static,
    ) {
        let (parent, c_name) = match self.name_to_make(parent, name) {
            Ok(names) => names,
            Err(error) => return reply(Err(error)),
        };
        let waiter = self.waiter(req);
        let (caller, tid) = (waiter.caller.clone(), waiter.tid);
        let overlay = Arc::clone(self);
        let (place, made_name) = (Arc::clone(&parent), name.to_owned());
        let make = move |permitted: io::Result<()>| {
            let made = permitted.and_then(|()| {
                let _assumed = overlay.credentials.assume(&caller)?;
                let _forget = overlay.forgets_look(&place, &made_name);
                call(&place, &c_name)?;
                overlay.made(place, &made_name, tid)
            });
            reply(made);
        };
        if name.as_bytes().ends_with(LOCK) {
            return self.make_lock_file(&parent, name, waiter, Box::new(|| make(Ok(()))));
        }
        match how {
            Make::Anew => make(Ok(())),
            Make::OfAnother => self.under_lock_of_name(&parent, name, waiter, Box::new(make)),
        }
    }

    /// Runs `put`, which puts a file under a name, under the lock of that name, if it is guarded.
    fn under_lock_of_name(
        &self,
        parent: &Node,
        name: &OsStr,
        waiter: Waiter,
        put: Box<dyn FnOnce(io::Result<()>) + Send>,
    ) {
        let rule = self
            .rule_for(parent, name)
            .filter(|rule| rule.replace != Replace::Off);
        let Some(rule) = rule else {
            return put(Ok(()));
        };
        let guard = match self.guard_of_name(parent, name, &rule) {
            Ok(guard) => guard,
            Err(error) => return put(Err(error)),
        };
        let user = Arc::clone(&guard);
        let work = Box::new(move |permitted| {
            put(permitted);
            user.leave();
        });
        guard.submit(Job::new(Work::Alone(work), waiter));
    }

    pub(super) fn remove(&self, req: &Request, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let (parent, c_name) = self.name_to_use(parent, name)?;
        let _assumed = self.assume(req)?;
        let _forget = self.forgets_look(&parent, name);
        sys::fs::unlinkat(&*parent.reach()?, &c_name, 0)?;
        self.note_no_lock_file(&parent, name);
        Ok(())
    }

    /// What the name refers to is about to be changed without a turn: what is remembered of it is
    /// forgotten, and once more when the change is made.
    pub(super) fn forgets_look(&self, parent: &Node, name: &OsStr) -> ForgetsLook {
        let key = || Key::new(parent.file, name.to_owned());
        ForgetsLook::new(self.guards.find_with(key))
    }

    /// The same where a file itself is changed, or who may use it, or what is in a directory.
    pub(super) fn forgets_look_of(&self, node: &Node) -> ForgetsLook {
        if node.is_dir {
            return ForgetsLook::new(self.guards.all_in(node.file));
        }
        let key = node.guard_key();
        ForgetsLook::new(key.and_then(|key| self.guards.find(&key)))
    }

    pub(super) fn move_name(
        self: &Arc<Self>,
        req: &Request,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
        reply: Reply,
    ) {
        let names = || {
            let (old_parent, old) = self.name_to_use(from.0, from.1)?;
            let (new_parent, new) = self.name_to_make(to.0, to.1)?;
            let place = |parent, name: &OsStr, c_name| Place {
                parent,
                name: name.to_owned(),
                c_name,
            };
            Ok(Move {
                from: place(old_parent, from.1, old),
                to: place(new_parent, to.1, new),
                flags,
                waiter: self.waiter(req),
            })
        };
        let this = match names() {
            Ok(this) => this,
            Err(error) => return reply(Err(error)),
        };
        if !to.1.as_bytes().ends_with(LOCK) {
            return self.move_place(this, reply);
        }
        let (parent, waiter) = (Arc::clone(&this.to.parent), this.waiter.clone());
        let overlay = Arc::clone(self);
        let make = move || overlay.move_place(this, reply);
        self.make_lock_file(&parent, to.1, waiter, Box::new(make));
    }

    /// Notes where a file is now that was moved.
    pub(super) fn follow_move(&self, from: &Place, to: &Place, waiter: &Waiter) {
        let stat = (|| sys::fs::statx(&*to.parent.reach()?, &to.c_name, 0))();
        self.note_no_lock_file(&from.parent, &from.name);
        // Gone already: whoever moved it on has noted where.
        let Ok(stat) = stat else { return };
        self.note_lock_file(&to.parent, &to.name, stat.into(), || makers(waiter.tid));
        let rule = self
            .rule_for(&to.parent, &to.name)
            .filter(|_| stat.is_file());
        let from = (&from.parent, &*from.name);
        let to = (&to.parent, &*to.name);
        self.nodes.moved(stat.into(), from, to, rule.as_ref());
    }
}
