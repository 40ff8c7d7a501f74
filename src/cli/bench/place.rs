//! A place to measure in: a new directory in the one that is asked about, with mounts of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon;
use super::host::{Ground, Host};
use super::measures::{Ack, Kind};
use super::together::{self, Together};
use crate::cli::stage::interrupt::{Failure, Interrupts};
use crate::cli::stage::mounts::{self, Mount};
use crate::cli::stage::scratch::{Scratch, make_directory};

const PREFIX: &str = "dotlockfs-bench-";
/// The beginning of the names of guarded files.
const GUARDED: &str = "append-";
/// The large file, the trees.
const LARGE: &str = "large";
/// How much is read to see which way it goes, in bytes.
const PROBE: usize = 1 << 20;

/// Something that is measured: a way to a directory.
#[derive(Debug)]
pub struct Subject {
    /// Which one.
    pub kind: Kind,
    /// The directory as seen by it.
    pub root: PathBuf,
    /// The process that serves the mount.
    pub daemon: Option<u32>,
}

impl Subject {
    /// A path within the directory for what this subject writes.
    pub fn own(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(self.kind.name()).join(name)
    }

    /// The large file, which all of them read.
    pub fn large(&self) -> PathBuf {
        self.root.join(LARGE)
    }
}

/// The directory and its mounts. The order of the fields is that of taking down: mounts first.
#[derive(Debug)]
pub struct Place {
    mounts: Vec<Mount>,
    together: Option<(Together, usize)>,
    _shared: Option<Scratch>,
    local: Scratch,
    /// The directory that is mounted.
    pub source: PathBuf,
    /// Where it lies.
    pub ground: Ground,
    /// What is measured here.
    pub subjects: Vec<Subject>,
}

impl Place {
    /// Makes a directory in `parent` and mounts it.
    ///
    /// # Errors
    /// A signal, or a sentence.
    pub fn set(
        parent: &Path,
        role: Option<(&str, usize)>,
        host: &Host,
        dotlockfs: &Path,
        interrupts: &Interrupts,
    ) -> Result<Place, Failure> {
        let parent = parent
            .canonicalize()
            .map_err(|error| Failure::on("use the directory", parent, error))?;
        // Not in DIR: a mount point must be a local directory that is surely ours.
        let local = Scratch::new(&std::env::temp_dir(), PREFIX, false)?;
        let (shared, together) = match role {
            None => (Some(Scratch::new(&parent, PREFIX, false)?), None),
            Some((role, hosts)) => (None, Some(Together::begin(&parent, role, hosts)?)),
        };
        let above = match (&shared, &together) {
            (Some(shared), _) => &shared.path,
            (_, Some(together)) => &together.path,
            _ => &parent,
        };
        let source = above.join("source");
        together::make(&source)?;
        let rules = source.join(crate::config::FILE_NAME);
        fs::write(&rules, self::rules()).map_err(|error| Failure::on("write", &rules, error))?;
        for kind in [Kind::Plain, Kind::Dotlockfs, Kind::Asking, Kind::Bindfs] {
            together::make(&source.join(kind.name()))?;
        }
        let together = match together {
            Some(together) => {
                let number = together.assemble(interrupts)?;
                Some((together, number))
            }
            None => None,
        };
        let plain = Subject {
            kind: Kind::Plain,
            root: source.clone(),
            daemon: None,
        };
        let mut place = Place {
            mounts: Vec::new(),
            together,
            _shared: shared,
            local,
            source,
            ground: Ground::of(&parent),
            subjects: vec![plain],
        };
        place.add_mounts(host, dotlockfs, interrupts)?;
        Ok(place)
    }

    fn add_mounts(
        &mut self,
        host: &Host,
        dotlockfs: &Path,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        self.add(Kind::Dotlockfs, dotlockfs)?;
        if self.together.is_some() {
            return Ok(());
        }
        self.ground.passthrough = self.sees_passthrough()?;
        interrupts.check()?;
        if self.ground.passthrough == Some(true) {
            self.add(Kind::Asking, dotlockfs)?;
        }
        interrupts.check()?;
        if host.bindfs.is_some() {
            self.add(Kind::Bindfs, dotlockfs)?;
        }
        Ok(())
    }

    fn add(&mut self, kind: Kind, dotlockfs: &Path) -> Result<(), Failure> {
        let mount = self.mount(kind, dotlockfs, kind.name())?;
        self.subjects.push(Subject {
            kind,
            root: mount.point().to_owned(),
            daemon: Some(mount.daemon()?),
        });
        self.mounts.push(mount);
        Ok(())
    }

    /// A mount of the directory, at a new place of this name.
    ///
    /// # Errors
    /// A sentence.
    pub fn mount(&self, kind: Kind, dotlockfs: &Path, name: &str) -> Result<Mount, Failure> {
        let mut command = mounts::command(dotlockfs);
        match kind {
            Kind::Bindfs => {
                command = Command::new("bindfs");
                if !mounts::is_root() {
                    command.arg("--no-allow-other");
                }
            }
            Kind::Asking => {
                command.args(["-o", "nopassthrough"]);
            }
            Kind::Plain | Kind::Dotlockfs => {}
        }
        let point = self.local.path.join(name);
        make_directory(&point)?;
        let log = self.local.path.join(format!("{name}.log"));
        Mount::new(command, &self.source, &point, &log)
    }

    /// Whether what is read of an unguarded file goes past the daemon; `None` where that cannot be
    /// told.
    fn sees_passthrough(&self) -> Result<Option<bool>, Failure> {
        let Some(subject) = self.subjects.last() else {
            return Ok(None);
        };
        let probe = self.source.join("probe");
        fs::write(&probe, vec![1; PROBE]).map_err(|error| Failure::on("write", &probe, error))?;
        let read = |pid| daemon::io(pid, "rchar");
        let before = subject.daemon.and_then(read);
        let seen = subject.root.join("probe");
        fs::read(&seen).map_err(|error| Failure::on("read", &seen, error))?;
        let after = subject.daemon.and_then(read);
        let read_by_daemon = before.zip(after).map(|(before, after)| after - before);
        Ok(read_by_daemon.map(|bytes| bytes < PROBE as u64))
    }

    /// The file that a subject's writers append to in a run, by its name in all ways to the
    /// directory.
    pub fn appended(subject: &Subject, ack: Ack, run: &str) -> PathBuf {
        Path::new(subject.kind.name()).join(format!("{GUARDED}{}-{run}", ack.name()))
    }

    /// Where the hosts meet, and which of them this one is.
    pub fn together(&self) -> Option<(&Together, usize)> {
        self.together
            .as_ref()
            .map(|(together, number)| (together, *number))
    }
}

/// Only what is appended to is guarded.
fn rules() -> String {
    let rule = |ack: Ack| {
        let ack = ack.name();
        format!("\n[[guard]]\nfiles = [\"{GUARDED}{ack}-*\"]\nack = \"{ack}\"\n")
    };
    format!("version = 1\n{}{}", rule(Ack::Write), rule(Ack::Close))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rules;

    #[test]
    fn the_rules_are_understood() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rules.toml");
        fs::write(&file, rules()).unwrap();
        assert!(Rules::load(&file).is_ok());
    }
}
