//! Where the rules of a mount stand, and how they are read.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use crate::backing;
use crate::config::error::shown;
use crate::config::{self, ConfigError, MountOptions, Rules};
use crate::sys;

/// Where rules stand.
#[derive(Debug)]
pub(crate) enum Origin {
    /// In a file.
    File(RuleFile),
    /// In the mount option `guard=`: these patterns.
    Option(Vec<String>),
}

/// A rule file.
#[derive(Debug)]
pub(crate) struct RuleFile {
    /// Absolute, since the daemon does not stay in the directory in which it was started.
    path: PathBuf,
    /// The way to it where it lies in the source, over which the mount may stand: the source, and the
    /// path from there.
    below: Option<(OwnedFd, PathBuf)>,
    /// Somebody has asked for this very file. Else there need not be one.
    asked_for: bool,
}

impl Origin {
    /// Where the rules of a mount of `source` stand: on the command line, else at the root of the
    /// source, if there. What lies in one of `places` is reached by way of `root`, on which the source
    /// is open.
    ///
    /// # Errors
    /// A line for the user where two places are named.
    pub(crate) fn new(
        file: Option<&Path>,
        options: &MountOptions,
        source: &Path,
        (root, places): (&OwnedFd, &[&Path]),
    ) -> Result<Origin, String> {
        let path = match (file, options.guard.is_empty()) {
            (Some(_), false) => {
                return Err(
                    "a rule file and -o guard=... exclude each other; give one of them".into(),
                );
            }
            (None, false) => return Ok(Origin::Option(options.guard.clone())),
            (Some(file), true) => std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            (None, true) => source.join(config::FILE_NAME),
        };
        let leads_out = |component| component == Component::ParentDir;
        let within = places
            .iter()
            .find_map(|place| path.strip_prefix(place).ok())
            .filter(|within| !within.components().any(leads_out));
        let below = within.and_then(|within| Some((root.try_clone().ok()?, within.to_owned())));
        Ok(Origin::File(RuleFile {
            path,
            below,
            asked_for: file.is_some(),
        }))
    }

    /// The file, where they stand in one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Origin::File(file) => Some(&file.path),
            Origin::Option(_) => None,
        }
    }

    /// Reads the rules. Where nobody has asked for the file, and there is none, everything is guarded.
    ///
    /// # Errors
    /// What is wrong with the file, or the patterns.
    pub(crate) fn load(&self) -> Result<Rules, ConfigError> {
        match self {
            Origin::Option(globs) => Rules::from_globs(globs),
            Origin::File(file) => match file.load() {
                Err(error) if error.is_not_found() && !file.asked_for => Ok(Rules::everything()),
                other => other,
            },
        }
    }

    /// Reads the rules again, after `before` was in force. A file that is gone does not unmake its
    /// rules: it may just be on its way, and a server's client may not know it yet.
    ///
    /// # Errors
    /// A line for the log.
    pub(super) fn load_again(&self, before: &Rules) -> Result<Rules, String> {
        let Origin::File(file) = self else {
            return Err("they stand in the option guard=, which cannot be read again".to_owned());
        };
        file.look_anew();
        match file.load() {
            Err(error)
                if error.is_not_found()
                    && !file.asked_for
                    && before.guards_everything_alike().is_some() =>
            {
                Ok(Rules::everything())
            }
            other => other.map_err(|error| {
                let error = error.to_string();
                error.lines().next().unwrap_or_default().to_owned()
            }),
        }
    }

    /// The rules that were read from there, in a few words.
    pub(super) fn words(&self, rules: &Rules) -> String {
        let number = match rules.rules().len() {
            1 => "1 rule".to_owned(),
            number => format!("{number} rules"),
        };
        match self {
            _ if rules.guards_everything_alike().is_some() => {
                "no rules: appends and locks of all files are guarded".to_owned()
            }
            Origin::Option(_) => format!("{number} by guard="),
            Origin::File(file) => format!("{number} of {}", shown(&file.path)),
        }
    }
}

impl RuleFile {
    fn load(&self) -> Result<Rules, ConfigError> {
        Rules::load_at(&self.at(), &self.path)
    }

    /// The path by which it is reached.
    fn at(&self) -> PathBuf {
        match &self.below {
            Some((root, within)) => bare(root).join(within),
            None => self.path.clone(),
        }
    }

    /// Lets an NFS client know that its directory has changed: else it might open the old file where
    /// another host has put a new one.
    fn look_anew(&self) {
        let at = self.at();
        let mut options = fs::OpenOptions::new();
        options
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY);
        if let Some(dir) = at.parent()
            && let Ok(dir) = options.open(dir)
        {
            let _ = sys::fs::statx(&dir, c"", libc::AT_STATX_FORCE_SYNC);
        }
    }
}

/// A path by which the source is reached, whatever is mounted over it.
fn bare(root: &OwnedFd) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(backing::proc_path(root).to_bytes()))
}
