//! Putting one file in the place of another under a guarded name.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::RenameFlags;
use log::Level;

use super::Overlay;
use super::handles::Handle;
use super::nodes::Node;
use super::private::Private;
use super::vacate::{Reply, Vacate};
use super::versions::Version;
use crate::backing::{Caller, Kind};
use crate::config::{Replace, Rule};
use crate::guard::events::Event;
use crate::guard::{Guard, GuardedFile, Hold, Job, Waiter, Work, family};
use crate::lock::{Identity, LockNames, RealDirectory};
use crate::sys;

/// Larger files are kept after they were replaced only if they are open here: room is dear.
const KEPT_SIZE: u64 = 16 * 1024 * 1024;

/// A `rename(2)` that a program asks for.
pub(super) struct Move {
    pub from: Place,
    pub to: Place,
    pub flags: RenameFlags,
    pub waiter: Waiter,
}

/// A name in a directory.
#[derive(Clone)]
pub(super) struct Place {
    pub parent: Arc<Node>,
    pub name: OsString,
    pub c_name: CString,
}

/// A name whose file is about to be replaced, with its guard, which has counted us.
struct Guarded {
    guard: Arc<Guard>,
    rule: Arc<Rule>,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.guard.leave();
    }
}

impl Move {
    /// Does it, with the credentials of the moment, and notes where the files are now.
    fn run(&self, overlay: &Overlay) -> io::Result<()> {
        let (from, to) = (&self.from, &self.to);
        let (old_dir, new_dir) = (from.parent.reach()?, to.parent.reach()?);
        let flags = self.flags.bits();
        let _forget_old = overlay.forgets_look(&from.parent, &from.name);
        let _forget_new = overlay.forgets_look(&to.parent, &to.name);
        sys::fs::renameat2(&*old_dir, &from.c_name, &*new_dir, &to.c_name, flags)?;
        overlay.follow_move(from, to, &self.waiter);
        if self.flags.contains(RenameFlags::RENAME_EXCHANGE) {
            overlay.follow_move(to, from, &self.waiter);
        }
        Ok(())
    }

    /// The same in two steps: the file is staged in the directory of the guarded name, under a name
    /// that is used once, and renamed from there. If our turn is broken meanwhile, whoever has the
    /// next one removes what is staged, so that a late rename finds nothing.
    fn run_staged(&self, overlay: &Overlay, guard: &Guard) -> io::Result<()> {
        let (from, to) = (&self.from, &self.to);
        let (old_dir, new_dir) = (from.parent.reach()?, to.parent.reach()?);
        let look = |dir: &OwnedFd, name| sys::fs::statx(dir, name, 0).map(Identity::from);
        let moved = look(&old_dir, &from.c_name)?;
        if look(&new_dir, &to.c_name).is_ok_and(|now| now == moved) {
            // Two names of one file: nothing happens.
            return self.run(overlay);
        }
        let staged = LockNames::new(&guard.key().name).stage(rand::random());
        let _forget_old = overlay.forgets_look(&from.parent, &from.name);
        guard.may_begin()?;
        // A server that is being restarted may have done what is answered by an error, when it is
        // asked once more.
        let is_at = |name: &CStr| {
            let found = RealDirectory::new(Arc::clone(&new_dir)).look_anew(name);
            found.ok().flatten().map(Identity::from) == Some(moved)
        };
        let renamed = sys::fs::renameat2(&*old_dir, &from.c_name, &*new_dir, &staged, 0);
        if let Err(error) = renamed
            && !is_at(&staged)
        {
            return Err(error);
        }
        let replaced = guard
            .may_begin()
            .and_then(|()| sys::fs::renameat2(&*new_dir, &staged, &*new_dir, &to.c_name, 0));
        if let Err(error) = replaced {
            // Unless the answer was lost, it is still there.
            let back = sys::fs::renameat2(&*new_dir, &staged, &*old_dir, &from.c_name, 0);
            if back.is_ok() || !is_at(&to.c_name) {
                // What is staged under a name of its own may still be put in its place, late.
                guard.note_failure(&error);
                return Err(error);
            }
        }
        overlay.follow_move(from, to, &self.waiter);
        Ok(())
    }

    /// Whether a directory is moved, which is not what guards are for.
    fn moves_a_directory(&self) -> bool {
        let look = || sys::fs::statx(&*self.from.parent.reach()?, &self.from.c_name, 0);
        look().is_ok_and(|stat| stat.is_dir())
    }
}

impl Overlay {
    /// Moves a name; where it takes the place of a guarded one, under the lock of that.
    pub(super) fn move_place(self: &Arc<Self>, this: Move, reply: Reply) {
        let exchange = this.flags.contains(RenameFlags::RENAME_EXCHANGE);
        let mut places = vec![&this.to];
        if exchange {
            places.push(&this.from);
        }
        let mut guarded = Vec::new();
        for place in places {
            match self.replaced_at(place) {
                Ok(found) => guarded.extend(found),
                Err(error) => return reply(Err(error)),
            }
        }
        if guarded.is_empty() || this.moves_a_directory() {
            return self.move_unguarded(this, reply);
        }
        // Whoever takes two locks takes them in the same order.
        guarded.sort_by(|one, other| one.guard.key().cmp(other.guard.key()));
        let guards = guarded
            .iter()
            .filter(|guarded| guarded.rule.replace != Replace::Off)
            .map(|guarded| Arc::clone(&guarded.guard))
            .collect();
        let overlay = Arc::clone(self);
        let waiter = this.waiter.clone();
        let replace = move |permitted: io::Result<()>| {
            let moved = permitted.and_then(|()| overlay.replace(&this, &guarded));
            drop(guarded);
            reply(moved);
        };
        under_locks(guards, Vec::new(), waiter, Box::new(replace));
    }

    fn move_unguarded(self: &Arc<Self>, this: Move, reply: Reply) {
        if !this.flags.is_empty() {
            // Nothing is replaced, so nothing need be empty.
            let assumed = self.credentials.assume(&this.waiter.caller);
            return reply(assumed.and_then(|_assumed| this.run(self)));
        }
        let overlay = Arc::clone(self);
        let (parent, name) = (Arc::clone(&this.to.parent), this.to.c_name.clone());
        let waiter = this.waiter.clone();
        let attempt = Box::new(move |_: &_, _: &_| this.run(&overlay));
        let vacate = Vacate::new(waiter, parent, name, attempt);
        vacate.run(self, reply);
    }

    /// The guard of a name, if it is guarded. Even where no lock is asked for to replace its file,
    /// those who have that open must be looked after.
    fn replaced_at(&self, place: &Place) -> io::Result<Option<Guarded>> {
        let Some(rule) = self.rule_for(&place.parent, &place.name) else {
            return Ok(None);
        };
        let guard = self.guard_of_name(&place.parent, &place.name, &rule)?;
        Ok(Some(Guarded { guard, rule }))
    }

    /// Replaces files under the locks of their names.
    fn replace(&self, this: &Move, guarded: &[Guarded]) -> io::Result<()> {
        let pid = family::process_of(this.waiter.tid);
        let readers = family::readers(pid);
        let _assumed = self.credentials.assume(&this.waiter.caller)?;
        for Guarded { guard, rule } in guarded {
            let last = self.versions.last_read(guard.key(), &readers);
            let is_checked = matches!(rule.replace, Replace::Check | Replace::Hold)
                && !this.flags.contains(RenameFlags::RENAME_NOREPLACE);
            if let Some(last) = last.filter(|_| is_checked)
                && guard.look()?.map(Version::from) != Some(last)
            {
                guard.happened(
                    Event::Stale,
                    Level::Info,
                    format_args!(
                        "process {pid} would replace a newer version than it has read, and gets \
                         ESTALE"
                    ),
                );
                return Err(io::Error::from_raw_os_error(libc::ESTALE));
            }
        }
        let kind = self
            .kinds
            .of(this.to.parent.file.dev, &*this.to.parent.reach()?)?;
        let guards: Vec<&Guard> = guarded.iter().map(|guarded| &*guarded.guard).collect();
        let locked = guarded
            .iter()
            .filter(|guarded| guarded.rule.replace != Replace::Off)
            .map(|guarded| &guarded.guard);
        let attempt = || match (locked.clone().next(), this.flags.is_empty()) {
            (Some(guard), true) => this.run_staged(self, guard),
            _ => {
                locked.clone().try_for_each(|guard| guard.may_begin())?;
                this.run(self)
            }
        };
        self.replace_files(&guards, (kind, &this.waiter.caller), &attempt)?;
        locked.clone().try_for_each(|guard| guard.still_ours())?;
        for guard in guards {
            if let Ok(Some(stat)) = guard.look() {
                self.versions
                    .written(guard.key(), &readers, Version::from(stat));
            }
            self.reading.replaced(guard.key(), pid);
        }
        Ok(())
    }

    /// Puts the private copy of a program in the place of the file, under its lock.
    pub(super) fn publish(
        &self,
        handle: &Handle,
        private: &Private,
        guard: &Arc<Guard>,
    ) -> io::Result<()> {
        let dir = private.dir();
        let kind = handle.guarded().map_or(Kind::Other, |file| file.kind);
        let name = sys::c_name(&guard.key().name)?;
        let opener = handle.guarded().map(|file| file.opener.clone());
        let opener = opener.unwrap_or_else(|| self.credentials.own().clone());
        let _assumed = self.credentials.assume(&opener)?;
        // Whoever moved the file away meanwhile, or wrote to it otherwise, must not lose that.
        let now = guard.look()?.map(Version::from);
        if now != handle.version {
            log::error!(
                "{}: is another file than it was when its private copy was made",
                guard.label()
            );
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        self.replace_files(&[guard], (kind, &opener), &|| {
            guard.may_begin()?;
            sys::fs::renameat2(dir, private.name(), dir, &name, 0)
                .inspect_err(|error| guard.note_failure(error))
        })?;
        private.published();
        guard.still_ours()
    }

    /// Renames the copy that a fence has made of a guarded file over it.
    pub(super) fn put_in_place(&self, guard: &Guard, staged: &CStr) -> io::Result<()> {
        let kind = self.kinds.of(guard.key().dev, guard.dir())?;
        let by = self.credentials.own();
        self.replace_files(&[guard], (kind, by), &|| guard.rename_beside(staged))
    }

    /// Runs `attempt`, which replaces the files that these names refer to.
    ///
    /// An NFS client does not replace a name whose file it has open: it moves the file aside first,
    /// and for a moment there is none, which other clients then remember for half a minute. It goes
    /// by names; so what programs of this mount have open is opened by another name before. That
    /// name stays for some seconds: who has opened the file on another host, and is about to read
    /// it, would else find it gone.
    fn replace_files(
        &self,
        guards: &[&Guard],
        (kind, by): (Kind, &Caller),
        attempt: &dyn Fn() -> io::Result<()>,
    ) -> io::Result<()> {
        let Some((guard, rest)) = guards.split_first() else {
            return attempt();
        };
        let _replacing = guard.replacing();
        let Some(old) = guard.look()? else {
            return self.replace_files(rest, (kind, by), attempt);
        };
        let open: Vec<Arc<Handle>> = self
            .handles
            .of_name(guard.key())
            .into_iter()
            .filter(|handle| handle.id() == old.into())
            .collect();
        let files = open.iter().filter_map(|handle| handle.guarded());
        if kind == Kind::Nfs && (!open.is_empty() || old.size <= KEPT_SIZE) {
            self.keep(guard, old.into(), by, files.clone());
        }
        // Appends may be written meanwhile: what is published is no job. With two names the file is
        // not remembered again, and when the second goes its name leads to another.
        guard.forget_look();
        let replaced = self.replace_files(rest, (kind, by), attempt);
        if replaced.is_ok() {
            files.for_each(GuardedFile::set_replaced);
        }
        guard.forget_look();
        replaced
    }

    /// Keeps a file that is about to be replaced under another name for a while, and opens what is
    /// open of it here by that.
    fn keep<'a>(
        &self,
        guard: &Guard,
        old: Identity,
        by: &Caller,
        files: impl Iterator<Item = &'a GuardedFile>,
    ) {
        // Not everybody may link everybody's files (`fs.protected_hardlinks`).
        let kept = guard
            .keep(old, by)
            .or_else(|_| guard.keep(old, self.credentials.own()));
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return log::debug!("{}: cannot be kept: {error}", guard.label()),
        };
        for file in files {
            let opened = self
                .credentials
                .assume(&file.opener)
                .and_then(|_assumed| guard.open_beside(&kept, file.flags));
            match opened {
                Ok(fd) => file.set_descriptor(fd),
                Err(error) => log::debug!("{}: cannot be kept open: {error}", guard.label()),
            }
        }
    }
}

/// Takes the locks of these guards, one after another, and calls `then` with all of them held.
fn under_locks(
    mut guards: Vec<Arc<Guard>>,
    mut holds: Vec<Hold>,
    waiter: Waiter,
    then: Box<dyn FnOnce(io::Result<()>) + Send>,
) {
    if guards.is_empty() {
        return then(Ok(()));
    }
    let guard = guards.remove(0);
    let (user, next) = (Arc::clone(&guard), waiter.clone());
    let work = move |permitted: io::Result<()>| match permitted {
        Ok(()) if guards.is_empty() => {
            then(Ok(()));
            drop(holds);
        }
        Ok(()) => {
            holds.push(user.hold(family::process_of(next.tid)));
            under_locks(guards, holds, next, then);
        }
        Err(error) => then(Err(error)),
    };
    guard.submit(Job::new(Work::Alone(Box::new(work)), waiter));
}
