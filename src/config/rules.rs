//! The rules: what each can ask for, its defaults, and which rule a path falls under.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::ConfigError;
use super::globs::{self, Patterns};
use super::{FILE_NAME, explain, parse};

/// What happens to files that match a `[[guard]]` of the rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The patterns as written; see [`globs`] for what they match. Never empty.
    pub files: Vec<String>,
    /// How writes through descriptors with `O_APPEND` are guarded. Default: [`Append::Write`].
    pub append: Append,
    /// When an append is acknowledged. Default: [`Ack::Write`].
    pub ack: Ack,
    /// What ends a record, 1 to 16 bytes. Only whole records reach the file: the rest of a
    /// write waits until its end arrives, or the file is closed. Default: none, each write
    /// goes in as it is.
    pub record: Option<Vec<u8>>,
    /// How files opened for writing without `O_APPEND` are guarded. Default: [`Update::Open`].
    pub update: Update,
    /// How a rename over the file is guarded. Default: [`Replace::Check`].
    pub replace: Replace,
    /// Whether `flock()`, `lockf()` and `fcntl()` locks hold across hosts by the guard's lock;
    /// else they are passed on to the file system below. Default: true.
    pub advisory: bool,
    /// Whether `X.lock` is taken as well while X is locked, for programs that lock in this way,
    /// and one that a program has made is respected. `X.lock` itself is not guarded then.
    /// Default: true.
    pub dotlock: bool,
    /// How long a call waits for the lock before it fails with `EAGAIN`, from 1 ms to 1 day.
    /// (`flock()` and `fcntl()` calls that wait do so as long as it takes.) Default: 30 s.
    pub lock_timeout: Duration,
    /// How long a dotlockfs lock must show no sign of life before it may be broken, from 4 s to
    /// 1 day. A holder shows one every quarter of this. Default: 60 s.
    pub stale_after: Duration,
    /// The same for an `X.lock` that another program made, which need not refresh it, from
    /// 4 s to 7 days. Default: 30 min.
    pub foreign_stale_after: Duration,
    /// What keeps late writes of a holder whose lock was broken from the file. Default:
    /// [`Fence::Copy`].
    pub fence: Fence,
    /// The largest file that is copied for that, in bytes. Default: 1 GiB.
    pub fence_limit: u64,
}

impl Rule {
    /// A rule with the default of everything but its files.
    pub(super) fn with_defaults(files: Vec<String>) -> Self {
        Self {
            files,
            append: Append::Write,
            ack: Ack::Write,
            record: None,
            update: Update::Open,
            replace: Replace::Check,
            advisory: true,
            dotlock: true,
            lock_timeout: Duration::from_secs(30),
            stale_after: Duration::from_secs(60),
            foreign_stale_after: Duration::from_secs(30 * 60),
            fence: Fence::Copy,
            fence_limit: 1 << 30,
        }
    }

    /// Whether another rule guards in the same way, whichever files it is for.
    pub fn is_as(&self, other: &Rule) -> bool {
        *self
            == Rule {
                files: self.files.clone(),
                ..other.clone()
            }
    }

    /// Whether the rule asks for any guarding. False when `append`, `update`, `replace` and
    /// `advisory` are all off: such files pass straight through. (`dotlock` and the others say
    /// only how the lock is taken.)
    pub fn guards_anything(&self) -> bool {
        self.append != Append::Off
            || self.update != Update::Off
            || self.replace != Replace::Off
            || self.advisory
    }
}

/// How writes through descriptors with `O_APPEND` are guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Append {
    /// The lock is taken around each write.
    Write,
    /// The lock is held from open to the last close.
    Open,
    /// Not guarded for its own sake; where another key guards the file, as [`Append::Write`].
    Off,
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// It is on the server before `write()` returns.
    Write,
    /// It is on the server before `close()` or `fsync()` returns.
    Close,
}

/// How files opened for writing without `O_APPEND` are guarded. (Truncation by name takes the lock
/// whatever is chosen here.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// The lock is held from open to the last close.
    Open,
    /// The program writes to a private copy, which is renamed over the file at close.
    Atomic,
    /// Not guarded.
    Off,
    /// Such an open is refused with `EROFS`.
    Deny,
}

/// How a rename over the file is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Under the lock, and refused with `ESTALE` if the process has read an older version of the
    /// file.
    Check,
    /// An open for reading takes the lock and keeps it until the rename, or until it is clear that
    /// none will come; checked as by [`Replace::Check`] too.
    Hold,
    /// Under the lock.
    Serialise,
    /// Not guarded.
    Off,
}

/// What happens to a file whose lock was broken, before anybody goes on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// A copy takes its place, so that what the old holder has under way meets the old file. A
    /// file that is too large for that ([`Rule::fence_limit`]) is gone on with as it is, and the
    /// log says so.
    Copy,
    /// The same, but a file that is too large is not gone on with: calls on it fail with EFBIG.
    Require,
    /// Nothing: a late write of the old holder may meet the file.
    Off,
}

/// A value that the rule file spells as one of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// Each value with its word, the default first.
    const WORDS: &'static [(&'static str, Self)];
}

impl Word for Append {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("write", Self::Write),
        ("open", Self::Open),
        ("off", Self::Off),
    ];
}

impl Word for Ack {
    const WORDS: &'static [(&'static str, Self)] =
        &[("write", Self::Write), ("close", Self::Close)];
}

impl Word for Update {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("open", Self::Open),
        ("atomic", Self::Atomic),
        ("off", Self::Off),
        ("deny", Self::Deny),
    ];
}

impl Word for Replace {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("check", Self::Check),
        ("hold", Self::Hold),
        ("serialise", Self::Serialise),
        ("off", Self::Off),
    ];
}

impl Word for Fence {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("copy", Self::Copy),
        ("require", Self::Require),
        ("off", Self::Off),
    ];
}

impl Word for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("true", true), ("false", false)];
}

/// All rules of a mount, in order.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Arc<Rule>>,
    /// None where there is no `[[guard]]`: then the one built-in rule holds for every path.
    patterns: Option<Patterns>,
    warnings: Vec<String>,
}

impl Rules {
    /// Whether others guard the same files in the same way.
    pub fn are_as(&self, others: &Rules) -> bool {
        self.patterns.is_none() == others.patterns.is_none() && self.rules == others.rules
    }

    /// With no rule at all, every file is guarded for appends and advisory locks: `append` and
    /// `ack` are `Write`, `advisory` and `dotlock` are on, `update` and `replace` are off.
    pub fn everything() -> Rules {
        let rule = Rule {
            update: Update::Off,
            replace: Replace::Off,
            ..Rule::with_defaults(vec!["**".to_owned()])
        };
        Rules {
            rules: vec![Arc::new(rule)],
            patterns: None,
            warnings: Vec::new(),
        }
    }

    /// Reads the text of a rule file; `path` is only for messages. A file without any
    /// `[[guard]]` means the same as no file: [`Rules::everything`].
    pub fn parse(text: &str, path: &Path) -> Result<Rules, ConfigError> {
        parse::text(text, path)
    }

    /// Reads a rule file: a regular file of at most 1 MiB, in UTF-8. A file that does not
    /// exist is an error too ([`ConfigError::is_not_found`]).
    pub fn load(path: &Path) -> Result<Rules, ConfigError> {
        parse::file(path, path)
    }

    /// The same for a file that is reached in another way than by its path, which is only for
    /// messages then.
    pub fn load_at(at: &Path, path: &Path) -> Result<Rules, ConfigError> {
        parse::file(at, path)
    }

    /// One rule for the patterns of the mount option `guard=GLOB[:GLOB...]`, with the
    /// defaults for all else. No pattern at all is an error.
    pub fn from_globs(globs: &[String]) -> Result<Rules, ConfigError> {
        if globs.is_empty() {
            return Err(ConfigError::option("guard= needs a pattern"));
        }
        let compiled = globs.iter().map(|glob| {
            globs::compile(glob).map_err(|bad| {
                let shown = super::error::shown_text(glob);
                let mut message = format!("mount option guard: \"{shown}\": {}", bad.message);
                if !bad.help.is_empty() {
                    message.push_str("\n  ");
                    message.push_str(bad.help);
                }
                if glob.contains('{') {
                    // The usual cause: the option was cut where the braces have a comma.
                    message.push_str("\n  a comma ends a mount option, and a colon a pattern; ");
                    message.push_str("with these in a pattern, use a rule file");
                }
                ConfigError::option(message)
            })
        });
        let compiled = compiled.collect::<Result<Vec<_>, _>>()?;
        let patterns = Patterns::new([&compiled[..]].into_iter())
            .map_err(|message| ConfigError::option(format!("mount option guard: {message}")))?;
        let rule = Rule::with_defaults(globs.to_vec());
        Ok(Self::new(vec![rule], patterns, Vec::new()))
    }

    /// Rules as they stand in a file, with their patterns in the same order.
    pub(super) fn new(rules: Vec<Rule>, patterns: Patterns, warnings: Vec<String>) -> Self {
        Self {
            rules: rules.into_iter().map(Arc::new).collect(),
            patterns: Some(patterns),
            warnings,
        }
    }

    /// The first rule that matches a path, or None for a file that is not guarded. The path
    /// is relative to the root of the mount, without `.` or `..`, and may hold any bytes. The
    /// rule may be one that guards nothing ([`Rule::guards_anything`]). The rule file itself
    /// is never matched by a pattern.
    pub fn rule_for(&self, path: &Path) -> Option<&Arc<Rule>> {
        self.place_of(path).map(|(rule, _)| &self.rules[rule])
    }

    /// The place of the rule that [`rule_for`](Self::rule_for) finds, and of the pattern in
    /// its `files` that matches, both from 0.
    pub(crate) fn place_of(&self, path: &Path) -> Option<(usize, usize)> {
        match &self.patterns {
            None => Some((0, 0)),
            Some(_) if path.as_os_str() == FILE_NAME => None,
            Some(patterns) => patterns.first(path),
        }
    }

    /// Whether every file that is guarded is locked while it is open for writing (or cannot be
    /// opened so), unless it is for appending.
    pub fn lock_all_updates(&self) -> bool {
        self.rules
            .iter()
            .all(|rule| rule.update != Update::Off || !rule.guards_anything())
    }

    /// The rule of every path, where the answer is the same for all of them because there
    /// are no rules to choose from. Lets callers skip building paths.
    pub fn guards_everything_alike(&self) -> Option<&Arc<Rule>> {
        match self.patterns {
            None => self.rules.first(),
            Some(_) => None,
        }
    }

    /// What the writer of the file should know: one sentence for each value written in it
    /// that has no effect beside the others. Defaults give no warning.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    /// The rules in order; for [`Rules::everything`] the one built-in rule, with the pattern
    /// `**`.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rules in words; see [`explain`].
    pub fn describe(&self, name: &str) -> String {
        explain::rules(self, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn globs(list: &[&str]) -> Vec<String> {
        list.iter().map(|glob| (*glob).to_owned()).collect()
    }

    #[test]
    fn without_rules_every_path_has_the_same_rule() {
        let rules = Rules::everything();
        let all = rules.guards_everything_alike().unwrap();
        assert_eq!((all.append, all.ack), (Append::Write, Ack::Write));
        assert_eq!((all.update, all.replace), (Update::Off, Replace::Off));
        assert!(all.advisory && all.dotlock && all.record.is_none());
        for path in [&b"a"[..], b"x/\xff\n", FILE_NAME.as_bytes(), b""] {
            let rule = rules.rule_for(Path::new(OsStr::from_bytes(path)));
            assert!(Arc::ptr_eq(rule.unwrap(), all));
        }
        assert!(rules.warnings().is_empty());
        assert_eq!(rules.rules().len(), 1);
    }

    #[test]
    fn globs_of_the_mount_option_share_one_rule() {
        let rules = Rules::from_globs(&globs(&["*.log", "/results.csv"])).unwrap();
        let rule = rules.rule_for(Path::new("x/a.log")).unwrap();
        assert_eq!(rule.update, Update::Open);
        assert_eq!(rule.replace, Replace::Check);
        assert!(rules.rule_for(Path::new("results.csv")).is_some());
        assert!(rules.rule_for(Path::new("x/results.csv")).is_none());
        assert!(rules.guards_everything_alike().is_none());
        assert!(rules.warnings().is_empty());
    }

    #[test]
    fn a_bad_glob_of_the_mount_option_is_named() {
        let error = Rules::from_globs(&globs(&["ok", "{a"])).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("mount option guard: \"{a\": not a pattern: "));
        assert!(error.contains("use a rule file"), "{error}");
        assert!(Rules::from_globs(&[]).is_err());
        assert!(Rules::from_globs(&globs(&[""])).is_err());
    }

    #[test]
    fn the_rule_file_is_never_matched_by_a_pattern() {
        let rules = Rules::from_globs(&globs(&["**", ".dotlockfs.toml"])).unwrap();
        assert!(rules.rule_for(Path::new(FILE_NAME)).is_none());
        let below = Path::new("x").join(FILE_NAME);
        assert!(rules.rule_for(&below).is_some());
    }

    #[test]
    fn a_rule_with_everything_off_guards_nothing() {
        let mut rule = Rule::with_defaults(globs(&["a"]));
        assert!(rule.guards_anything());
        rule.append = Append::Off;
        rule.update = Update::Off;
        rule.replace = Replace::Off;
        assert!(rule.guards_anything());
        rule.advisory = false;
        assert!(!rule.guards_anything());
    }

    #[test]
    fn rules_can_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Rules>();
    }
}
