//! What stands in the directory of a guarded file may have been written by anybody: names and
//! contents of any kind are understood or not, and what is understood is written again alike.

#![no_main]

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use dotlockfs::lock::dotlock::{self, Dotlock};
use dotlockfs::lock::fence::{self, Fence};
use dotlockfs::lock::names::{LockNames, Step, is_end, is_hidden};
use dotlockfs::lock::{Directory, Identity, Owner, Sign, Turn, Unfinished, part, tail};
use dotlockfs::sys::fs::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    records(data);
    names(data);
    let dir = Hostile::new(data);
    let names = LockNames::new(OsStr::new("log"));
    let at = (c".log.claim.h.1.0123456789abcdef", Duration::ZERO);
    let start = part::look(&dir, &names).expect("no call fails here");
    let end = tail::look(&dir, &names).expect("no call fails here");
    let newest = fence::newest(&dir, &names, at).expect("no call fails here");
    if let Some((_, Some(fence))) = newest {
        assert_eq!(names.step(fence.staged.to_bytes()), Some(Step::Stage));
    }
    let number = start.or(end).unwrap_or(7);
    for turn in [0, number, u64::MAX] {
        let _ = fence::fate(&dir, &names, (turn, number), at).expect("no call fails here");
    }
    fence::clean(&dir, &names, number);
    let turn = Turn {
        n: number,
        actor: None,
        claim: at.0.to_owned(),
        identity: Identity { dev: 1, ino: 2 },
        taken: Duration::ZERO,
        sign: Duration::ZERO,
        inherits: false,
    };
    // What a daemon has left is removed, what anybody else has made is respected.
    let is_ours = Owner::parse(dir.contents).is_some();
    dir.removed.set(false);
    let taken = dotlock::take(&dir, &turn, c"log.lock").expect("no call fails here");
    assert_eq!(taken, Dotlock::Foreign);
    assert_eq!(dir.removed.take(), is_ours);
    let seen = &mut None;
    let limit = ("host", Duration::MAX);
    let _ = dotlock::is_left_behind(&dir, c"log.lock", seen, limit, Duration::ZERO)
        .expect("no call fails here");
});

/// Records read back as they are written.
fn records(data: &[u8]) {
    if let Some(owner) = Owner::parse(data) {
        let text = owner.to_text("0123456789abcdef");
        assert_eq!(Owner::parse(text.as_bytes()).as_ref(), Some(&owner));
        // Whether such a process lives can be asked, whatever its numbers.
        assert!(!owner.to_string().is_empty());
        let _ = owner.has_ended(&owner);
        let whole = text + &Unfinished::to_text(None);
        assert_eq!(Unfinished::parse(whole.as_bytes()), None);
    }
    if let Some(write) = Unfinished::parse(data) {
        let note = Unfinished::to_text(Some(write));
        assert_eq!(note.len(), Unfinished::to_text(None).len());
        let whole = "\n".repeat(8) + &note;
        assert_eq!(Unfinished::parse(whole.as_bytes()), Some(write));
    }
    let names = LockNames::new(OsStr::new("log"));
    if let Some(fence) = Fence::parse(data, &names) {
        let text = fence.to_text();
        assert_eq!(Fence::parse(text.as_bytes(), &names), Some(fence));
    }
}

/// The input as a name of the directory, and as that of a guarded file.
fn names(data: &[u8]) {
    let name = &data[..data.len().min(255)];
    let hidden = is_hidden(name);
    assert!(!is_end(name) || hidden);
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return;
    }
    let names = LockNames::new(OsStr::from_bytes(name));
    if names.step(name).is_some() {
        assert!(hidden);
    }
    let number = data.len() as u64;
    for made in [
        names.turn(number),
        names.done(number),
        names.fence(number),
        names.kept(number),
        names.note(u64::MAX),
        names.stage(u64::MAX),
        names.copy(number),
        names.witness(number),
        names.part(),
        names.tail(),
        names.claim(&String::from_utf8_lossy(data), u32::MAX, "0123456789abcdef"),
    ] {
        let bytes = made.to_bytes();
        assert!(bytes.len() <= 255, "{made:?}");
        assert!(names.step(bytes).is_some() && is_hidden(bytes), "{made:?}");
    }
    assert_eq!(
        names.step(names.turn(number).to_bytes()),
        Some(Step::Turn(number))
    );
    assert!(names.is_claim(&names.claim("", 0, "0123456789abcdef")));
    if let Some(lock) = names.dotlock() {
        assert!(lock.to_bytes().len() <= 255);
        assert!(!is_hidden(lock.to_bytes()) || hidden);
    }
}

/// A directory in which every name exists, each with the same contents, and a listing shows the
/// lines of these.
struct Hostile<'a> {
    contents: &'a [u8],
    /// Whether anything was removed.
    removed: std::cell::Cell<bool>,
}

impl Hostile<'_> {
    fn new(contents: &[u8]) -> Hostile<'_> {
        Hostile {
            contents,
            removed: std::cell::Cell::new(false),
        }
    }
}

impl Directory for Hostile<'_> {
    fn link(&self, _old: &CStr, _new: &CStr) -> io::Result<()> {
        Err(io::ErrorKind::AlreadyExists.into())
    }
    fn sign(&self, _name: &CStr) -> io::Result<Option<Sign>> {
        Ok(Some(Sign {
            identity: Identity { dev: 1, ino: 1 },
            mtime: Timestamp::default(),
        }))
    }
    fn rename(&self, _old: &CStr, _new: &CStr) -> io::Result<()> {
        Ok(())
    }
    fn annotate(&self, _name: &CStr, _id: Identity, _at: u64, _text: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn steps(
        &self,
        names: &LockNames,
        _claim: &CStr,
        now: Duration,
        _max_age: Duration,
    ) -> io::Result<(Vec<(Step, CString)>, Duration)> {
        let mut seen = HashSet::new();
        let lines = self.contents.split(|byte| *byte == b'\n');
        let lines = lines.filter(|name| name.len() <= 255 && seen.insert(*name));
        let steps = lines.filter_map(|name| Some((names.step(name)?, CString::new(name).ok()?)));
        Ok((steps.collect(), now))
    }
    fn create(&self, _name: &CStr, _contents: &[u8]) -> io::Result<Identity> {
        Err(io::ErrorKind::AlreadyExists.into())
    }
    fn touch(&self, _name: &CStr, _id: Identity) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _name: &CStr) -> io::Result<()> {
        self.removed.set(true);
        Ok(())
    }
    fn read(&self, _name: &CStr) -> io::Result<Vec<u8>> {
        Ok(self.contents.to_vec())
    }
}
