//! Rules in plain words, for `dotlockfs check-config` and for warnings.

use super::error::shown_text;
use super::rules::{Ack, Append, Fence, Replace, Rule, Rules, Update};

/// The width of a terminal that every line fits, as far as the patterns allow.
const WIDTH: usize = 80;
/// Where the words of a line start, after its subject.
const INDENT: usize = 17;

/// What the rules of the file `name` do, in lines of at most 80 columns where the patterns
/// allow it. Warnings are not part of it.
pub fn rules(rules: &Rules, name: &str) -> String {
    if let Some(rule) = rules.guards_everything_alike() {
        let heading = format!("{name}: no rules, so every file is guarded for appends and locks.");
        return format!("{}\n\nevery file:\n{}", wrap(&heading, WIDTH), lines(rule));
    }
    let count = rules.rules().len();
    let heading = match count {
        1 => format!("{name}: 1 rule. Files that match no pattern of it are not guarded."),
        _ => format!(
            "{name}: {count} rules. The first that matches a file applies; files that match \
             none are not guarded."
        ),
    };
    let mut out = wrap(&heading, WIDTH);
    out.push('\n');
    for (index, rule) in rules.rules().iter().enumerate() {
        let files: Vec<String> = rule.files.iter().map(|file| shown_text(file)).collect();
        let files = format!("rule {}: {}", index + 1, files.join(", "));
        out.push('\n');
        out.push_str(&hang(&files, 0, 8));
        out.push_str(&lines(rule));
    }
    out
}

/// What one rule does, a line for each subject.
fn lines(rule: &Rule) -> String {
    let mut out = String::new();
    let mut line = |subject: &str, words: &str| {
        out.push_str(&hang(&format!("  {subject:<14} {words}"), 0, INDENT));
    };
    if !rule.guards_anything() {
        line(
            "everything",
            "not guarded: these files pass straight through",
        );
        return out;
    }
    line(
        "appends",
        match rule.append {
            Append::Write if rule.ack == Ack::Close => {
                "locked for a batch of writes, on the server before close(), fsync() or a read of \
                 the file returns"
            }
            Append::Write => "locked for each write, on the server before write() returns",
            Append::Open => {
                "locked from open to the last close, on the server before write() returns"
            }
            Append::Off => "locked for each write, as long as another key guards the file",
        },
    );
    if let Some(record) = rule.record.as_ref().filter(|_| rule.append != Append::Off) {
        let record = record.escape_ascii();
        line(
            "records",
            &format!("end in \"{record}\"; only whole records reach the file"),
        );
    }
    line("truncation", "under the same lock");
    line(
        "other writes",
        match rule.update {
            Update::Open => "locked from open to the last close",
            Update::Atomic => {
                "go to a private copy, which takes the file's place at the last close; locked \
                 from open until then"
            }
            Update::Off => "not guarded",
            Update::Deny => "refused: open fails with EROFS",
        },
    );
    line(
        "renames over",
        match rule.replace {
            Replace::Check => "under the lock; ESTALE if the program has read an older version",
            Replace::Hold => {
                "under the lock, which a reader holds from its open to its rename; ESTALE if \
                 the program has read an older version"
            }
            Replace::Serialise => "under the lock, whatever the program has read",
            Replace::Off => "not guarded",
        },
    );
    line(
        "flock, fcntl",
        match rule.advisory {
            true => "hold across hosts, by the same lock",
            false => "passed on to the file system below",
        },
    );
    line(
        "X.lock",
        match rule.dotlock {
            true => "respected, and taken too, for programs that lock a file X so",
            false => "not taken: programs that lock a file X in this way are not kept out",
        },
    );
    let span = humantime::format_duration(rule.lock_timeout);
    let but = match rule.advisory {
        true => "; flock and fcntl as long as it takes",
        false => "",
    };
    line("waiting", &format!("{span} at most, then EAGAIN{but}"));
    let span = humantime::format_duration(rule.stale_after);
    let foreign = match rule.dotlock {
        true => format!(
            "; X.lock of other programs after {}",
            humantime::format_duration(rule.foreign_stale_after)
        ),
        false => String::new(),
    };
    line(
        "dead locks",
        &format!("broken after {span} without a sign of life{foreign}"),
    );
    let limit = bytesize::ByteSize(rule.fence_limit);
    line(
        "late writes",
        &match rule.fence {
            Fence::Copy => format!(
                "of a broken lock's holder meet the old file, a copy takes its place; not if it \
                 is larger than {limit}"
            ),
            Fence::Require => format!(
                "of a broken lock's holder meet the old file, a copy takes its place; EFBIG if \
                 it is larger than {limit}"
            ),
            Fence::Off => "of a broken lock's holder may meet the file".to_owned(),
        },
    );
    out
}

/// A short name for a rule: its patterns, or the first of them where they are many.
pub(super) fn label(files: &[String]) -> String {
    const MOST: usize = 3;
    let first: Vec<String> = files
        .iter()
        .take(MOST)
        .map(|file| shown_text(file))
        .collect();
    let mut label = first.join(", ");
    if files.len() > MOST {
        label.push_str(&format!(" and {} more", files.len() - MOST));
    }
    label
}

/// Breaks each line of a text at blanks, so that none is wider than `width` characters unless
/// a single word is.
pub(crate) fn wrap(text: &str, width: usize) -> String {
    let lines: Vec<String> = text.lines().map(|line| fold(line, width, 0)).collect();
    lines.join("\n")
}

/// One paragraph of lines that fit [`WIDTH`], the first indented by `first` and the others by
/// `rest`, with a newline at the end.
pub(crate) fn hang(text: &str, first: usize, rest: usize) -> String {
    let mut out = fold(&format!("{}{text}", " ".repeat(first)), WIDTH, rest);
    out.push('\n');
    out
}

/// Breaks one line at single blanks; runs of blanks, as between subject and words, stay.
fn fold(line: &str, width: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in line.split_inclusive(' ') {
        let length = word.trim_end_matches(' ').chars().count();
        if length > 0 && column + length > width && column > indent {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        }
        out.push_str(word);
        column += word.chars().count();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::rules::Word as _;
    use super::*;
    use std::path::Path;

    #[test]
    fn a_rule_is_told_subject_by_subject() {
        let text = "version = 1\n[[guard]]\nfiles = ['logs/**/*.log', 'results.csv']\n\
                    record = \"\\n\"\nupdate = 'off'\n";
        let rules = Rules::parse(text, Path::new("f")).unwrap();
        let expected = r#"f: 1 rule. Files that match no pattern of it are not guarded.

rule 1: logs/**/*.log, results.csv
  appends        locked for each write, on the server before write() returns
  records        end in "\n"; only whole records reach the file
  truncation     under the same lock
  other writes   not guarded
  renames over   under the lock; ESTALE if the program has read an older version
  flock, fcntl   hold across hosts, by the same lock
  X.lock         respected, and taken too, for programs that lock a file X so
  waiting        30s at most, then EAGAIN; flock and fcntl as long as it takes
  dead locks     broken after 1m without a sign of life; X.lock of other
                 programs after 30m
  late writes    of a broken lock's holder meet the old file, a copy takes its
                 place; not if it is larger than 1.0 GiB
"#;
        assert_eq!(rules.describe("f"), expected);
    }

    #[test]
    fn every_line_fits_eighty_columns() {
        let files: Vec<String> = (0..40).map(|n| format!("'dir{n}/*.log'")).collect();
        let files = files.join(", ");
        for append in Append::WORDS {
            for update in Update::WORDS {
                for replace in Replace::WORDS {
                    for switch in [true, false] {
                        let text = format!(
                            "version = 1\n[[guard]]\nfiles = [{files}]\nappend = '{}'\n\
                             update = '{}'\nreplace = '{}'\nadvisory = {switch}\n\
                             dotlock = {switch}\nlock_timeout = '1h 1m 1s'\n\
                             record = \"\\u0001\\u0002\\u0003\\u0004\"",
                            append.0, update.0, replace.0
                        );
                        let rules = Rules::parse(&text, Path::new("f")).unwrap();
                        for line in rules.describe("/some/where/.dotlockfs.toml").lines() {
                            assert!(line.chars().count() <= WIDTH, "{line}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rules_that_guard_nothing_say_so_in_one_line() {
        let text = "version = 1\n[[guard]]\nfiles = ['*.tmp']\nappend = 'off'\n\
                    update = 'off'\nreplace = 'off'\nadvisory = false";
        let rules = Rules::parse(text, Path::new("f")).unwrap();
        assert!(rules.describe("f").ends_with(
            "rule 1: *.tmp\n  everything     not guarded: these files pass straight through\n"
        ));
    }

    #[test]
    fn labels_stay_short() {
        let files: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        assert_eq!(label(&files[..3]), "a, b, c");
        assert_eq!(label(&files), "a, b, c and 2 more");
    }

    #[test]
    fn long_words_are_not_broken() {
        assert_eq!(wrap("aa bb cccccc d\ne", 5), "aa bb\ncccccc\nd\ne");
    }
}
