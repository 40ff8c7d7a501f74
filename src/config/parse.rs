//! From the text of a rule file to [`Rules`], by hand over the parsed document rather than
//! through derived types: so each fault can point at its place in the file, and it is known
//! which values were written and which are defaults.

#[cfg(test)]
mod documented;

use std::fs::OpenOptions;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use globset::Glob;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::explain;
use super::globs::{self, Patterns};
use super::nearest::nearest;
use super::rules::{Ack, Append, Rule, Rules, Word};

/// The largest rule file, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;
/// The longest end of a record, in bytes.
const MAX_RECORD: usize = 16;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const LOCK_TIMEOUT: Limits = Limits {
    least: Duration::from_millis(1),
    most: DAY,
    words: "from 1ms to 1day",
};
/// A lock is refreshed at a quarter of this, and file times may be as coarse as a second.
const STALE_AFTER: Limits = Limits {
    least: Duration::from_secs(4),
    most: DAY,
    words: "from 4s to 1day",
};
const FOREIGN_STALE_AFTER: Limits = Limits {
    least: Duration::from_secs(4),
    most: Duration::from_secs(7 * 24 * 60 * 60),
    words: "from 4s to 7days",
};

const FILE_KEYS: &[&str] = &["version", "guard"];
const GUARD_KEYS: &[&str] = &[
    "files",
    "append",
    "ack",
    "record",
    "update",
    "replace",
    "advisory",
    "dotlock",
    "lock_timeout",
    "stale_after",
    "foreign_stale_after",
    "fence",
    "fence_limit",
];

type Value<'a> = Spanned<DeValue<'a>>;

/// The permitted range of a duration.
struct Limits {
    least: Duration,
    most: Duration,
    words: &'static str,
}

/// Reads a rule file from disk, at the place `at`; `path` is for messages.
pub(super) fn file(at: &Path, path: &Path) -> Result<Rules, ConfigError> {
    let unreadable = |error| ConfigError::unreadable(path, error);
    // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused below.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(at).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(ConfigError::unusable(path, "not a regular file"));
    }
    let mut bytes = Vec::new();
    // One more than the limit, to tell a file that ends there from one that goes on.
    let mut limited = file.take(MAX_SIZE + 1);
    limited.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(ConfigError::unusable(
            path,
            "larger than 1 MiB; this is not a rule file",
        ));
    }
    match std::str::from_utf8(&bytes) {
        Ok(contents) => text(contents, path),
        Err(error) => {
            let at = error.valid_up_to();
            let line_end = bytes[at..].iter().position(|byte| *byte == b'\n');
            let shown = &bytes[..line_end.map_or(bytes.len(), |length| at + length)];
            let message = format!("the byte 0x{:02x} is not UTF-8", bytes[at]);
            Err(ConfigError::at(
                path,
                // What stands before the fault is valid, so its place stays the same.
                &String::from_utf8_lossy(shown),
                at..at + 1,
                message,
                "save the file as UTF-8",
            ))
        }
    }
}

/// Reads the text of a rule file; `path` is for messages.
pub(super) fn text(text: &str, path: &Path) -> Result<Rules, ConfigError> {
    Source { text, path }.rules()
}

/// The text and its name: all that a message about a fault needs.
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    fn rules(&self) -> Result<Rules, ConfigError> {
        let document = DeTable::parse(self.text).map_err(|error| {
            let message = error.message().trim().replace('\n', ", ");
            self.fault(error.span().unwrap_or(0..0), message, "")
        })?;
        let document = document.get_ref();
        // First of all: a file of a later version may hold keys that are unknown here.
        self.version(document)?;
        let mut guards: &[Value] = &[];
        for (key, value) in in_order(document) {
            match key.get_ref().as_ref() {
                "version" => {}
                "guard" => guards = self.guards(value)?,
                _ => {
                    return Err(self.unknown_key(
                        key.span(),
                        key.get_ref(),
                        FILE_KEYS,
                        "a rule file",
                    ));
                }
            }
        }
        if guards.is_empty() {
            return Ok(Rules::everything());
        }
        let mut rules = Vec::new();
        let mut patterns = Vec::new();
        let mut warnings = Vec::new();
        for guard in guards {
            let (rule, globs) = self.guard(guard, &mut warnings)?;
            warn_of_shadows(&rules, &rule, &mut warnings);
            rules.push(rule);
            patterns.push(globs);
        }
        let patterns = Patterns::new(patterns.iter().map(Vec::as_slice))
            .map_err(|message| ConfigError::unusable(self.path, message))?;
        Ok(Rules::new(rules, patterns, warnings))
    }

    fn version(&self, document: &DeTable) -> Result<(), ConfigError> {
        let Some(version) = document.get("version") else {
            return Err(ConfigError::unusable(
                self.path,
                "the version is missing\n  begin the file with the line: version = 1",
            ));
        };
        match version.get_ref() {
            DeValue::Integer(number) if number.as_str() == "1" => Ok(()),
            DeValue::Integer(number) => Err(self.fault(
                version.span(),
                format!("rule files of version {number} are not understood"),
                "this dotlockfs reads version = 1",
            )),
            other => Err(self.wrong_type("version", version.span(), other, "version = 1")),
        }
    }

    fn guards<'a>(&self, value: &'a Value<'a>) -> Result<&'a [Value<'a>], ConfigError> {
        match value.get_ref() {
            DeValue::Array(guards) => Ok(guards),
            other => Err(self.fault(
                value.span(),
                format!("guard must be a list of tables, not {}", kind(other)),
                "begin each rule with a line [[guard]], with two brackets",
            )),
        }
    }

    /// One `[[guard]]` with its compiled patterns.
    fn guard(
        &self,
        guard: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<(Rule, Vec<Glob>), ConfigError> {
        let DeValue::Table(table) = guard.get_ref() else {
            return Err(self.fault(
                guard.span(),
                format!("each guard must be a table, not {}", kind(guard.get_ref())),
                "begin each rule with a line [[guard]], with two brackets",
            ));
        };
        let mut files = None;
        let mut rule = Rule::with_defaults(Vec::new());
        for (key, value) in in_order(table) {
            let name = key.get_ref().as_ref();
            match name {
                "files" => files = Some(self.files(value)?),
                "append" => rule.append = self.word(name, value)?,
                "ack" => rule.ack = self.word(name, value)?,
                "record" => rule.record = Some(self.record(value)?),
                "update" => rule.update = self.word(name, value)?,
                "replace" => rule.replace = self.word(name, value)?,
                "advisory" => rule.advisory = self.boolean(name, value)?,
                "dotlock" => rule.dotlock = self.boolean(name, value)?,
                "lock_timeout" => rule.lock_timeout = self.duration(name, value, LOCK_TIMEOUT)?,
                "stale_after" => rule.stale_after = self.duration(name, value, STALE_AFTER)?,
                "foreign_stale_after" => {
                    rule.foreign_stale_after = self.duration(name, value, FOREIGN_STALE_AFTER)?;
                }
                "fence" => rule.fence = self.word(name, value)?,
                "fence_limit" => rule.fence_limit = self.size(name, value)?,
                _ => return Err(self.unknown_key(key.span(), name, GUARD_KEYS, "[[guard]]")),
            }
        }
        let Some((files, globs)) = files else {
            return Err(self.fault(
                guard.span(),
                "this guard does not say which files it is for",
                "add a line such as: files = [\"*.log\"]",
            ));
        };
        rule.files = files;
        let label = explain::label(&rule.files);
        if rule.append == Append::Open && rule.ack == Ack::Close {
            warnings.push(format!(
                "{label}: ack = \"close\" has no effect, since append is \"open\""
            ));
        }
        if rule.append == Append::Off && rule.record.is_some() {
            warnings.push(format!(
                "{label}: record has no effect, since append is \"off\""
            ));
        }
        Ok((rule, globs))
    }

    fn files(&self, value: &Value) -> Result<(Vec<String>, Vec<Glob>), ConfigError> {
        let example = "files = [\"logs/**/*.log\", \"results.csv\"]";
        let DeValue::Array(list) = value.get_ref() else {
            return Err(self.wrong_type("files", value.span(), value.get_ref(), example));
        };
        if list.is_empty() {
            return Err(self.fault(
                value.span(),
                "files is empty, so this guard is for no file",
                "for every file, write files = [\"**\"]",
            ));
        }
        let mut files = Vec::new();
        let mut globs = Vec::new();
        for item in list {
            let DeValue::String(pattern) = item.get_ref() else {
                let kind = kind(item.get_ref());
                let message = format!("each of files must be a string, not {kind}");
                return Err(self.fault(item.span(), message, format!("write: {example}")));
            };
            let glob = globs::compile(pattern)
                .map_err(|bad| self.fault(item.span(), bad.message, bad.help))?;
            files.push(pattern.to_string());
            globs.push(glob);
        }
        Ok((files, globs))
    }

    fn record(&self, value: &Value) -> Result<Vec<u8>, ConfigError> {
        let example = r#"record = "\n""#;
        let DeValue::String(record) = value.get_ref() else {
            return Err(self.wrong_type("record", value.span(), value.get_ref(), example));
        };
        if record.is_empty() {
            return Err(self.fault(
                value.span(),
                "record is empty; it must say what ends a record",
                format!("for lines, write {example}; to let each write be a record, leave it out"),
            ));
        }
        if record.len() > MAX_RECORD {
            return Err(self.fault(
                value.span(),
                format!("record has {} bytes", record.len()),
                format!("the end of a record may have {MAX_RECORD} bytes at most"),
            ));
        }
        Ok(record.as_bytes().to_vec())
    }

    fn word<T: Word>(&self, name: &str, value: &Value) -> Result<T, ConfigError> {
        let words: Vec<String> = T::WORDS
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let help = format!("use {}", either(&words));
        let DeValue::String(written) = value.get_ref() else {
            let message = format!("{name} must be a string, not {}", kind(value.get_ref()));
            return Err(self.fault(value.span(), message, help));
        };
        let found = T::WORDS.iter().find(|(word, _)| word == written);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let written = brief(written);
            self.fault(
                value.span(),
                format!("{name} cannot be \"{written}\""),
                help,
            )
        })
    }

    fn boolean(&self, name: &str, value: &Value) -> Result<bool, ConfigError> {
        match value.get_ref() {
            DeValue::Boolean(written) => Ok(*written),
            other => {
                let message = format!("{name} must be true or false, not {}", kind(other));
                Err(self.fault(value.span(), message, "write true or false, without quotes"))
            }
        }
    }

    fn duration(&self, name: &str, value: &Value, limits: Limits) -> Result<Duration, ConfigError> {
        let DeValue::String(written) = value.get_ref() else {
            return Err(self.wrong_type(
                name,
                value.span(),
                value.get_ref(),
                &format!("{name} = \"30s\""),
            ));
        };
        let Ok(duration) = humantime::parse_duration(written) else {
            return Err(self.fault(
                value.span(),
                format!("{name} is not a duration: \"{}\"", brief(written)),
                "write a number and a unit, such as \"500ms\", \"30s\" or \"5m\"",
            ));
        };
        if duration < limits.least || duration > limits.most {
            return Err(self.fault(
                value.span(),
                format!("{name} cannot be \"{}\"", brief(written)),
                format!("it may be {}", limits.words),
            ));
        }
        Ok(duration)
    }

    fn size(&self, name: &str, value: &Value) -> Result<u64, ConfigError> {
        let example = "fence_limit = \"1GiB\"";
        let DeValue::String(written) = value.get_ref() else {
            return Err(self.wrong_type(name, value.span(), value.get_ref(), example));
        };
        let size: Result<bytesize::ByteSize, _> = written.parse();
        size.map(|size| size.as_u64()).map_err(|_| {
            self.fault(
                value.span(),
                format!("{name} is not a size: \"{}\"", brief(written)),
                "write a number and a unit, such as \"100MiB\" or \"2GiB\"",
            )
        })
    }

    fn unknown_key(
        &self,
        span: Range<usize>,
        key: &str,
        known: &[&str],
        place: &str,
    ) -> ConfigError {
        let shown = brief(key);
        let mut help = format!("the keys of {place} are: {}", known.join(", "));
        if known == FILE_KEYS && GUARD_KEYS.contains(&key) {
            help = format!("{key} belongs to a rule, below a line [[guard]]");
        } else if let Some(near) = nearest(key, known) {
            help = format!("did you mean {near}?\n{help}");
        }
        self.fault(
            span,
            format!("unknown key \"{shown}\""),
            explain::wrap(&help, 76),
        )
    }

    fn wrong_type(
        &self,
        name: &str,
        span: Range<usize>,
        found: &DeValue,
        example: &str,
    ) -> ConfigError {
        let wanted = match name {
            "version" => "an integer",
            "files" => "a list of strings",
            _ => "a string",
        };
        let message = format!("{name} must be {wanted}, not {}", kind(found));
        self.fault(span, message, format!("write: {example}"))
    }

    fn fault(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> ConfigError {
        ConfigError::at(self.path, self.text, span, message, help)
    }
}

/// The entries of a table in the order of the file, so that the first fault is the one that
/// is reported. (The parser sorts them by name.)
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Warns of patterns that an earlier rule already holds, so that this rule never sees them.
fn warn_of_shadows(earlier: &[Rule], rule: &Rule, warnings: &mut Vec<String>) {
    for pattern in &rule.files {
        let first = earlier.iter().position(|other| {
            let covers = |theirs: &String| theirs == pattern || theirs == "**" || theirs == "*";
            other.files.iter().any(covers)
        });
        if let Some(first) = first {
            warnings.push(format!(
                "{}: has no effect in rule {}; rule {} comes first and matches the same files",
                explain::label(std::slice::from_ref(pattern)),
                earlier.len() + 1,
                first + 1,
            ));
        }
    }
}

/// The type of a value, with its article.
fn kind(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// "a, b or c".
fn either(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// What was written, for a message: one line, not too long.
fn brief(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    super::error::shown_text(&short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Fence, Replace, Update};

    const WHOLE: &str = r#"version = 1

[[guard]]
files = ["*.tmp"]
append = "off"
update = "off"
replace = "off"
advisory = false

[[guard]] # a comment
files = ["logs/**/*.log", "results.csv"]
append = "write"
ack = "close"
record = "\n"
update = "atomic"
replace = "check"
advisory = true
dotlock = false
lock_timeout = "1m 30s"
stale_after = "4s"
foreign_stale_after = "2h"
fence = "require"
fence_limit = "100 MiB"
"#;

    fn parse(text: &str) -> Result<Rules, ConfigError> {
        Rules::parse(text, Path::new("rules.toml"))
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    /// A rule with this line in it.
    fn with(line: &str) -> String {
        format!("version = 1\n[[guard]]\nfiles = [\"a\"]\n{line}\n")
    }

    #[test]
    fn all_keys_are_read() {
        let rules = parse(WHOLE).unwrap();
        assert_eq!(rules.rules().len(), 2);
        assert!(
            !rules
                .rule_for(Path::new("x.tmp"))
                .unwrap()
                .guards_anything()
        );
        let rule = rules.rule_for(Path::new("logs/a/b.log")).unwrap();
        let expected = Rule {
            files: vec!["logs/**/*.log".into(), "results.csv".into()],
            append: Append::Write,
            ack: Ack::Close,
            record: Some(b"\n".to_vec()),
            update: Update::Atomic,
            replace: Replace::Check,
            advisory: true,
            dotlock: false,
            lock_timeout: Duration::from_secs(90),
            stale_after: Duration::from_secs(4),
            foreign_stale_after: Duration::from_secs(7200),
            fence: Fence::Require,
            fence_limit: 100 << 20,
        };
        assert_eq!(**rule, expected);
        assert!(rules.rule_for(Path::new("logs/a/b.txt")).is_none());
    }

    #[test]
    fn defaults_are_as_documented_and_give_no_warning() {
        let rules = parse(&with("")).unwrap();
        assert_eq!(*rules.rules()[0], Rule::with_defaults(vec!["a".into()]));
        assert_eq!(rules.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_guards_is_the_same_as_no_file() {
        for text in ["version = 1", "version = 1\nguard = []\n"] {
            assert!(parse(text).unwrap().guards_everything_alike().is_some());
        }
    }

    #[test]
    fn the_first_rule_wins() {
        let text = "version = 1\n[[guard]]\nfiles = ['*.log']\ndotlock = false\n\
                    [[guard]]\nfiles = ['**']\n";
        let rules = parse(text).unwrap();
        assert!(!rules.rule_for(Path::new("a.log")).unwrap().dotlock);
        assert!(rules.rule_for(Path::new("a.csv")).unwrap().dotlock);
    }

    #[test]
    fn values_without_effect_are_warned_of() {
        let ack = parse(&with("append = 'open'\nack = 'close'")).unwrap();
        assert_eq!(
            ack.warnings(),
            ["a: ack = \"close\" has no effect, since append is \"open\""]
        );
        let record = parse(&with("append = 'off'\nrecord = \"\\n\"")).unwrap();
        assert_eq!(
            record.warnings(),
            ["a: record has no effect, since append is \"off\""]
        );
        let shadowed = parse(&format!("{}[[guard]]\nfiles = ['b', 'a']", with(""))).unwrap();
        assert_eq!(
            shadowed.warnings(),
            ["a: has no effect in rule 2; rule 1 comes first and matches the same files"]
        );
    }

    #[test]
    fn other_versions_are_refused_before_anything_else() {
        let expected = "rules.toml:2:11: rule files of version 2 are not understood\n  \
                        2 | version = 2\n    |           ^\n  \
                        this dotlockfs reads version = 1";
        assert_eq!(error("later = true\nversion = 2\n"), expected);
        assert_eq!(
            error("[[guard]]\nfiles = ['a']\n"),
            "rules.toml: the version is missing\n  begin the file with the line: version = 1"
        );
        assert!(error("version = '1'").contains("version must be an integer, not a string"));
        assert!(error("version = 1.0").contains("not a float"));
    }

    #[test]
    fn durations_have_limits() {
        for (name, least, most) in [
            ("lock_timeout", "1ms", "1day"),
            ("stale_after", "4s", "1day"),
            ("foreign_stale_after", "4s", "7days"),
        ] {
            for good in [least, most] {
                parse(&with(&format!("{name} = '{good}'"))).unwrap();
            }
            for bad in ["0s", "3999ms", "1day 1s", "8days", "99999999999years"] {
                // A short lock_timeout and a foreign lock of eight days differ on purpose.
                let fine = matches!(
                    (name, bad),
                    ("lock_timeout", "3999ms") | ("foreign_stale_after", "1day 1s")
                );
                assert_eq!(
                    parse(&with(&format!("{name} = '{bad}'"))).is_ok(),
                    fine,
                    "{name} {bad}"
                );
            }
            let limits = error(&with(&format!("{name} = '0s'")));
            assert!(
                limits.contains(&format!("it may be from {least} to {most}")),
                "{limits}"
            );
        }
    }

    #[test]
    fn every_kind_of_fault_is_told_with_its_place() {
        let table = [
            (with("append = 'wirte'"), "4:10: append cannot be \"wirte\""),
            (
                with("ack = true"),
                "4:7: ack must be a string, not a boolean",
            ),
            (
                with("advisory = 'yes'"),
                "4:12: advisory must be true or false, not a string",
            ),
            (
                with("dotlock = 1"),
                "4:11: dotlock must be true or false, not an integer",
            ),
            (with("record = ''"), "4:10: record is empty"),
            (
                with("record = 'seventeen bytes !'"),
                "4:10: record has 17 bytes",
            ),
            (
                with("record = 10"),
                "4:10: record must be a string, not an integer",
            ),
            (
                with("lock_timeout = 30"),
                "4:16: lock_timeout must be a string, not an integer",
            ),
            (
                with("lock_timeout = '30'"),
                "4:16: lock_timeout is not a duration",
            ),
            (with("appendd = 'off'"), "4:1: unknown key \"appendd\""),
            (with("\"a\\u001b\" = 1"), "4:1: unknown key \"a\\u{1b}\""),
            (with("append = 'off'\nappend = 'off'"), "5:1: duplicate key"),
            (with("= 1"), "4:1: "),
            (
                "version = 1\n[guard]\nfiles = ['a']".into(),
                "2:1: guard must be a list of tables",
            ),
            (
                "version = 1\nguard = [1]".into(),
                "2:10: each guard must be a table",
            ),
            (
                "version = 1\n\n[[guard]]\ndotlock = true".into(),
                "3:1: this guard does not say",
            ),
            (
                "version = 1\n[[guard]]\nfiles = 'a'".into(),
                "3:9: files must be a list of strings",
            ),
            (
                "version = 1\n[[guard]]\nfiles = []".into(),
                "3:9: files is empty",
            ),
            (
                "version = 1\n[[guard]]\nfiles = ['a', 2]".into(),
                "3:15: each of files",
            ),
            (
                "version = 1\n[[guard]]\nfiles = ['a',\n '../b']".into(),
                "4:2: a pattern may not",
            ),
            (
                "version = 1\n[[guard]]\nfiles = ['[a']".into(),
                "3:10: not a pattern: unclosed",
            ),
            (
                "version = 1\nguards = []".into(),
                "2:1: unknown key \"guards\"",
            ),
        ];
        for (text, expected) in table {
            let error = error(&text);
            let expected = format!("rules.toml:{expected}");
            assert!(error.starts_with(&expected), "{text}\n{error}");
        }
    }

    #[test]
    fn files_that_cannot_be_rule_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.toml");
        assert!(Rules::load(&path).unwrap_err().is_not_found());

        std::fs::write(&path, WHOLE).unwrap();
        assert_eq!(Rules::load(&path).unwrap().rules().len(), 2);

        std::fs::write(&path, b"version = 1\n# caf\xe9 au lait\n").unwrap();
        let error = Rules::load(&path).unwrap_err().to_string();
        let expected = format!(
            "{}:2:6: the byte 0xe9 is not UTF-8\n  2 | # caf\u{fffd} au lait\n    |      ^\n  \
             save the file as UTF-8",
            path.display()
        );
        assert_eq!(error, expected);

        let comment = "#".repeat(MAX_SIZE as usize - 12);
        std::fs::write(&path, format!("version = 1\n{comment}")).unwrap();
        Rules::load(&path).unwrap();
        std::fs::write(&path, format!("version = 1\n#{comment}")).unwrap();
        let error = Rules::load(&path).unwrap_err().to_string();
        assert!(error.ends_with("larger than 1 MiB; this is not a rule file"));

        let error = Rules::load(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("not a regular file"));
        assert!(!error.is_not_found());
    }

    #[test]
    fn no_text_makes_it_panic() {
        // A small generator is enough here, and a failure can be repeated.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let pieces: &[&[u8]] = &[
            b"\"",
            b"'",
            b"[",
            b"]",
            b"[[",
            b"]]",
            b"{",
            b"}",
            b"=",
            b".",
            b"..",
            b",",
            b"\n",
            b"\r",
            b"\0",
            b"\xff",
            b"\xc3",
            b"\xf0\x9f",
            b"\xef\xbb\xbf",
            b"\"\"\"",
            b"'''",
            b"#",
            b"\\",
            b"\\u0000",
            b"/",
            b"**",
            b"!",
            b"[[guard]]",
            b"files",
            b"version = 1",
            b"-1",
            b"1e999",
            b"0x",
            b"99999999999999999999999",
            b"nan",
            b"1979-05-27",
            b"\"0s\"",
            b"true",
        ];
        for _ in 0..3000 {
            let mut bytes = WHOLE.as_bytes().to_vec();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                let until = (at + random(8)).min(bytes.len());
                let piece = pieces[random(pieces.len())];
                match random(4) {
                    0 => _ = bytes.splice(at..at, piece.iter().copied()),
                    1 => _ = bytes.splice(at..until, piece.iter().copied()),
                    2 => bytes[at] ^= 1 << random(8),
                    _ => bytes.truncate(at + 1),
                }
            }
            match parse(&String::from_utf8_lossy(&bytes)) {
                Ok(rules) => {
                    _ = rules.rule_for(Path::new("logs/a.log"));
                    _ = rules.describe("rules.toml");
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
        for (open, close) in [("[", "]"), ("{a=", "}"), ("[[", ""), ("a.", "")] {
            let deep = format!("version = {}1{}", open.repeat(50_000), close.repeat(50_000));
            assert!(parse(&deep).is_err());
        }
    }
}
