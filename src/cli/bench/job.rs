//! What is measured, as it is done by one process: this executable, run again.
//!
//! A process of its own, since one that hangs in a mount can be killed, and the mount be taken down.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::cli::stage::judge::{self, Shape};
use crate::sys;

/// How much is read or written by one call of a large file, in bytes.
const CHUNK: usize = 1 << 20;
/// The size of a random read, in bytes.
pub const BLOCK: usize = 4096;
/// What is written to a small file.
const SMALL: &[u8] = b"a small file, as there are many in a source tree\n";
/// Files in each directory of a tree.
pub const FILES_IN_DIRECTORY: u32 = 100;

/// How an appending program has its file open, and when it makes sure that its records are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    /// Opened, written and closed for each record.
    OpenEach,
    /// Held open.
    Held,
    /// Held open, with fsync(2) after each record.
    HeldSyncEach,
    /// Held open, with one fsync(2) at the end.
    HeldSyncAtEnd,
}

/// A piece of work.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// Appends records of 90 bytes for this time, and at least one.
    Append {
        file: PathBuf,
        writer: u32,
        style: Style,
        time: Duration,
    },
    /// Writes a new file of so many bytes, and makes it durable.
    Write { file: PathBuf, bytes: u64 },
    /// Reads a file from the beginning to the end, after `forget` was dropped from memory.
    Read { file: PathBuf, forget: Vec<PathBuf> },
    /// Reads blocks anywhere in a file for this time.
    Random {
        file: PathBuf,
        forget: Vec<PathBuf>,
        time: Duration,
    },
    /// Makes small files, `0` and so on, in a directory.
    Create { directory: PathBuf, files: u32 },
    /// Asks for the attributes of each of them.
    Stat { directory: PathBuf, files: u32 },
    /// Renames each of them, to `0.new` and so on.
    Rename { directory: PathBuf, files: u32 },
    /// Removes what was renamed.
    Unlink { directory: PathBuf, files: u32 },
    /// Makes a directory with a tree of files, [`FILES_IN_DIRECTORY`] in each directory.
    Plant { tree: PathBuf, files: u32 },
    /// Lists each directory of a tree, and asks for the attributes of each file.
    Walk { tree: PathBuf },
}

impl Job {
    /// The file, directory or tree that it is about.
    fn path(&self) -> &Path {
        match self {
            Job::Append { file, .. }
            | Job::Write { file, .. }
            | Job::Read { file, .. }
            | Job::Random { file, .. } => file,
            Job::Create { directory, .. }
            | Job::Stat { directory, .. }
            | Job::Rename { directory, .. }
            | Job::Unlink { directory, .. } => directory,
            Job::Plant { tree, .. } | Job::Walk { tree } => tree,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Done {
    /// How much was done: records, bytes, reads, files.
    pub count: u64,
    /// When it began and ended, by the clock of this machine.
    pub began: Duration,
    /// See `began`.
    pub ended: Duration,
    /// Bytes that were fetched from the disk for this process.
    pub from_disk: u64,
}

/// Waits for the end of the input, does a job and writes to the output what came of it, as JSON.
///
/// # Errors
/// Those of the calls that the job is about, and of understanding the job.
pub fn run(job: &str) -> Result<(), Box<dyn Error>> {
    let job: Job = serde_json::from_str(job)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    if let Job::Read { forget, .. } | Job::Random { forget, .. } = &job {
        for file in forget {
            let dropped = File::open(file).and_then(sys::fs::drop_cached);
            dropped.map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    let fetched = fetched();
    let began = sys::process::boottime();
    let count = perform(&job).map_err(|error| format!("{}: {error}", job.path().display()))?;
    let done = Done {
        count,
        began,
        ended: sys::process::boottime(),
        from_disk: self::fetched().saturating_sub(fetched),
    };
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

/// Bytes that this process has fetched from a disk.
fn fetched() -> u64 {
    super::daemon::io(std::process::id(), "read_bytes").unwrap_or(0)
}

fn perform(job: &Job) -> io::Result<u64> {
    match job {
        Job::Append {
            file,
            writer,
            style,
            time,
        } => append(file, *writer, *style, *time),
        Job::Write { file, bytes } => write(file, *bytes),
        Job::Read { file, .. } => read(file),
        Job::Random { file, time, .. } => random(file, *time),
        Job::Create { directory, files } => each(*files, |number| {
            let mut file = File::create_new(directory.join(number.to_string()))?;
            file.write_all(SMALL)
        }),
        Job::Stat { directory, files } => each(*files, |number| {
            fs::symlink_metadata(directory.join(number.to_string())).map(drop)
        }),
        Job::Rename { directory, files } => each(*files, |number| {
            let file = directory.join(number.to_string());
            fs::rename(&file, file.with_extension("new"))
        }),
        Job::Unlink { directory, files } => each(*files, |number| {
            fs::remove_file(directory.join(format!("{number}.new")))
        }),
        Job::Plant { tree, files } => plant(tree, *files),
        Job::Walk { tree } => walk(tree),
    }
}

fn each(files: u32, work: impl FnMut(u32) -> io::Result<()>) -> io::Result<u64> {
    (0..files).try_for_each(work)?;
    Ok(u64::from(files))
}

fn append(path: &Path, writer: u32, style: Style, time: Duration) -> io::Result<u64> {
    let open = || File::options().append(true).create(true).open(path);
    let began = Instant::now();
    let held = match style {
        Style::OpenEach => None,
        _ => Some(open()?),
    };
    let mut number = 0;
    while number == 0 || began.elapsed() < time {
        number += 1;
        let record = judge::render(Shape::Even, writer, number);
        match &held {
            None => open()?.write_all(record.as_bytes())?,
            Some(file) => {
                let mut file = file;
                file.write_all(record.as_bytes())?;
                if style == Style::HeldSyncEach {
                    file.sync_all()?;
                }
            }
        }
    }
    if let (Some(file), Style::HeldSyncAtEnd) = (&held, style) {
        file.sync_all()?;
    }
    Ok(u64::from(number))
}

fn write(path: &Path, bytes: u64) -> io::Result<u64> {
    // Not zeros, which a file system might not store.
    let chunk: Vec<u8> = (0..CHUNK).map(|index| (index % 251) as u8).collect();
    let mut file = File::create_new(path)?;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(CHUNK as u64);
        file.write_all(&chunk[..length as usize])?;
        left -= length;
    }
    file.sync_all()?;
    Ok(bytes)
}

fn read(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}

fn random(path: &Path, time: Duration) -> io::Result<u64> {
    let file = File::open(path)?;
    let blocks = (file.metadata()?.len() / BLOCK as u64).max(1);
    let mut block = [0; BLOCK];
    let mut random = rand::rng();
    let began = Instant::now();
    let mut reads = 0;
    while reads == 0 || began.elapsed() < time {
        let offset = BLOCK as u64 * random.random_range(0..blocks);
        sys::fs::pread(&file, &mut block, offset)?;
        reads += 1;
    }
    Ok(reads)
}

fn plant(tree: &Path, files: u32) -> io::Result<u64> {
    fs::create_dir(tree)?;
    let mut directory = PathBuf::new();
    each(files, |number| {
        if number % FILES_IN_DIRECTORY == 0 {
            directory = tree.join((number / FILES_IN_DIRECTORY).to_string());
            fs::create_dir(&directory)?;
        }
        File::create_new(directory.join(number.to_string())).map(drop)
    })
}

/// What `git status` does: it lists all directories, and asks for each file by its path from the
/// root of the tree.
fn walk(tree: &Path) -> io::Result<u64> {
    std::env::set_current_dir(tree)?;
    let mut directories = vec![PathBuf::from(".")];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = directory.join(entry?.file_name());
            if fs::symlink_metadata(&path)?.is_dir() {
                directories.push(path);
            } else {
                files += 1;
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stage::judge::Expectation;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn every_style_appends_what_it_says() {
        let folder = tempfile::tempdir().unwrap();
        for style in [
            Style::OpenEach,
            Style::Held,
            Style::HeldSyncEach,
            Style::HeldSyncAtEnd,
        ] {
            let file = folder.path().join(format!("{style:?}"));
            let records = [append(&file, 1, style, SHORT).unwrap() as u32];
            let expectation = Expectation {
                shape: Shape::Even,
                records: &records,
            };
            let content = fs::read(&file).unwrap();
            assert!(judge::judge(&content, expectation).is_perfect());
            assert_eq!(content.len(), judge::EVEN * records[0] as usize);
        }
    }

    #[test]
    fn files_are_written_and_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large");
        let bytes = (CHUNK + 5) as u64;
        assert_eq!(write(&file, bytes).unwrap(), bytes);
        assert_eq!(read(&file).unwrap(), bytes);
        assert!(random(&file, SHORT).unwrap() > 0);
    }

    #[test]
    fn a_tree_has_the_files_that_it_was_planted_with() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        assert_eq!(plant(&tree, 250).unwrap(), 250);
        let found = |directory: &str| fs::read_dir(tree.join(directory)).unwrap().count();
        assert_eq!((found("."), found("0"), found("2")), (3, 100, 50));
    }
}
