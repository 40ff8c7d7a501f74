//! The words after `-o`: those of dotlockfs, those for the kernel, and those that mount(8)
//! and fstab(5) use among themselves and pass on.

use std::path::PathBuf;

use super::error::{ConfigError, shown_text};
use super::explain;
use super::nearest::nearest;

/// What the mount options ask for. `MountOptions::default()` is a mount without any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `allow_other`: every user may use the mount, not only the one who mounts. Default: no.
    pub allow_other: bool,
    /// `ro`: nothing can be changed through the mount; `rw` takes it back. Default: no.
    pub read_only: bool,
    /// `default_permissions`: the kernel checks modes and owners itself. Default: no.
    pub default_permissions: bool,
    /// `nopassthrough`: files that are not guarded are read and written by way of the daemon, too,
    /// though the kernel could do it by itself; `passthrough` takes it back. Default: no.
    pub no_passthrough: bool,
    /// `guard=GLOB[:GLOB...]`: the patterns of files to guard, in place of a rule file. Given
    /// more than once, all of them hold. Default: none. Patterns are not checked here, but by
    /// [`Rules::from_globs`](super::Rules::from_globs). A colon or comma cannot be part of one.
    pub guard: Vec<String>,
    /// `config=FILE`: the rule file to use. Default: none, the one in the guarded directory.
    pub config: Option<PathBuf>,
    /// `log_level=LEVEL`: how much to log. Default: none, as the command line says.
    pub log_level: Option<log::LevelFilter>,
    /// Flags for mount(2), each at most once, out of [`KERNEL_FLAGS`]. Default: none.
    pub kernel: Vec<String>,
}

/// The words that [`MountOptions::kernel`] can hold.
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
const TAKES_BACK: &[(&str, &[&str])] = &[
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
const ONE_OF: &[&str] = &["noatime", "relatime", "strictatime"];

/// Words that mount(8) acts on itself and that mean nothing to a file system.
const OF_MOUNT: &[&str] = &[
    "defaults", "auto", "noauto", "user", "users", "nouser", "nousers", "owner", "noowner",
    "group", "nogroup", "_netdev", "nofail", "comment",
];

/// The words of dotlockfs, for the help after an unknown one.
const OURS: &[&str] = &[
    "allow_other",
    "ro",
    "rw",
    "default_permissions",
    "passthrough",
    "nopassthrough",
    "guard",
    "config",
    "log_level",
];

/// Reads mount options, one to an element (the command line was already split at commas).
/// Where two contradict each other the later one wins, as in `ro,rw`.
pub fn parse(options: &[String]) -> Result<MountOptions, ConfigError> {
    let mut parsed = MountOptions::default();
    for option in options {
        // "-o ro," and "-o ''" are common in scripts.
        if option.is_empty() {
            continue;
        }
        match option.split_once('=') {
            Some((name, value)) => parsed.assign(option, name, value)?,
            None => parsed.set(option)?,
        }
    }
    Ok(parsed)
}

impl MountOptions {
    /// An option without a value.
    fn set(&mut self, name: &str) -> Result<(), ConfigError> {
        match name {
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nopassthrough" => self.no_passthrough = true,
            "passthrough" => self.no_passthrough = false,
            "guard" | "config" | "log_level" => return Err(needs_value(name)),
            _ if KERNEL_FLAGS.contains(&name) => {
                let one_of = ONE_OF.contains(&name);
                self.kernel
                    .retain(|flag| flag != name && !(one_of && ONE_OF.contains(&flag.as_str())));
                self.kernel.push(name.to_owned());
            }
            _ if of_mount(name) => {}
            _ => match TAKES_BACK.iter().find(|(word, _)| *word == name) {
                Some((_, flags)) => self.kernel.retain(|flag| !flags.contains(&flag.as_str())),
                None => return Err(unknown(name, name)),
            },
        }
        Ok(())
    }

    /// An option with a value.
    fn assign(&mut self, option: &str, name: &str, value: &str) -> Result<(), ConfigError> {
        match name {
            "guard" | "config" | "log_level" if value.is_empty() => return Err(needs_value(name)),
            "guard" => {
                let globs: Vec<String> = value.split(':').map(str::to_owned).collect();
                if globs.iter().any(String::is_empty) {
                    return Err(ConfigError::option(format!(
                        "mount option {}: a pattern between the colons is empty",
                        shown_text(option)
                    )));
                }
                // The later one does not win here: a second guard= must not leave the files
                // of the first without their guard.
                self.guard.extend(globs);
            }
            "config" => self.config = Some(PathBuf::from(value)),
            "log_level" => match value.parse() {
                Ok(level) => self.log_level = Some(level),
                Err(_) => {
                    return Err(ConfigError::option(format!(
                        "mount option {}: the level may be off, error, warn, info, debug or trace",
                        shown_text(option)
                    )));
                }
            },
            // mount(8) adds the name of the user to "user".
            _ if of_mount(name) => {}
            _ if OURS.contains(&name) || KERNEL_FLAGS.contains(&name) => {
                return Err(ConfigError::option(format!(
                    "mount option {}: {name} takes no value",
                    shown_text(option)
                )));
            }
            _ => return Err(unknown(option, name)),
        }
        Ok(())
    }
}

/// Whether an option is for mount(8) alone; `x-` and `X-` begin names of programs' own.
fn of_mount(name: &str) -> bool {
    OF_MOUNT.contains(&name) || name.starts_with("x-") || name.starts_with("X-")
}

fn needs_value(name: &str) -> ConfigError {
    let example = match name {
        "guard" => "guard=*.log:results.csv",
        "config" => "config=/etc/dotlockfs.toml",
        _ => "log_level=info",
    };
    ConfigError::option(format!(
        "mount option {name} needs a value, as in {example}"
    ))
}

fn unknown(option: &str, name: &str) -> ConfigError {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As the command line does it.
    fn parse_line(line: &str) -> Result<MountOptions, ConfigError> {
        let options: Vec<String> = line.split(',').map(str::to_owned).collect();
        parse(&options)
    }

    fn kernel(flags: &[&str]) -> MountOptions {
        MountOptions {
            kernel: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..MountOptions::default()
        }
    }

    #[test]
    fn options_are_understood() {
        let none = MountOptions::default;
        let guard = |globs: &[&str]| MountOptions {
            guard: globs.iter().map(|glob| (*glob).to_owned()).collect(),
            ..none()
        };
        let read_only = MountOptions {
            read_only: true,
            ..none()
        };
        let table = [
            ("", none()),
            ("defaults,auto,noauto,user,users,nouser,owner,group", none()),
            ("_netdev,nofail,rw,async,comment=a=b,comment", none()),
            (
                "x-systemd.automount,x-systemd.requires=net,X-mount.mkdir",
                none(),
            ),
            ("user=joe", none()),
            ("ro", read_only.clone()),
            ("rw,ro,", read_only),
            ("ro,rw", none()),
            (
                "allow_other,allow_other",
                MountOptions {
                    allow_other: true,
                    ..none()
                },
            ),
            (
                "default_permissions",
                MountOptions {
                    default_permissions: true,
                    ..none()
                },
            ),
            (
                "passthrough,nopassthrough",
                MountOptions {
                    no_passthrough: true,
                    ..none()
                },
            ),
            ("nopassthrough,passthrough", none()),
            ("guard=*.log", guard(&["*.log"])),
            ("guard=*.log:a=b,guard=c", guard(&["*.log", "a=b", "c"])),
            (
                "config=/etc/a=b",
                MountOptions {
                    config: Some("/etc/a=b".into()),
                    ..none()
                },
            ),
            (
                "config=a,config=b",
                MountOptions {
                    config: Some("b".into()),
                    ..none()
                },
            ),
            (
                "log_level=info,log_level=DEBUG",
                MountOptions {
                    log_level: Some(log::LevelFilter::Debug),
                    ..none()
                },
            ),
            (
                "nosuid,nodev,noexec,nosuid",
                kernel(&["nodev", "noexec", "nosuid"]),
            ),
            ("nosuid,nodev,suid", kernel(&["nodev"])),
            ("noatime,relatime", kernel(&["relatime"])),
            (
                "relatime,noatime,nodiratime",
                kernel(&["noatime", "nodiratime"]),
            ),
            ("sync,dirsync,async", kernel(&["dirsync"])),
        ];
        for (line, expected) in table {
            assert_eq!(parse_line(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn every_kernel_flag_is_accepted_and_can_be_taken_back() {
        for flag in KERNEL_FLAGS {
            assert_eq!(parse_line(flag).unwrap(), kernel(&[flag]));
        }
        for (word, flags) in TAKES_BACK {
            for flag in *flags {
                assert_eq!(parse_line(&format!("{flag},{word}")).unwrap(), kernel(&[]));
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let table = [
            ("bogus", "unknown mount option: bogus\n"),
            ("ro,bogus=1", "unknown mount option: bogus=1\n"),
            ("allow_root", "unknown mount option: allow_root\n"),
            (
                "alow_other",
                "unknown mount option: alow_other\n  did you mean allow_other?",
            ),
            ("=", "unknown mount option: =\n"),
            ("a\u{1b}", "unknown mount option: a\\u{1b}\n"),
            (
                "guard",
                "mount option guard needs a value, as in guard=*.log:results.csv",
            ),
            ("guard=", "mount option guard needs a value"),
            (
                "guard=a::b",
                "mount option guard=a::b: a pattern between the colons is empty",
            ),
            ("config=", "mount option config needs a value"),
            (
                "log_level=loud",
                "mount option log_level=loud: the level may be off, error",
            ),
            ("ro=1", "mount option ro=1: ro takes no value"),
            (
                "nosuid=yes",
                "mount option nosuid=yes: nosuid takes no value",
            ),
        ];
        for (line, expected) in table {
            let error = parse_line(line).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }
}
