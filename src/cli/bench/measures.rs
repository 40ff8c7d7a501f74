//! What is measured, and on what.

use clap::ValueEnum;
use serde::Serialize;

use super::job::Style;

/// What belongs together, and can be chosen by `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Guarded appends of 90-byte records
    Appends,
    /// A large file, written and read from the beginning to the end
    Large,
    /// 4 KiB reads anywhere in the large file
    Random,
    /// Small files: made, asked for, renamed, removed
    Small,
    /// All files of a tree listed and asked for, as git status does
    Walk,
    /// Memory of the daemon for each file that it knows
    Memory,
    /// Whether the daemon sleeps when there is nothing to do
    Idle,
}

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// By `write(2)`.
    Write,
    /// By `close(2)` or `fsync(2)`.
    Close,
}

impl Ack {
    /// As in a rule, and in the names of the files to which such a rule applies.
    pub fn name(self) -> &'static str {
        match self {
            Ack::Write => "write",
            Ack::Close => "close",
        }
    }
}

/// Where something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// In the directory itself.
    Plain,
    /// Through dotlockfs as it mounts by itself.
    Dotlockfs,
    /// Through dotlockfs with `-o nopassthrough`.
    Asking,
    /// Through bindfs.
    Bindfs,
}

impl Kind {
    /// The name in reports; also that of a directory for what it writes.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Dotlockfs => "dotlockfs",
            Kind::Asking => "nopassthrough",
            Kind::Bindfs => "bindfs",
        }
    }

    /// Whether that is measured there. Who reads and writes makes a difference only where files are
    /// opened.
    pub fn takes_part(self, measure: Measure) -> bool {
        let opens = [Group::Large, Group::Random, Group::Small];
        self != Kind::Asking || opens.contains(&measure.group())
    }

    /// How a program appends there, so that its records are as safe as dotlockfs makes them; or, where
    /// it opens the file for each, so that it does what it does.
    pub fn style(self, ack: Ack, held: bool) -> Style {
        match (held, ack, self) {
            (false, _, _) => Style::OpenEach,
            (true, Ack::Close, _) => Style::HeldSyncAtEnd,
            (true, Ack::Write, Kind::Dotlockfs | Kind::Asking) => Style::Held,
            (true, Ack::Write, _) => Style::HeldSyncEach,
        }
    }
}

/// One measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// So many writers append to one file.
    Append {
        /// By which kind of rule.
        ack: Ack,
        /// How many processes.
        writers: u32,
        /// They hold the file open; else they open it for each record.
        held: bool,
    },
    /// A large file is written, and made durable.
    Write,
    /// It is read, having been dropped from memory.
    Read,
    /// It is read once more.
    ReadAgain,
    /// Blocks are read anywhere in it, after it was dropped from memory.
    RandomFirst,
    /// The same, after all of it was read.
    RandomAgain,
    /// Small files are made in one directory.
    Create,
    /// Their attributes are asked for.
    Stat,
    /// They are renamed.
    Rename,
    /// They are removed.
    Unlink,
    /// A tree is walked after the kernel has forgotten names and attributes.
    WalkFirst,
    /// It is walked once more.
    WalkAgain,
}

impl Measure {
    /// The group.
    pub fn group(self) -> Group {
        match self {
            Measure::Append { .. } => Group::Appends,
            Measure::Write | Measure::Read | Measure::ReadAgain => Group::Large,
            Measure::RandomFirst | Measure::RandomAgain => Group::Random,
            Measure::Create | Measure::Stat | Measure::Rename | Measure::Unlink => Group::Small,
            Measure::WalkFirst | Measure::WalkAgain => Group::Walk,
        }
    }

    /// The heading in reports, with the unit.
    pub fn heading(self) -> String {
        let what = match self {
            Measure::Append { ack, .. } => {
                format!("guarded appends, ack = \"{}\"", ack.name())
            }
            _ => match self.group() {
                Group::Large => "large file".into(),
                Group::Random => "4 KiB reads anywhere in it".into(),
                Group::Small => "small files in one directory".into(),
                _ => "walk of a tree, readdir and lstat".into(),
            },
        };
        format!("{what}, {}", self.unit())
    }

    /// The name below the heading, 16 characters at the most.
    pub fn name(self) -> String {
        let name = match self {
            Measure::Append { writers, held, .. } => {
                let plural = if writers == 1 { "" } else { "s" };
                let how = if held { "held" } else { "open" };
                return format!("{writers} writer{plural}, {how}");
            }
            Measure::Write => "write, fsync",
            Measure::Read | Measure::RandomFirst => "read",
            Measure::ReadAgain | Measure::RandomAgain => "read again",
            Measure::Create => "create",
            Measure::Stat => "stat",
            Measure::Rename => "rename",
            Measure::Unlink => "unlink",
            Measure::WalkFirst => "walk, cold",
            Measure::WalkAgain => "walk again",
        };
        name.into()
    }

    /// What is counted, in a second.
    pub fn unit(self) -> &'static str {
        match self.group() {
            Group::Appends => "records/s",
            Group::Large => "MiB/s",
            Group::Random => "reads/s",
            _ => "files/s",
        }
    }

    /// How many of what a process counts make one of the unit.
    pub fn unit_size(self) -> f64 {
        match self.group() {
            Group::Large => f64::from(1 << 20),
            _ => 1.0,
        }
    }
}

/// What is to be measured, in pieces that are done on one subject without a break between them,
/// since each needs what the one before it leaves. `root`: the kernel may be told to forget.
pub fn blocks(groups: &[Group], root: bool) -> Vec<Vec<Measure>> {
    let mut blocks = Vec::new();
    for ack in [Ack::Write, Ack::Close] {
        for held in [true, false] {
            for writers in [1, 2, 8] {
                blocks.push(vec![Measure::Append { ack, writers, held }]);
            }
        }
    }
    blocks.push(vec![Measure::Write]);
    blocks.push(vec![Measure::Read, Measure::ReadAgain]);
    blocks.push(vec![Measure::RandomFirst, Measure::RandomAgain]);
    blocks.push(vec![
        Measure::Create,
        Measure::Stat,
        Measure::Rename,
        Measure::Unlink,
    ]);
    blocks.push(match root {
        true => vec![Measure::WalkFirst, Measure::WalkAgain],
        false => vec![Measure::WalkAgain],
    });
    blocks.retain(|block| groups.contains(&block[0].group()));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_column_and_are_told_apart() {
        let blocks = blocks(Group::value_variants(), true);
        let measures: Vec<Measure> = blocks.into_iter().flatten().collect();
        for (index, measure) in measures.iter().enumerate() {
            assert!(measure.name().len() <= 16, "{}", measure.name());
            let full = |measure: &Measure| (measure.heading(), measure.name());
            assert!(
                measures[..index]
                    .iter()
                    .all(|other| full(other) != full(measure))
            );
        }
    }

    #[test]
    fn groups_can_be_left_out() {
        let chosen = blocks(&[Group::Walk, Group::Idle], false);
        assert_eq!(chosen, [[Measure::WalkAgain]]);
    }
}
