//! The sign that a file is being written to in several steps, for readers on other hosts.
//!
//! A batch that is longer than one WRITE call (`wsize`) arrives at the server in pieces, in any
//! order. Before it is sent its start is noted in a file beside the guarded one, and that file is
//! removed after it: a reader who finds it shows the file up to there only. The sign is for
//! readers alone; nobody's data rests on it, so it has one name for all turns, and one that was
//! left behind is known by its turn being over.

use std::io;

use super::directory::Directory;
use super::names::LockNames;

/// What the sign says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The turn under which the file is being written.
    pub turn: u64,
    /// Where the write begins.
    pub start: u64,
}

/// Puts the sign up.
///
/// # Errors
/// Those of the directory.
pub fn put(dir: &impl Directory, names: &LockNames, part: Part) -> io::Result<()> {
    // One that is there was left behind by a turn that is over, since we hold the one that is not.
    let text = format!("{} {}\n", part.turn, part.start);
    dir.create_anew(&names.part(), text.as_bytes())
}

/// Takes the sign down.
///
/// # Errors
/// Those of the directory.
pub fn remove(dir: &impl Directory, names: &LockNames) -> io::Result<()> {
    dir.remove(&names.part())
}

/// Where the present write begins, if the sign is up and its turn is not over.
///
/// # Errors
/// Those of the directory.
pub fn look(dir: &impl Directory, names: &LockNames) -> io::Result<Option<u64>> {
    let name = names.part();
    if dir.identity(&name)?.is_none() {
        return Ok(None);
    }
    let text = match dir.read_if_ours(&name) {
        Ok(text) => text,
        // Taken down meanwhile.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(part) = parse(&text) else {
        return Ok(None);
    };
    // The end of a turn is removed some time after it, but its beginning goes first.
    let over = dir.identity(&names.done(part.turn))?.is_some()
        || dir.identity(&names.turn(part.turn))?.is_none();
    Ok((!over).then_some(part.start))
}

fn parse(text: &[u8]) -> Option<Part> {
    let text = std::str::from_utf8(text).ok()?;
    let (turn, start) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(Part {
        turn: turn.parse().ok()?,
        start: start.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::RealDirectory;
    use std::ffi::OsStr;
    use std::sync::Arc;

    #[test]
    fn the_sign_counts_while_its_turn_lasts() {
        let world = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(world.path()).unwrap();
        let dir = RealDirectory::new(Arc::new(fd.into()));
        let names = LockNames::new(OsStr::new("log"));
        assert_eq!(look(&dir, &names).unwrap(), None);
        std::fs::write(world.path().join(".log.turn.7"), "").unwrap();
        std::fs::write(world.path().join(".log.turn.8"), "").unwrap();
        put(
            &dir,
            &names,
            Part {
                turn: 7,
                start: 100,
            },
        )
        .unwrap();
        assert_eq!(look(&dir, &names).unwrap(), Some(100));
        put(
            &dir,
            &names,
            Part {
                turn: 8,
                start: 200,
            },
        )
        .unwrap();
        std::fs::write(world.path().join(".log.done.7"), "").unwrap();
        assert_eq!(look(&dir, &names).unwrap(), Some(200));
        std::fs::write(world.path().join(".log.done.8"), "").unwrap();
        assert_eq!(look(&dir, &names).unwrap(), None);
        std::fs::remove_file(world.path().join(".log.turn.8")).unwrap();
        std::fs::remove_file(world.path().join(".log.done.8")).unwrap();
        assert_eq!(look(&dir, &names).unwrap(), None, "cleaned away");
        remove(&dir, &names).unwrap();
        for hostile in [
            "",
            "x",
            "1",
            "1 \n",
            "-1 5\n",
            "1 5",
            "99999999999999999999 1\n",
        ] {
            std::fs::write(world.path().join(".log.part.0"), hostile).unwrap();
            assert_eq!(look(&dir, &names).unwrap(), None, "{hostile:?}");
        }
    }
}
