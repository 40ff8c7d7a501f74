//! The calls that the protocol makes, and how each of them is made fresh on NFS.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::listing::Listing;
use super::names::{LockNames, Step};
use super::record::RECORD_MAX;
use crate::sys;
use crate::sys::fs::{SetTime, Stat, Timestamp};

/// How often a file may be replaced elsewhere while its name is looked up.
const REPLACED_AGAIN: usize = 10;

/// How often a directory is listed when the listing turns out to be an old one.
const LISTED_AGAIN: usize = 5;

/// Which file a name refers to. Within one file system the inode number says it; a claim is
/// never reused after its removal, and while a name of it exists the number cannot come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

impl From<Stat> for Identity {
    fn from(stat: Stat) -> Identity {
        Identity {
            dev: stat.dev,
            ino: stat.ino,
        }
    }
}

/// What tells a waiter whether a claim is still looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    /// Which file it is.
    pub identity: Identity,
    /// When it was last touched, by the server's clock. It is only compared with itself.
    pub mtime: Timestamp,
}

/// The directory of a guarded file, as far as the protocol needs it. Each method is one step
/// that either happened or did not; what is read is as fresh as the server can tell.
pub trait Directory {
    /// Makes `new` another name of `old`, if there is no `new`.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken; `ENOENT` or `ESTALE` where `old` is gone. After any
    /// other error the link may or may not have been made.
    fn link(&self, old: &CStr, new: &CStr) -> io::Result<()>;

    /// The file behind a name, and when it was last touched, or `None` where there is none.
    ///
    /// # Errors
    /// Those of the file system, except that the name does not exist.
    fn sign(&self, name: &CStr) -> io::Result<Option<Sign>>;

    /// The file behind a name, or `None` where there is none.
    ///
    /// # Errors
    /// Those of the file system, except that the name does not exist.
    fn identity(&self, name: &CStr) -> io::Result<Option<Identity>> {
        Ok(self.sign(name)?.map(|sign| sign.identity))
    }

    /// Puts the file `old` in the place of `new`. A late or repeated call finds no `old`, where
    /// that name is used only once.
    ///
    /// # Errors
    /// Those of the file system; after any but `ENOENT` it may or may not have been done.
    fn rename(&self, old: &CStr, new: &CStr) -> io::Result<()>;

    /// Overwrites a part of the file `id`, if that is what the name refers to; on the server when
    /// this returns.
    ///
    /// # Errors
    /// `ENOENT` or `ESTALE` where it is not, or nothing is there; others of the file system.
    fn annotate(&self, name: &CStr, id: Identity, offset: u64, text: &[u8]) -> io::Result<()>;

    /// The protocol's names of one file, from a listing of the directory that is no older than
    /// `max_age` at the time `now`; and when that listing began. That it is fresh is not taken on
    /// trust: another name of `claim` is made before, and must be in it.
    ///
    /// # Errors
    /// Those of the file system; `ENOENT` or `ESTALE` where the claim is gone.
    fn steps(
        &self,
        names: &LockNames,
        claim: &CStr,
        now: Duration,
        max_age: Duration,
    ) -> io::Result<(Vec<(Step, CString)>, Duration)>;

    /// Makes a new file with these contents, seen by every host when this returns.
    ///
    /// # Errors
    /// `EEXIST` where the name is taken; others of the file system.
    fn create(&self, name: &CStr, contents: &[u8]) -> io::Result<Identity>;

    /// The same, in the place of a file that has the name. Only for names that nobody's data rest
    /// on: two who do so at once may see each other's file, or none.
    ///
    /// # Errors
    /// Those of the file system.
    fn create_anew(&self, name: &CStr, contents: &[u8]) -> io::Result<()> {
        match self.create(name, contents) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(name)?;
                self.create(name, contents)
            }
            other => other,
        }
        .map(drop)
    }

    /// Sets the modification time of the file `id` to the server's present time, if that is what
    /// the name refers to.
    ///
    /// # Errors
    /// `ENOENT` or `ESTALE` where it is not, or nothing is there; others of the file system.
    fn touch(&self, name: &CStr, id: Identity) -> io::Result<()>;

    /// Removes a file, or an empty directory; one that is gone already is no error.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, name: &CStr) -> io::Result<()>;

    /// The beginning of a regular file, as much as a record can have.
    ///
    /// # Errors
    /// Those of the file system; `EINVAL` where it is not a regular file.
    fn read(&self, name: &CStr) -> io::Result<Vec<u8>>;

    /// The same of a name under which the protocol puts only regular files that everybody may read:
    /// of anything else, which was made to harm, it gives nothing.
    ///
    /// # Errors
    /// Those of the file system; `ENOENT` where there is no such name.
    fn read_if_ours(&self, name: &CStr) -> io::Result<Vec<u8>> {
        match self.read(name) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINVAL | libc::ELOOP | libc::ENXIO | libc::ENODEV | libc::EACCES)
                ) =>
            {
                Ok(Vec::new())
            }
            other => other,
        }
    }
}

/// Whether clients of this file system tell by its time alone that a directory has changed, as
/// those of NFSv3 do. That is as coarse as a tick of the server's clock; of two changes within one
/// tick, of which the first was the client's own, it never learns of the second.
fn has_coarse_changes(dev: u64) -> bool {
    static KNOWN: LazyLock<DashMap<u64, bool>> = LazyLock::new(DashMap::new);
    if let Some(known) = KNOWN.get(&dev) {
        return *known;
    }
    let options = sys::mount_table::nfs_options(dev).unwrap_or_default();
    let coarse = options.split(',').any(|option| option == "vers=3");
    KNOWN.insert(dev, coarse);
    coarse
}

/// A directory of a file system, through a descriptor of it.
#[derive(Debug)]
pub struct RealDirectory {
    dir: Arc<OwnedFd>,
    listing: Mutex<Option<Listing>>,
}

impl RealDirectory {
    /// The directory that `dir` is open on (an `O_PATH` descriptor will do).
    pub fn new(dir: Arc<OwnedFd>) -> RealDirectory {
        RealDirectory {
            dir,
            listing: Mutex::new(None),
        }
    }

    /// The descriptor, for calls relative to the directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&*self.dir)
    }

    /// Makes an NFS client ask the server whether the directory has changed, so that names it
    /// remembers, and names it remembers not to exist, are looked up again. A forced `statx` does
    /// so on any mount; opening the directory would not on one with `nocto`.
    ///
    /// # Errors
    /// Those of `statx(2)`; `ESTALE` where the directory itself is gone.
    pub fn revalidate(&self) -> io::Result<()> {
        self.ask_for_changes().map(drop)
    }

    fn ask_for_changes(&self) -> io::Result<Stat> {
        sys::fs::statx(self.fd(), c"", libc::AT_STATX_FORCE_SYNC)
    }

    /// Whether the server does not know the directory: it is gone, or the server is just being
    /// restarted.
    pub fn is_stale(&self) -> bool {
        let error = self.revalidate().err();
        error.and_then(|error| error.raw_os_error()) == Some(libc::ESTALE)
    }

    /// The attributes of a name as the server has them now, or `None` where there is no such
    /// name.
    ///
    /// # Errors
    /// Those of `statx(2)`, except `ENOENT`.
    pub fn look(&self, name: &CStr) -> io::Result<Option<Stat>> {
        if has_coarse_changes(self.ask_for_changes()?.dev) {
            sys::fs::look_up_anew(self.fd(), name);
        }
        self.attributes(name)
    }

    /// The same where much depends on it, for one call to the server more: the name is
    /// [looked up again](Self::look_up_anew) in any case.
    ///
    /// # Errors
    /// Those of `statx(2)`, except `ENOENT`.
    pub fn look_anew(&self, name: &CStr) -> io::Result<Option<Stat>> {
        self.look_up_anew(name)?;
        self.attributes(name)
    }

    /// Makes an NFS client look a name up again, whatever tells it that a directory has changed.
    ///
    /// # Errors
    /// Those of [`revalidate`](Self::revalidate).
    pub fn look_up_anew(&self, name: &CStr) -> io::Result<()> {
        self.revalidate()?;
        sys::fs::look_up_anew(self.fd(), name);
        Ok(())
    }

    fn attributes(&self, name: &CStr) -> io::Result<Option<Stat>> {
        for again in (0..REPLACED_AGAIN).rev() {
            match sys::fs::statx(self.fd(), name, libc::AT_STATX_FORCE_SYNC) {
                Ok(stat) => return Ok(Some(stat)),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
                // The client knew the name by a file that is gone from the server (it was
                // replaced meanwhile); it forgets it with this error.
                Err(error) if error.raw_os_error() == Some(libc::ESTALE) && again > 0 => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from_raw_os_error(libc::ESTALE))
    }
}

impl RealDirectory {
    /// The protocol's names of one file, as a listing shows them, for those whom it need not show
    /// the newest.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn listed(&self, names: &LockNames) -> io::Result<Vec<(Step, CString)>> {
        Ok(self.list(Duration::ZERO)?.steps(names))
    }

    /// A listing that shows a name which was made just before. An NFS client may answer from what
    /// it has kept; a change of its own makes it ask again, and if it does not, that is seen.
    fn list_with_witness(
        &self,
        names: &LockNames,
        claim: &CStr,
        now: Duration,
    ) -> io::Result<Listing> {
        for _ in 0..LISTED_AGAIN {
            let witness = names.witness(rand::random());
            self.link(claim, &witness)?;
            let listing = self.list(now);
            if let Err(error) = self.remove(&witness) {
                log::debug!("{} may stay: {error}", display(&witness));
            }
            let listing = listing?;
            if listing.shows(names, &witness) {
                return Ok(listing);
            }
            log::warn!(
                "a listing of the directory of {} was an old one; it is read again",
                display(&witness)
            );
        }
        Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
    }

    fn list(&self, now: Duration) -> io::Result<Listing> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        // By way of /proc: "." would take the right to search the directory as well.
        let path = CString::new(format!("/proc/self/fd/{}", self.fd().as_raw_fd()))?;
        let dir = sys::fs::openat(self.fd(), &path, flags, 0)?;
        sys::fs::statx(&dir, c"", libc::AT_STATX_FORCE_SYNC)?;
        let mut listing = Listing::new(now);
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let len = sys::fs::getdents(&dir, &mut buffer)?;
            if len == 0 {
                return Ok(listing);
            }
            for entry in sys::dirents::entries(&buffer[..len]) {
                listing.add(entry.name);
            }
        }
    }
}

impl Directory for RealDirectory {
    fn link(&self, old: &CStr, new: &CStr) -> io::Result<()> {
        sys::fs::linkat(self.fd(), old, self.fd(), new, 0)
    }

    fn sign(&self, name: &CStr) -> io::Result<Option<Sign>> {
        Ok(self.look(name)?.map(|stat| Sign {
            identity: stat.into(),
            mtime: stat.mtime,
        }))
    }

    fn rename(&self, old: &CStr, new: &CStr) -> io::Result<()> {
        sys::fs::renameat2(self.fd(), old, self.fd(), new, 0)
    }

    fn annotate(&self, name: &CStr, id: Identity, offset: u64, text: &[u8]) -> io::Result<()> {
        // Without O_NONBLOCK a pipe in its place would be waited for.
        let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = match sys::fs::openat(self.fd(), name, flags, 0) {
            // A link, or a pipe that nobody reads.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
                return Err(gone());
            }
            other => other?,
        };
        is_still(&file, id)?;
        if sys::fs::pwrite(&file, text, offset)? != text.len() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        // An NFS client writes it back now, to stable storage.
        sys::fs::flush(&file)
    }

    fn steps(
        &self,
        names: &LockNames,
        claim: &CStr,
        now: Duration,
        max_age: Duration,
    ) -> io::Result<(Vec<(Step, CString)>, Duration)> {
        // Held while the directory is read: who comes meanwhile would read the same.
        let mut listing = self.listing.lock();
        let known = listing
            .take()
            .filter(|known| known.seen() > now || now.saturating_sub(known.seen()) < max_age);
        let known = match known {
            Some(known) => known,
            None => self.list_with_witness(names, claim, now)?,
        };
        let found = (known.steps(names), known.seen());
        *listing = Some(known);
        Ok(found)
    }

    fn create(&self, name: &CStr, contents: &[u8]) -> io::Result<Identity> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = sys::fs::openat(self.fd(), name, flags, 0o644)?;
        let written = (|| {
            if sys::fs::write(&file, contents)? != contents.len() {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            // An NFS client sends it to the server now, and tells what is wrong with that.
            sys::fs::flush(&file)?;
            sys::fs::statx(&file, c"", 0)
        })();
        match written {
            Ok(stat) => Ok(stat.into()),
            Err(error) => {
                // A claim that holds no record would say nothing to anybody.
                let _ = self.remove(name);
                Err(error)
            }
        }
    }

    fn touch(&self, name: &CStr, id: Identity) -> io::Result<()> {
        let file = sys::fs::openat(self.fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        is_still(&file, id)?;
        sys::fs::set_times(&file, SetTime::Omit, SetTime::Now)
    }

    fn remove(&self, name: &CStr) -> io::Result<()> {
        match sys::fs::unlinkat(self.fd(), name, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            // Some programs lock by mkdir(2).
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                sys::fs::unlinkat(self.fd(), name, libc::AT_REMOVEDIR)
            }
            other => other,
        }
    }

    fn read(&self, name: &CStr) -> io::Result<Vec<u8>> {
        read_record(self.fd(), name)
    }
}

/// Whether an open file is the one that was made under its name. Whoever may write the directory
/// can put another there, even one from elsewhere by a hard link, which is not ours to change.
fn is_still(file: &OwnedFd, id: Identity) -> io::Result<()> {
    let now = sys::fs::statx(file, c"", 0)?;
    if Identity::from(now) == id {
        Ok(())
    } else {
        Err(gone())
    }
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

/// The beginning of a regular file, as much as a record can have.
///
/// # Errors
/// Those of the file system; `EINVAL` where it is not a regular file.
pub fn read_record(dir: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    // Whatever stands under the name of a lock was perhaps made to harm: no link is
    // followed, and no pipe or device is waited for.
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let read = |direct| {
        let file = sys::fs::openat(&dir, name, flags | direct, 0)?;
        // Forced: a mount with `nocto` would else show what it read before.
        if !sys::fs::statx(&file, c"", libc::AT_STATX_FORCE_SYNC)?.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut contents = vec![0; RECORD_MAX];
        let len = sys::fs::pread(&file, &mut contents, 0)?;
        contents.truncate(len);
        Ok(contents)
    };
    // With O_DIRECT the client asks a server of NFSv4.1 or later for no delegation (linux
    // fs/nfs/nfs4proc.c, NFS4_SHARE_WANT_NO_DELEG). One that was given to a waiter would be called
    // back before the holder can link or unlink its claim: with eight hosts, that held up each claim's
    // first turn for 300 ms.
    read(libc::O_DIRECT).or_else(|error| match error.raw_os_error() {
        // Other file systems do not know it, or not for a buffer like this.
        Some(libc::EINVAL) => read(0),
        _ => Err(error),
    })
}

/// A name for messages.
pub(crate) fn display(name: &CStr) -> std::path::Display<'_> {
    std::path::Path::new(OsStr::from_bytes(name.to_bytes())).display()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Another file in the place of a claim is not touched, wherever it has other names.
    #[test]
    fn what_stands_in_the_place_of_a_claim_is_left_alone() {
        let world = tempfile::tempdir().unwrap();
        let path = |name: &str| world.path().join(name);
        fs::create_dir(path("dir")).unwrap();
        let dir = RealDirectory::new(Arc::new(fs::File::open(path("dir")).unwrap().into()));
        let claim = path("dir/claim");
        let id = dir.create(c"claim", b"record").unwrap();
        dir.touch(c"claim", id).unwrap();
        dir.annotate(c"claim", id, 6, b" and more").unwrap();
        assert_eq!(fs::read(&claim).unwrap(), b"record and more");
        // Else a new file could get its inode number.
        fs::rename(&claim, path("claim")).unwrap();
        fs::write(path("victim"), "keep").unwrap();
        let before = fs::metadata(path("victim")).unwrap().modified().unwrap();
        let plants: [&dyn Fn(); 4] = [
            &|| fs::hard_link(path("victim"), &claim).unwrap(),
            &|| std::os::unix::fs::symlink(path("victim"), &claim).unwrap(),
            &|| sys::fs::mknodat(dir.fd(), c"claim", libc::S_IFIFO | 0o666, 0).unwrap(),
            &|| fs::create_dir(&claim).unwrap(),
        ];
        for (i, plant) in plants.iter().enumerate() {
            plant();
            let touched = dir.touch(c"claim", id).unwrap_err();
            assert_eq!(touched.raw_os_error(), Some(libc::ENOENT), "{i}");
            assert!(dir.annotate(c"claim", id, 0, b"harm").is_err(), "{i}");
            assert_eq!(fs::read(path("victim")).unwrap(), b"keep", "{i}");
            let after = fs::metadata(path("victim")).unwrap().modified().unwrap();
            assert_eq!(after, before, "{i}");
            dir.remove(c"claim").unwrap();
        }
    }
}
