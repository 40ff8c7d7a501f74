//! The words that mount options are made of, each kind in a list of its own, and what is said of
//! those that are not among them.

use super::super::error::{ConfigError, shown_text};
use super::super::explain;
use super::super::nearest::nearest;

/// The words that [`MountOptions::kernel`](super::MountOptions::kernel) can hold.
pub const KERNEL_FLAGS: &[&str] = &[
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
    "nodiratime",
    "relatime",
    "strictatime",
    "lazytime",
    "nosymfollow",
    "dirsync",
    "sync",
];

/// Words that take kernel flags back: each with those flags.
pub(super) const TAKES_BACK: &[(&str, &[&str])] = &[
    ("suid", &["nosuid"]),
    ("dev", &["nodev"]),
    ("exec", &["noexec"]),
    ("atime", &["noatime"]),
    ("diratime", &["nodiratime"]),
    ("norelatime", &["relatime"]),
    ("nostrictatime", &["strictatime"]),
    ("nolazytime", &["lazytime"]),
    ("symfollow", &["nosymfollow"]),
    ("async", &["sync"]),
];

/// Flags of which the kernel knows only one at a time.
pub(super) const ONE_OF: &[&str] = &["noatime", "relatime", "strictatime"];

/// Words that mount(8) acts on itself and that mean nothing to a file system.
pub(super) const OF_MOUNT: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "nousers",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "comment",
    "helper",
    "uhelper",
    "silent",
    "loud",
    "nomand",
    "noiversion",
];

/// Labels of SELinux; the kernel reads them.
pub(super) const LABELS: &[&str] = &["context", "fscontext", "defcontext", "rootcontext"];

/// What the kernel shows of a mount, and mount(8) hands over again for `remount`. None of it can
/// be changed.
pub(super) const SHOWN_BY_KERNEL: &[&str] = &[
    "user_id", "group_id", "rootmode", "fd", "max_read", "blksize",
];

/// Options of other FUSE file systems that are not meant here: each with the reason.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "auto_unmount",
        "when dotlockfs is killed its mount stays on purpose, so that no program goes on without \
         locks",
    ),
    (
        "allow_root",
        "root alone cannot be let in; allow_other is for all users",
    ),
    (
        "mand",
        "there are no mandatory locks; flock and fcntl locks hold across hosts",
    ),
    (
        "nonempty",
        "a mountpoint need not be empty, so leave it out",
    ),
];

/// The words of dotlockfs, for the help after an unknown one.
pub(super) const OURS: &[&str] = &[
    "allow_other",
    "ro",
    "rw",
    "default_permissions",
    "passthrough",
    "nopassthrough",
    "guard",
    "config",
    "log_level",
    "threads",
    "metrics",
    "require_mount",
    "remount",
    "fsname",
    "subtype",
];

/// Whether an option is for mount(8) alone; `x-` and `X-` begin names of programs' own.
pub(super) fn of_mount(name: &str) -> bool {
    OF_MOUNT.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

/// An example of an option that is nothing without a value.
pub(super) fn needs_value(name: &str) -> Option<&'static str> {
    Some(match name {
        "guard" => "guard=*.log:results.csv",
        "config" => "config=/etc/dotlockfs.toml",
        "log_level" | "log-level" => "log_level=info",
        "threads" => "threads=4",
        "metrics" => "metrics=9469",
        "fsname" => "fsname=/net/data",
        "subtype" => "subtype=dotlockfs",
        "require_mount" => "require_mount=nfs",
        _ if LABELS.contains(&name) => "context=system_u:object_r:nfs_t:s0",
        _ => return None,
    })
}

pub(super) fn without_value(name: &str) -> ConfigError {
    let example = needs_value(name).unwrap_or_default();
    ConfigError::option(format!(
        "mount option {name} needs a value, as in {example}"
    ))
}

pub(super) fn not_understood(option: &str, name: &str) -> ConfigError {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return ConfigError::option(format!("mount option {}: {reason}", shown_text(option)));
    }
    let mut help = format!(
        "dotlockfs knows {}, and of mount(8) {}",
        OURS.join(", "),
        KERNEL_FLAGS.join(", ")
    );
    let known: Vec<&str> = OURS.iter().chain(KERNEL_FLAGS).copied().collect();
    if let Some(near) = nearest(name, &known) {
        help = format!("did you mean {near}?\n{help}");
    }
    let help = explain::wrap(&help, 76).replace('\n', "\n  ");
    ConfigError::option(format!(
        "unknown mount option: {}\n  {help}",
        shown_text(option)
    ))
}
