//! What locks there are in a directory, and in those below it, seen from outside the protocol.
//!
//! Nothing here takes part in the protocol: names are listed and read, nothing is changed. What
//! is found is as it was at some moment of the look, and each file for itself.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::directory::{Directory, Identity, RealDirectory, read_record};
use super::names::{self, LockNames, Step};
pub use super::record::Life;
use super::record::Owner;
use crate::sys;
use crate::sys::fs::{Stat, Timestamp};

/// `FUSE_SUPER_MAGIC` of statfs(2).
const FUSE: i64 = 0x6573_5546;

/// What [`survey`] has found.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every file that has names of the protocol, or a lock file beside it, in the order of
    /// directories and names.
    pub locks: Vec<Lock>,
    /// What could not be looked at, and why.
    pub problems: Vec<(PathBuf, io::Error)>,
    /// Directories that were left out because another FUSE file system is mounted there, which
    /// may be one that hides the names.
    pub left_out: Vec<PathBuf>,
    /// The latest time that was seen on any name.
    pub newest: Timestamp,
}

/// The lock of one file.
#[derive(Debug)]
pub struct Lock {
    /// The file, relative to the directory that was looked at. Where its own name is too long to
    /// be seen in the protocol's names and it is gone, this is what stands for it in those.
    pub file: PathBuf,
    /// Its newest turn, if there ever was one.
    pub turn: Option<Turn>,
    /// `X.lock` beside it.
    pub lock_file: Option<LockFile>,
    /// The claims of daemons that use the file.
    pub claims: Vec<Claim>,
    /// Files that were to take its place, each with the time of its last change.
    pub staged: Vec<(PathBuf, Timestamp)>,
}

/// How it stands with the newest turn of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is held.
    Held,
    /// Its holder has ended it, or nobody can tell any more who has; the lock is free.
    Over,
    /// Another than its holder has ended it; the lock is free.
    Broken,
}

/// The newest turn of a file.
#[derive(Debug)]
pub struct Turn {
    /// Its number.
    pub n: u64,
    /// Held, over or broken.
    pub state: State,
    /// Who holds it or held it; `None` where that cannot be read. When a turn has been over for
    /// some seconds this is who ended it.
    pub holder: Option<Owner>,
    /// Who ended it.
    pub ender: Option<Owner>,
    /// The last sign of life of the holder's claim, by the server's clock.
    pub sign_of_life: Timestamp,
}

/// A lock file.
#[derive(Debug)]
pub struct LockFile {
    /// The daemon that made it, if it was one of ours.
    pub owner: Option<Owner>,
    /// What it says: the contents of a file, or where a symbolic link leads; else empty.
    pub content: Vec<u8>,
    /// Its type (`S_IFMT` bits): programs also lock by links and directories.
    pub file_type: u32,
    /// When it was made, or last changed, by the server's clock.
    pub changed: Timestamp,
}

/// A claim.
#[derive(Debug)]
pub struct Claim {
    /// Its path, relative to the directory that was looked at.
    pub path: PathBuf,
    /// Whose it is; `None` where it holds no record.
    pub owner: Option<Owner>,
    /// Its last sign of life, by the server's clock.
    pub sign_of_life: Timestamp,
}

/// The present time of a directory's file system, for an NFS server by its own clock: a new file
/// with a hidden name is touched, looked at, and removed.
///
/// # Errors
/// Those of making a file there.
pub fn server_time(dir: &Arc<OwnedFd>) -> io::Result<Timestamp> {
    let name = LockNames::new(OsStr::new("dotlockfs-time")).stage(rand::rng().random());
    let dir = RealDirectory::new(Arc::clone(dir));
    let id = dir.create(&name, b"")?;
    // Where a new file is made exclusively its times may be anything at first.
    let seen = dir.touch(&name, id).and_then(|()| dir.look(&name));
    let removed = dir.remove(&name);
    let seen = seen?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    removed.map(|()| seen.mtime)
}

/// The time from one point to another; nothing if they are the other way round.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    let nanoseconds = |t: Timestamp| i128::from(t.sec) * 1_000_000_000 + i128::from(t.nsec);
    let passed = nanoseconds(to).saturating_sub(nanoseconds(from)).max(0);
    let (sec, nsec) = (passed / 1_000_000_000, passed % 1_000_000_000);
    Duration::new(u64::try_from(sec).unwrap_or(u64::MAX), nsec as u32)
}

/// Looks at a directory and all below it, without following symbolic links. A directory that
/// cannot be read is noted, and the rest is looked at all the same.
pub fn survey(root: &OwnedFd) -> Survey {
    let mut survey = Survey::default();
    let device = match sys::fs::statx(root, c"", libc::AT_STATX_FORCE_SYNC) {
        Ok(stat) => stat.dev,
        Err(error) => {
            survey.problems.push((PathBuf::new(), error));
            return survey;
        }
    };
    let mut waiting = vec![(PathBuf::new(), device)];
    while let Some((path, device)) = waiting.pop() {
        match survey.look_into(root, &path, device) {
            // The names come in any order; the last of the list is looked at next.
            Ok(Some((mut folders, device))) => {
                folders.sort_by(|a, b| b.cmp(a));
                let below = folders.into_iter().map(|name| (path.join(name), device));
                waiting.extend(below);
            }
            Ok(None) => survey.left_out.push(path),
            // Removed meanwhile.
            Err(error) if is_gone(&error) && path.parent().is_some() => {}
            Err(error) => survey.problems.push((path, error)),
        }
    }
    survey
}

/// What a listing shows of one file.
#[derive(Default)]
struct Names {
    turn: u64,
    done: u64,
    claims: Vec<CString>,
    staged: Vec<CString>,
    lock_file: bool,
}

impl Survey {
    /// Looks at the files of one directory. Gives the names of the directories in it, and the
    /// device number; or `None` if it is to be left out.
    fn look_into(
        &mut self,
        root: &OwnedFd,
        path: &Path,
        parents_device: u64,
    ) -> io::Result<Option<(Vec<OsString>, u64)>> {
        let dir = open_directory(root, path)?;
        let device = sys::fs::statx(&dir, c"", libc::AT_STATX_FORCE_SYNC)?.dev;
        // f_type's width differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        if device != parents_device && sys::fs::fstatfs(&dir)?.f_type as i64 == FUSE {
            return Ok(None);
        }
        let mut folders = Vec::new();
        let mut by_base: BTreeMap<Vec<u8>, Names> = BTreeMap::new();
        let mut long_names = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = sys::fs::getdents(&dir, &mut buffer)?;
            if len == 0 {
                break;
            }
            for entry in sys::dirents::entries(&buffer[..len]) {
                if matches!(entry.name, b"." | b"..") {
                    continue;
                }
                if is_directory(&dir, entry.name, entry.kind) {
                    folders.push(OsString::from_vec(entry.name.to_vec()));
                }
                if is_cut(entry.name) {
                    long_names.push(entry.name.to_vec());
                }
                sort_in(&mut by_base, entry.name);
            }
        }
        for (base, names) in by_base {
            let name = long_names
                .iter()
                .find(|name| LockNames::new(OsStr::from_bytes(name)).base() == base)
                .map_or(&base[1..], Vec::as_slice);
            let found = self.lock(&dir, path, OsStr::from_bytes(name), &base, &names);
            match found {
                Ok(Some(lock)) => self.locks.push(lock),
                Ok(None) => {}
                Err(error) => {
                    let file = path.join(OsStr::from_bytes(name));
                    self.problems.push((file, error));
                }
            }
        }
        Ok(Some((folders, device)))
    }

    fn lock(
        &mut self,
        dir: &OwnedFd,
        path: &Path,
        name: &OsStr,
        base: &[u8],
        names: &Names,
    ) -> io::Result<Option<Lock>> {
        let mut lock = Lock {
            file: path.join(name),
            turn: self.turn(dir, base, names)?,
            lock_file: None,
            claims: Vec::new(),
            staged: Vec::new(),
        };
        let has_protocol = names.turn.max(names.done) > 0 || !names.claims.is_empty();
        if names.lock_file && (has_protocol || is_file(dir, name)?) {
            let mut lock_name = name.to_owned();
            lock_name.push(".lock");
            lock.lock_file = self.lock_file(dir, &lock_name)?;
        }
        let place = |name: &CString| path.join(OsStr::from_bytes(name.to_bytes()));
        for name in &names.claims {
            if let Some((stat, owner)) = self.record(dir, name)? {
                lock.claims.push(Claim {
                    path: place(name),
                    owner,
                    sign_of_life: stat.mtime,
                });
            }
        }
        for name in &names.staged {
            if let Some(stat) = self.look(dir, name)? {
                lock.staged.push((place(name), stat.mtime));
            }
        }
        let nothing = lock.turn.is_none()
            && lock.lock_file.is_none()
            && lock.claims.is_empty()
            && lock.staged.is_empty();
        Ok((!nothing).then_some(lock))
    }

    fn turn(&mut self, dir: &OwnedFd, base: &[u8], names: &Names) -> io::Result<Option<Turn>> {
        let n = names.turn.max(names.done);
        if n == 0 {
            return Ok(None);
        }
        let name = |step: &str| {
            let bytes = [base, format!(".{step}.{n}").as_bytes()].concat();
            CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
        };
        // In this order: the end comes later, and goes later.
        let turn = self.record(dir, &name("turn")?)?;
        let done = self.record(dir, &name("done")?)?;
        let state = match (&turn, &done) {
            // Cleaned away while we looked: there is a later one, which is another moment.
            (None, None) => return Ok(None),
            (Some(_), None) => State::Held,
            (Some((turn, _)), Some((done, _))) if Identity::from(*turn) != (*done).into() => {
                State::Broken
            }
            _ => State::Over,
        };
        let ender = done.as_ref().and_then(|(_, owner)| owner.clone());
        let shown = turn.or(done);
        Ok(shown.map(|(stat, holder)| Turn {
            n,
            state,
            holder,
            ender,
            sign_of_life: stat.mtime,
        }))
    }

    fn lock_file(&mut self, dir: &OwnedFd, name: &OsStr) -> io::Result<Option<LockFile>> {
        let name = sys::c_name(name)?;
        let Some(stat) = self.look(dir, &name)? else {
            return Ok(None);
        };
        let content = match stat.file_type() {
            libc::S_IFREG => read_record(dir, &name).unwrap_or_default(),
            libc::S_IFLNK => sys::fs::openat(dir, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)
                .and_then(sys::fs::readlink)
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        Ok(Some(LockFile {
            owner: Owner::parse(&content),
            content,
            file_type: stat.file_type(),
            changed: stat.mtime,
        }))
    }

    /// A claim under one of its names: its attributes, and the record in it. One that may not be
    /// read holds none.
    fn record(
        &mut self,
        dir: &OwnedFd,
        name: &CString,
    ) -> io::Result<Option<(Stat, Option<Owner>)>> {
        let Some(stat) = self.look(dir, name)? else {
            return Ok(None);
        };
        let owner = read_record(dir, name).ok();
        Ok(Some((stat, owner.and_then(|text| Owner::parse(&text)))))
    }

    /// The attributes that the server has for a name now; `None` if the name is gone.
    fn look(&mut self, dir: &OwnedFd, name: &CString) -> io::Result<Option<Stat>> {
        let ask = || sys::fs::statx(dir, name, libc::AT_STATX_FORCE_SYNC);
        // The client may have known the name by a file that is gone since; it forgets it then.
        let seen = ask().or_else(|error| match error.raw_os_error() {
            Some(libc::ESTALE) => ask(),
            _ => Err(error),
        });
        match seen {
            Ok(stat) => {
                self.newest = self.newest.max(stat.mtime);
                Ok(Some(stat))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Enters a name, if it belongs to a lock.
fn sort_in(by_base: &mut BTreeMap<Vec<u8>, Names>, name: &[u8]) {
    if let Some((base, step)) = names::parse(name)
        && let Ok(owned) = CString::new(name)
    {
        let names = by_base.entry(base.to_vec()).or_default();
        match step {
            Step::Turn(n) => names.turn = names.turn.max(n),
            Step::Done(n) => names.done = names.done.max(n),
            Step::Claim => names.claims.push(owned),
            Step::Stage => names.staged.push(owned),
            _ => {}
        }
    } else if let Some(file) = name.strip_suffix(b".lock")
        && !file.is_empty()
    {
        let base = LockNames::new(OsStr::from_bytes(file)).base().to_vec();
        by_base.entry(base).or_default().lock_file = true;
    }
}

/// Opens a directory for listing, whatever is known of it.
fn open_directory(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    if path.as_os_str().is_empty() {
        let itself = CString::new(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
        return sys::fs::openat(root, &itself, libc::O_RDONLY | libc::O_DIRECTORY, 0);
    }
    sys::fs::openat(root, &sys::c_name(path.as_os_str())?, flags, 0)
}

fn is_directory(dir: impl AsFd, name: &[u8], kind: u8) -> bool {
    match kind {
        libc::DT_DIR => true,
        libc::DT_UNKNOWN => CString::new(name)
            .is_ok_and(|name| sys::fs::statx(dir, &name, 0).is_ok_and(|stat| stat.is_dir())),
        _ => false,
    }
}

/// Whether the protocol's names hold only the beginning of a name.
fn is_cut(name: &[u8]) -> bool {
    // Far shorter ones are not.
    name.len() > 100 && LockNames::new(OsStr::from_bytes(name)).base()[1..] != *name
}

fn is_file(dir: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match sys::fs::statx(dir, &sys::c_name(name)?, 0) {
        Ok(stat) => Ok(stat.is_file()),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir, hard_link, write};

    fn survey_of(path: &Path) -> Survey {
        let found = survey(&File::open(path).unwrap().into());
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        found
    }

    #[test]
    fn each_state_is_told_from_the_names() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        let here = Owner::this_process().unwrap();
        for claim in ["one", "two"] {
            write(at(claim), here.to_text("0123456789abcdef")).unwrap();
        }
        create_dir(at("sub")).unwrap();
        for (claim, name) in [
            ("one", ".held.done.6"),
            ("one", ".held.turn.7"),
            ("one", ".over.turn.3"),
            ("one", ".over.done.3"),
            ("two", ".long-over.done.9"),
            ("one", "sub/.broken.turn.4"),
            ("two", "sub/.broken.done.4"),
        ] {
            hard_link(at(claim), at(name)).unwrap();
        }
        let found = survey_of(world.path());
        let seen: Vec<_> = found
            .locks
            .iter()
            .map(|lock| {
                let turn = lock.turn.as_ref().unwrap();
                assert_eq!(turn.holder.as_ref(), Some(&here));
                (lock.file.to_str().unwrap(), turn.n, turn.state)
            })
            .collect();
        let expected = [
            ("held", 7, State::Held),
            ("long-over", 9, State::Over),
            ("over", 3, State::Over),
            ("sub/broken", 4, State::Broken),
        ];
        assert_eq!(seen, expected);
        assert_eq!(here.life(&here), Life::Alive);
    }

    #[test]
    fn a_lock_file_counts_beside_its_file() {
        let world = tempfile::tempdir().unwrap();
        let at = |name: &str| world.path().join(name);
        write(at("mbox"), "").unwrap();
        write(at("mbox.lock"), "4711\n").unwrap();
        write(at("Cargo.lock"), "").unwrap();
        create_dir(at("folder")).unwrap();
        write(at("folder.lock"), "").unwrap();
        let found = survey_of(world.path());
        assert_eq!(found.locks.len(), 1, "{:?}", found.locks);
        let lock = &found.locks[0];
        assert_eq!(lock.file, Path::new("mbox"));
        assert_eq!(lock.lock_file.as_ref().unwrap().content, b"4711\n");
    }

    #[test]
    fn long_and_odd_names_are_found_again() {
        let world = tempfile::tempdir().unwrap();
        let long = OsString::from("x".repeat(250));
        let odd = OsString::from_vec(b"odd\n\xff".to_vec());
        for name in [&long, &odd] {
            write(world.path().join(name), "").unwrap();
            let turn = LockNames::new(name).turn(5);
            let turn = OsStr::from_bytes(turn.to_bytes());
            write(world.path().join(turn), "").unwrap();
        }
        let found = survey_of(world.path());
        let mut files: Vec<_> = found.locks.iter().map(|lock| &lock.file).collect();
        files.sort();
        assert_eq!(files, [Path::new(&odd), Path::new(&long)]);
    }

    #[test]
    fn times_are_counted_forward() {
        let at = |sec, nsec| Timestamp { sec, nsec };
        let passed = between(at(1, 900_000_000), at(3, 100_000_000));
        assert_eq!(passed, Duration::from_millis(1200));
        assert_eq!(between(at(3, 0), at(1, 0)), Duration::ZERO);
    }

    #[test]
    fn the_time_is_asked_for_without_a_trace() {
        let world = tempfile::tempdir().unwrap();
        let dir = Arc::new(File::open(world.path()).unwrap().into());
        assert!(server_time(&dir).unwrap() > Timestamp::default());
        assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), 0);
    }
}
