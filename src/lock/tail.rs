//! The sign that a program has left the last record of a file unfinished, and closed it.
//!
//! After a broken turn half a record at the end of the file is taken for one that did not come to
//! its end, and left out. What a program has written so, and was acknowledged, must stay: so where
//! such a record ends is noted beside the file.

use std::io;

use super::directory::Directory;
use super::names::LockNames;

/// Puts the sign up: what ends at `end` is meant to be so.
///
/// # Errors
/// Those of the directory.
pub fn put(dir: &impl Directory, names: &LockNames, end: u64) -> io::Result<()> {
    dir.create_anew(&names.tail(), format!("{end}\n").as_bytes())
}

/// Where the last such record ended. (Other records may have followed.)
///
/// # Errors
/// Those of the directory.
pub fn look(dir: &impl Directory, names: &LockNames) -> io::Result<Option<u64>> {
    let name = names.tail();
    if dir.identity(&name)?.is_none() {
        return Ok(None);
    }
    let text = dir.read_if_ours(&name)?;
    Ok(std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.strip_suffix('\n')?.parse().ok()))
}
