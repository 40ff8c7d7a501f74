//! What can only be found out by trying: whether link(2) is what the lock needs, freshness,
//! writing, the server's clock.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::nfs::FileSystem;
use super::{Finding, reason};
use crate::backing::Kind;
use crate::cli::locks;
use crate::lock::directory::Directory;
use crate::lock::{Identity, LockNames, RealDirectory, record, survey};
use crate::sys;
use crate::sys::fs::Timestamp;

/// How many threads want the same name, and how often.
const RACERS: usize = 8;
const RACES: u64 = 20;
/// How many changes of the directory are looked at, and for how long at the most.
const CHANGES: u64 = 40;
const CHANGES_TIME: Duration = Duration::from_secs(3);
/// A difference of clocks that is worth a note, and one that misleads programs.
const CLOCK_NOTE: Duration = Duration::from_secs(2);
const CLOCK_WARNING: Duration = Duration::from_secs(60);
/// A length that no rule of alignment allows.
const ODD: usize = 1001;

/// Makes the tests, and stops between two of them when `stopped` says so.
pub(super) fn findings(
    dir: &Arc<OwnedFd>,
    system: &FileSystem,
    stopped: &dyn Fn() -> bool,
) -> Vec<Finding> {
    let probe = Probe::new(dir);
    let mut found = match probe.file(0) {
        Ok(_) => vec![Finding::ok("directory", "files can be made and removed")],
        Err(error) => {
            return vec![Finding::fault(
                "directory",
                format!(
                    "no file can be made in it by uid {}: {}",
                    sys::creds::euid(),
                    reason(&error)
                ),
                "the lock of a file is made in its directory: let who writes the file write there, \
                 or root (with no_root_squash) who mounts",
            )];
        }
    };
    let tests: [&dyn Fn() -> Finding; 5] = [
        &|| outcome("link(2)", links(&probe)),
        &|| outcome("link(2) race", races(&probe)),
        &|| outcome("changes", changes(&probe, system)),
        &|| outcome("writing", writes(&probe, system)),
        &|| outcome("clock", clock(dir)),
    ];
    for test in tests {
        if stopped() {
            break;
        }
        found.push(test());
    }
    found
}

/// A test that could not be made is a fault of its own.
fn outcome(subject: &'static str, finding: io::Result<Finding>) -> Finding {
    finding.unwrap_or_else(|error| {
        Finding::fault(
            subject,
            format!("the test failed: {}", reason(&error)),
            "see what the server and this host's kernel log say",
        )
    })
}

/// The files of the tests, removed at the end.
struct Probe {
    dir: RealDirectory,
    names: LockNames,
}

impl Probe {
    fn new(dir: &Arc<OwnedFd>) -> Probe {
        let name = format!("dotlockfs-doctor-{}", record::new_token());
        Probe {
            dir: RealDirectory::new(Arc::clone(dir)),
            names: LockNames::new(OsStr::new(&name)),
        }
    }

    /// A new file with a number.
    fn file(&self, number: u64) -> io::Result<(CString, Identity)> {
        let name = self.names.stage(number);
        let identity = self.dir.create(&name, b"dotlockfs doctor\n")?;
        Ok((name, identity))
    }

    fn inode(&self, name: &CStr) -> io::Result<Identity> {
        let found = self.dir.identity(name)?;
        found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let listed = self.dir.listed(&self.names);
        let removed = listed.and_then(|steps| {
            let mut steps = steps.iter();
            steps.try_for_each(|(_, name)| self.dir.remove(name))
        });
        if let Err(error) = removed {
            let base = String::from_utf8_lossy(self.names.base()).into_owned();
            eprintln!(
                "dotlockfs: files {base}.* could not be removed: {}",
                reason(&error)
            );
        }
    }
}

/// Whether a link is another name of the same file, and refused where there is a file.
fn links(probe: &Probe) -> io::Result<Finding> {
    let subject = "link(2)";
    let advice = "the lock is made by link(2), so dotlockfs cannot be used on this file system";
    let (one, identity) = probe.file(1)?;
    let (other, _) = probe.file(2)?;
    let link = probe.names.turn(1);
    if let Err(error) = probe.dir.link(&one, &link) {
        let what = format!(
            "hard links to one's own files cannot be made: {}",
            reason(&error)
        );
        return Ok(Finding::fault(subject, what, advice));
    }
    let seen = probe
        .dir
        .look(&link)?
        .map(|stat| (Identity::from(stat), stat.nlink));
    if seen != Some((identity, 2)) {
        let what = "the link is not a second name of the file: its inode number or its count of \
                    links is another";
        return Ok(Finding::fault(subject, what, advice));
    }
    match probe.dir.link(&other, &link) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Ok(()) => {
            let what = "a second link took the place of the first, without an error";
            return Ok(Finding::fault(subject, what, advice));
        }
        Err(error) => {
            let what = format!(
                "over an existing name it fails with \"{}\" in place of \"File exists\"",
                reason(&error)
            );
            return Ok(Finding::fault(subject, what, advice));
        }
    }
    if probe.inode(&link)? != identity {
        let what = "a link that was refused has changed the name all the same";
        return Ok(Finding::fault(subject, what, advice));
    }
    let setting = std::fs::read_to_string("/proc/sys/fs/protected_hardlinks").unwrap_or_default();
    let setting = match setting.trim() {
        "" => String::new(),
        value => format!(" (fs.protected_hardlinks is {value}; both 0 and 1 are fine)"),
    };
    Ok(Finding::ok(
        subject,
        format!("makes a second name, and is refused where there is one{setting}"),
    ))
}

/// Whether exactly one of many wins who want a name at the same time.
fn races(probe: &Probe) -> io::Result<Finding> {
    let subject = "link(2) race";
    let own: Vec<_> = (0..RACERS as u64)
        .map(|racer| probe.file(10 + racer))
        .collect::<io::Result<_>>()?;
    let mut wrong = Vec::new();
    for race in 0..RACES {
        let name = probe.names.done(race);
        let start = Barrier::new(RACERS);
        let results: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = own
                .iter()
                .map(|(file, _)| {
                    scope.spawn(|| {
                        start.wait();
                        probe.dir.link(file, &name)
                    })
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| {
                    racer
                        .join()
                        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
                })
                .collect()
        });
        let winners: Vec<_> = own
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|((_, identity), _)| *identity)
            .collect();
        let refused = results.iter().flat_map(|result| result.as_ref().err());
        let others = refused.filter(|error| error.raw_os_error() != Some(libc::EEXIST));
        match winners[..] {
            [winner] if probe.inode(&name)? == winner => {}
            [_] => wrong.push("the name went to another than the winner".to_owned()),
            [] => wrong.push("nobody was told that he had won".to_owned()),
            _ => wrong.push(format!("{} were told that they had won", winners.len())),
        }
        wrong.extend(others.map(|error| format!("one got \"{}\"", reason(error))));
    }
    Ok(match wrong.first() {
        None => Finding::ok(
            subject,
            format!(
                "{RACES} times {RACERS} threads of this host wanted one name, and exactly one got \
                 it"
            ),
        ),
        Some(first) => Finding::fault(
            subject,
            format!(
                "of {RACERS} threads that wanted one name exactly one must get it; but {first}"
            ),
            "the lock cannot rest on this file system: an answer of the server that was lost and \
             repeated, or one without an atomic link",
        ),
    })
}

/// Whether the directory's time of change moves with every change.
fn changes(probe: &Probe, system: &FileSystem) -> io::Result<Finding> {
    let subject = "changes";
    let (file, _) = probe.file(3)?;
    let time = || -> io::Result<Timestamp> {
        let dir = sys::fs::statx(probe.dir.fd(), c"", libc::AT_STATX_FORCE_SYNC)?;
        Ok(dir.ctime)
    };
    let began = Instant::now();
    let (mut before, mut made, mut unseen, mut smallest) = (time()?, 0, 0, Duration::MAX);
    while made < CHANGES && began.elapsed() < CHANGES_TIME {
        probe.dir.link(&file, &probe.names.kept(made))?;
        made += 1;
        let now = time()?;
        match survey::between(before, now) {
            Duration::ZERO => unseen += 1,
            step => smallest = smallest.min(step),
        }
        before = now;
    }
    let steps = match smallest {
        Duration::MAX => "not at all".to_owned(),
        step => format!("in steps of about {:.1} ms", step.as_secs_f64() * 1000.0),
    };
    Ok(match (unseen, system.kind) {
        (0, _) => Finding::ok(
            subject,
            format!("each of {made} changes in a row moved the directory's ctime"),
        ),
        // Version 4 has a change counter, which no system call shows.
        (_, Kind::Nfs) if system.version().starts_with('3') => Finding::warning(
            subject,
            format!(
                "{unseen} of {made} changes in a row did not move the directory's ctime, which \
                 moves {steps}; by NFSv3 other hosts know a change by it alone, and may notice such \
                 a one late, with the next"
            ),
            "use NFSv4 (it counts changes), or let the server export a file system with finer \
             times",
        ),
        (_, Kind::Nfs) => Finding::ok(
            subject,
            format!(
                "the directory's ctime moves {steps} ({unseen} of {made} changes did not move \
                 it); NFS {} counts changes, so nothing rests on it",
                system.version()
            ),
        ),
        (_, Kind::Other) => Finding::ok(
            subject,
            format!("the directory's ctime moves {steps}; on this file system nothing rests on it"),
        ),
    })
}

/// Whether a file can be written in the way in which guarded files are.
fn writes(probe: &Probe, system: &FileSystem) -> io::Result<Finding> {
    let subject = "writing";
    let (name, _) = probe.file(4)?;
    let data: Vec<u8> = (0..ODD).map(|n| n as u8).collect();
    let (flags, how) = match system.kind {
        Kind::Nfs => (libc::O_DIRECT | libc::O_DSYNC, "O_DIRECT|O_DSYNC"),
        Kind::Other => (0, "fdatasync"),
    };
    let written = (|| {
        let file = sys::fs::openat(probe.dir.fd(), &name, libc::O_RDWR | flags, 0)?;
        let len = sys::fs::pwrite(&file, &data, 1)?;
        sys::fs::fsync(&file, true)?;
        let mut back = vec![0; ODD + 1];
        let read = sys::fs::pread(&file, &mut back, 1)?;
        back.truncate(read);
        Ok::<_, io::Error>(len == ODD && back == data)
    })();
    Ok(match written {
        Ok(true) => Finding::ok(
            subject,
            format!("with {how} works, at any offset and length"),
        ),
        Ok(false) => Finding::fault(
            subject,
            format!("what was written with {how} is not what is read back"),
            "see what the server's and this host's kernel log say",
        ),
        Err(error) => Finding::fault(
            subject,
            format!("with {how} fails: {}", reason(&error)),
            "guarded files are written so; is the disk full, or the kernel too old?",
        ),
    })
}

/// The difference between the server's clock and ours.
fn clock(dir: &Arc<OwnedFd>) -> io::Result<Finding> {
    let subject = "clock";
    let ours = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        Timestamp {
            sec: now.as_secs() as i64,
            nsec: now.subsec_nanos(),
        }
    };
    let before = ours();
    let theirs = survey::server_time(dir)?;
    let after = ours();
    let behind = survey::between(theirs, before);
    let ahead = survey::between(after, theirs);
    let (difference, way) = match behind > ahead {
        true => (behind, "behind"),
        false => (ahead, "ahead of"),
    };
    let what = format!(
        "the file system's clock is {} {way} this host's",
        locks::age(difference.as_secs_f64())
    );
    Ok(match difference {
        d if d < CLOCK_NOTE => Finding::ok(subject, "the file system's clock is that of this host"),
        d if d < CLOCK_WARNING => Finding::note(
            subject,
            format!("{what}; dotlockfs compares no clocks of two hosts"),
        ),
        _ => Finding::warning(
            subject,
            format!(
                "{what}; dotlockfs compares no clocks of two hosts, but programs that judge \
                 X.lock by its age do, and make(1)"
            ),
            "let both keep the right time (NTP)",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_plain_directory_passes_and_nothing_is_left() {
        let world = tempfile::tempdir().unwrap();
        let dir = Arc::new(std::fs::File::open(world.path()).unwrap().into());
        let system = FileSystem::of(&dir).unwrap();
        let found = findings(&dir, &system, &|| false);
        assert_eq!(found.len(), 6);
        for finding in found {
            assert_eq!(finding.level, Level::Ok, "{}", finding.text());
        }
        assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), 0);
        assert_eq!(findings(&dir, &system, &|| true).len(), 1);
    }
}
