//! The rules, and the mounts of the directory on this host: do all go by the same?

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Finding;
use crate::backing::proc_path;
use crate::cli::bare::{self, Unreachable};
use crate::config::error::shown;
use crate::config::{ConfigError, FILE_NAME, Rules};
use crate::sys::mount_table;

/// The rule file at the root of the mount, or in the directory itself.
pub(super) struct RuleFile {
    path: PathBuf,
    /// `None` where there is no such file.
    rules: Result<Option<Rules>, ConfigError>,
}

impl RuleFile {
    /// # Errors
    /// Where the root of the mount cannot be reached.
    pub(super) fn read(
        dir: &Arc<OwnedFd>,
        path: &Path,
        mount: Option<&Path>,
    ) -> Result<RuleFile, Unreachable> {
        let root = match mount {
            Some(point) => Arc::new(bare::open(point)?.dir),
            None => Arc::clone(dir),
        };
        let at = PathBuf::from(OsStr::from_bytes(proc_path(&*root).to_bytes())).join(FILE_NAME);
        let path = mount.unwrap_or(path).join(FILE_NAME);
        let rules = match Rules::load_at(&at, &path) {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        };
        Ok(RuleFile { path, rules })
    }

    /// The longest time without a sign of life that a holder may take, if a rule says so.
    pub(super) fn stale_after(&self) -> Option<Duration> {
        let rules = self.rules.as_ref().ok()?.as_ref()?;
        rules.rules().iter().map(|rule| rule.stale_after).max()
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let subject = "rules";
        let rules = match &self.rules {
            Ok(Some(rules)) => rules,
            Ok(None) => {
                return vec![Finding::note(
                    subject,
                    format!(
                        "there is no {FILE_NAME}: every file is guarded for appends, flock and \
                         fcntl, and none for updates in place and renames"
                    ),
                )];
            }
            Err(error) => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                let advice = "see: dotlockfs check-config DIR";
                return vec![Finding::fault(subject, first, advice)];
            }
        };
        let number = match rules.rules().len() {
            1 => "1 rule".to_owned(),
            number => format!("{number} rules"),
        };
        let valid = format!(
            "{}: {number}, the same for all hosts that mount this directory without --config and \
             guard=",
            shown(&self.path)
        );
        let mut found = vec![Finding::ok(subject, valid)];
        let warnings = rules.warnings().into_iter();
        found.extend(warnings.map(|warning| Finding::note(subject, warning)));
        found
    }
}

/// The mounts of the directory on this host.
pub(super) fn mounts(path: &Path, mount: Option<&Path>) -> Vec<Finding> {
    let subject = "mounts here";
    let table = mount_table::read().unwrap_or_default();
    let ours = table.iter().filter(|entry| {
        let is_asked = mount == Some(entry.point.as_path());
        entry.kind == mount_table::OURS && (is_asked || path.starts_with(&entry.source))
    });
    let mut points: Vec<&Path> = ours.map(|entry| entry.point.as_path()).collect();
    points.sort();
    // A dead one below another is at the same place.
    points.dedup();
    if points.is_empty() {
        let what = "dotlockfs is not mounted over this directory on this host; programs that write \
                    to it from here are not guarded";
        return vec![Finding::note(subject, what)];
    }
    points
        .iter()
        .map(|point| mounted_at(subject, point))
        .collect()
}

fn mounted_at(subject: &'static str, point: &Path) -> Finding {
    let daemon = match bare::open(point) {
        Ok(bare) => match bare.mount {
            Some(over) => over.daemon,
            None => return Finding::note(subject, format!("{}: just ended", shown(point))),
        },
        Err(Unreachable::Forbidden(line)) => return Finding::note(subject, line),
        Err(Unreachable::Dead(line)) => {
            let advice = "as root, or whose mount it is";
            return Finding::warning(subject, line, advice);
        }
        Err(Unreachable::Other(line)) => {
            let advice = "see what the log of its daemon says";
            return Finding::warning(subject, line, advice);
        }
    };
    let place = format!("{}, served by process {daemon}", shown(point));
    match own_rules(&arguments(daemon)) {
        None => Finding::ok(subject, place),
        Some(option) => Finding::warning(
            subject,
            format!(
                "{place}, with rules of its own ({})",
                shown(Path::new(&option))
            ),
            "see that all hosts use the same: rules in .dotlockfs.toml in the directory itself are \
             the same for all",
        ),
    }
}

fn arguments(pid: u32) -> Vec<OsString> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect()
}

/// The argument of a daemon by which it goes by other rules than those in the directory.
fn own_rules(arguments: &[OsString]) -> Option<OsString> {
    arguments.iter().enumerate().find_map(|(at, argument)| {
        let bytes = argument.as_bytes();
        if bytes == b"--config" {
            let mut both = argument.clone();
            both.push(" ");
            both.push(arguments.get(at + 1)?);
            return Some(both);
        }
        let options = bytes.strip_prefix(b"-o").unwrap_or(bytes);
        let mut words = options.split(|&byte| byte == b',');
        let is_own = |word: &[u8]| word.starts_with(b"guard=") || word.starts_with(b"config=");
        (bytes.starts_with(b"--config=") || words.any(is_own)).then(|| argument.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_daemons_own_are_seen() {
        let found = |arguments: &str| {
            let arguments: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
            own_rules(&arguments).map(|option| option.into_string().unwrap())
        };
        for (arguments, expected) in [
            ("dotlockfs a b -o allow_other", None),
            ("dotlockfs a b --config x", Some("--config x")),
            ("dotlockfs --config=x a b", Some("--config=x")),
            ("dotlockfs a b -o ro,guard=*.log", Some("ro,guard=*.log")),
            ("dotlockfs a b -oconfig=x", Some("-oconfig=x")),
        ] {
            assert_eq!(found(arguments).as_deref(), expected, "{arguments}");
        }
    }
}
