//! Directories that are made for a run, and removed after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::interrupt::Failure;
use super::mounts;

/// How long to try: a daemon that was just unmounted may still remove files of its own.
const DEADLINE: Duration = Duration::from_secs(3);

/// A new directory, removed when it goes out of scope unless it is to be kept.
#[derive(Debug)]
pub struct Scratch {
    /// Where it is; canonical, because that is how the kernel names mount points.
    pub path: PathBuf,
    keep: bool,
}

impl Scratch {
    /// Makes a directory in `parent`, of a name that begins with `prefix`.
    ///
    /// # Errors
    /// A sentence that names `parent`.
    pub fn new(parent: &Path, prefix: &str, keep: bool) -> Result<Scratch, Failure> {
        let failed = |error| Failure::on("create a directory in", parent, error);
        let parent = parent.canonicalize().map_err(failed)?;
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(parent)
            .map(TempDir::keep)
            .map_err(failed)?;
        Ok(Scratch { path, keep })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep {
            // Said on every way out: after a failure they are wanted most.
            eprintln!("The files are kept in {}", self.path.display());
            return;
        }
        // Never into a mount that could not be unmounted: the files in it are another's.
        if mounts::is_any_below(&self.path) {
            return;
        }
        remove(&self.path);
    }
}

/// Removes a directory with all that is in it; what does not work is told, not returned.
pub fn remove(path: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = fs::remove_dir_all(path) {
        if error.kind() == std::io::ErrorKind::NotFound {
            return;
        }
        if Instant::now() > deadline {
            eprintln!("dotlockfs: cannot remove {}: {error}", path.display());
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a directory that is not there yet.
///
/// # Errors
/// A sentence that names the directory.
pub fn make_directory(path: &Path) -> Result<(), Failure> {
    fs::create_dir(path).map_err(|error| Failure::on("create the directory", path, error))
}
