//! The words after `-o`: those of dotlockfs, those for the kernel, and those that mount(8)
//! and fstab(5) use among themselves and pass on.

pub mod address;
#[cfg(test)]
mod documented;
mod words;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::{ConfigError, shown_text};
pub use words::KERNEL_FLAGS;
use words::{LABELS, ONE_OF, OURS, SHOWN_BY_KERNEL, TAKES_BACK};
use words::{needs_value, not_understood, of_mount, without_value};

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
    /// [`Rules::from_globs`](super::Rules::from_globs). A colon cannot be part of one.
    pub guard: Vec<String>,
    /// `config=FILE`: the rule file to use. Default: none, the one in the guarded directory.
    pub config: Option<PathBuf>,
    /// `log_level=LEVEL`: how much to log. Default: none, as the command line says.
    pub log_level: Option<log::LevelFilter>,
    /// `threads=N`: how many threads read requests, from 1 to [`THREADS_MAX`]. Default: none, as
    /// the command line says.
    pub threads: Option<u16>,
    /// `metrics=[ADDRESS:]PORT`: where metrics are served over HTTP. Default: none, nowhere.
    pub metrics: Option<SocketAddr>,
    /// `require_mount[=TYPE[:TYPE...]]`: the source must lie on a file system of one of these types,
    /// or nothing is mounted. Without a value the type is `nfs`, which means `nfs4` too. Default:
    /// none, any file system will do.
    pub require_mount: Vec<String>,
    /// `remount`: change the flags of the mount that is there. Default: no.
    pub remount: bool,
    /// `fsname=NAME`, which has to be the source. Default: none.
    pub fsname: Option<String>,
    /// `context=`, `fscontext=`, `defcontext=` and `rootcontext=`, for SELinux, as they were given.
    /// Default: none.
    pub labels: Vec<String>,
    /// Options that were not understood, where that is no error. Default: none.
    pub unknown: Vec<String>,
    /// Flags for mount(2), each at most once, out of [`KERNEL_FLAGS`]. Default: none.
    pub kernel: Vec<String>,
}

/// The most threads that can be asked for.
pub const THREADS_MAX: u16 = 64;

/// What becomes of options that are not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// They are an error.
    Refuse,
    /// They are kept in [`MountOptions::unknown`], as `mount -s` wants it.
    Keep,
}

/// Reads mount options, as they stand behind `-o`: separated by commas. As mount(8) does it, a comma
/// between double quotes is part of a value. Where two contradict each other the later one wins, as
/// in `ro,rw`.
///
/// # Errors
/// Options that are not understood, unless they are kept; values that cannot be used.
pub fn parse(lists: &[String], unknown: Unknown) -> Result<MountOptions, ConfigError> {
    let mut parsed = MountOptions::default();
    let mut not_known = Vec::new();
    for option in lists.iter().flat_map(|list| split(list)) {
        // "-o ro," and "-o ''" are common in scripts.
        if option.is_empty() {
            continue;
        }
        if option.matches('"').count() % 2 != 0 {
            return Err(fault(option, "a double quote is not closed"));
        }
        let known = match option.split_once('=') {
            Some((name, value)) => parsed.assign(option, name, value)?,
            None => parsed.set(option)?,
        };
        if !known {
            not_known.push(option.to_owned());
        }
    }
    for option in not_known {
        let name = option.split('=').next().unwrap_or_default();
        if parsed.remount && SHOWN_BY_KERNEL.contains(&name) {
            continue;
        }
        match unknown {
            Unknown::Keep => parsed.unknown.push(option),
            Unknown::Refuse => return Err(not_understood(&option, name)),
        }
    }
    Ok(parsed)
}

/// Splits at commas that are not between double quotes.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    })
}

fn fault(option: &str, what: &str) -> ConfigError {
    ConfigError::option(format!("mount option {}: {what}", shown_text(option)))
}

/// A value without the double quotes around it.
fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"');
    inner
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value)
}

impl MountOptions {
    /// An option without a value. Gives whether it is known.
    fn set(&mut self, name: &str) -> Result<bool, ConfigError> {
        match name {
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "nopassthrough" => self.no_passthrough = true,
            "passthrough" => self.no_passthrough = false,
            "require_mount" => self.require_mount = vec!["nfs".to_owned()],
            "remount" => self.remount = true,
            _ if needs_value(name).is_some() => return Err(without_value(name)),
            _ if KERNEL_FLAGS.contains(&name) => {
                let one_of = ONE_OF.contains(&name);
                self.kernel
                    .retain(|flag| flag != name && !(one_of && ONE_OF.contains(&flag.as_str())));
                self.kernel.push(name.to_owned());
            }
            _ if of_mount(name) => {}
            _ => match TAKES_BACK.iter().find(|(word, _)| *word == name) {
                Some((_, flags)) => self.kernel.retain(|flag| !flags.contains(&flag.as_str())),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// An option with a value. Gives whether it is known.
    fn assign(&mut self, option: &str, name: &str, value: &str) -> Result<bool, ConfigError> {
        let value = unquoted(value);
        let fault = |what: &str| fault(option, what);
        let list = |what: &str| {
            let list: Vec<String> = value.split(':').map(str::to_owned).collect();
            match list.iter().any(String::is_empty) {
                true => Err(fault(&format!("a {what} between the colons is empty"))),
                false => Ok(list),
            }
        };
        // It would be part of a pattern or of a path, and files would not be guarded.
        if value.contains('"') && OURS.contains(&name) {
            return Err(fault("double quotes can only stand around the whole value"));
        }
        match name {
            _ if value.is_empty() && needs_value(name).is_some() => {
                return Err(without_value(name));
            }
            "guard" => {
                let globs = list("pattern")?;
                // The later one does not win here: a second guard= must not leave the files
                // of the first without their guard.
                self.guard.extend(globs);
            }
            "config" => self.config = Some(PathBuf::from(value)),
            "log_level" | "log-level" => match value.parse() {
                Ok(level) => self.log_level = Some(level),
                Err(_) => {
                    return Err(fault(
                        "the level may be off, error, warn, info, debug or trace",
                    ));
                }
            },
            "threads" => match value.parse() {
                Ok(threads @ 1..=THREADS_MAX) => self.threads = Some(threads),
                _ => return Err(fault("the number may be from 1 to 64")),
            },
            "metrics" => match address::parse(value) {
                Ok(address) => self.metrics = Some(address),
                Err(wanted) => return Err(fault(&format!("it may be {wanted}"))),
            },
            "require_mount" => self.require_mount = list("type")?,
            "fsname" => self.fsname = Some(value.to_owned()),
            // Whoever looks for mounts of dotlockfs looks for this type.
            "subtype" if value == "dotlockfs" => {}
            "subtype" => return Err(fault("it is always dotlockfs, so leave it out")),
            _ if LABELS.contains(&name) => self.labels.push(option.to_owned()),
            // mount(8) adds the name of the user to "user".
            _ if of_mount(name) => {}
            _ if OURS.contains(&name) || KERNEL_FLAGS.contains(&name) => {
                return Err(fault(&format!("{name} takes no value")));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the command line does it.
    fn parse_line(line: &str) -> Result<MountOptions, ConfigError> {
        parse(&[line.to_owned()], Unknown::Refuse)
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
        let on = |types: &[&str]| MountOptions {
            require_mount: types.iter().map(|kind| (*kind).to_owned()).collect(),
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
            ("nosuid,suid,nodev,dev,noexec,exec", none()),
            (
                "silent,loud,nomand,helper=dotlockfs,subtype=dotlockfs",
                none(),
            ),
            (
                "threads=1,threads=64",
                MountOptions {
                    threads: Some(64),
                    ..none()
                },
            ),
            (
                "log-level=warn",
                MountOptions {
                    log_level: Some(log::LevelFilter::Warn),
                    ..none()
                },
            ),
            (
                "metrics=1,metrics=:9469",
                MountOptions {
                    metrics: Some(([127, 0, 0, 1], 9469).into()),
                    ..none()
                },
            ),
            ("require_mount", on(&["nfs"])),
            (
                "require_mount=ceph:fuse.glusterfs",
                on(&["ceph", "fuse.glusterfs"]),
            ),
            (
                r#"guard="*.{log,txt}",guard=b"#,
                guard(&["*.{log,txt}", "b"]),
            ),
            (
                r#"config="/etc/a,b""#,
                MountOptions {
                    config: Some("/etc/a,b".into()),
                    ..none()
                },
            ),
            (
                r#"context="u:r:t:s0:c1,c2",ro,rw"#,
                MountOptions {
                    labels: vec![r#"context="u:r:t:s0:c1,c2""#.to_owned()],
                    ..none()
                },
            ),
            (
                "user_id=0,remount,group_id=0,max_read=131072,fsname=/a",
                MountOptions {
                    remount: true,
                    fsname: Some("/a".to_owned()),
                    ..none()
                },
            ),
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
            ("user_id=0", "unknown mount option: user_id=0\n"),
            (
                "allow_root",
                "mount option allow_root: root alone cannot be let in",
            ),
            (
                "auto_unmount",
                "mount option auto_unmount: when dotlockfs is killed",
            ),
            (
                "threads",
                "mount option threads needs a value, as in threads=4",
            ),
            (
                "threads=0",
                "mount option threads=0: the number may be from 1 to 64",
            ),
            (
                "threads=65",
                "mount option threads=65: the number may be from 1 to 64",
            ),
            ("metrics=x", "mount option metrics=x: it may be a port, or"),
            (
                "subtype=x",
                "mount option subtype=x: it is always dotlockfs",
            ),
            ("require_mount=", "mount option require_mount needs a value"),
            (
                "require_mount=a:",
                "mount option require_mount=a:: a type between the colons is empty",
            ),
            (r#"config="""#, "mount option config needs a value"),
            (
                "alow_other",
                "unknown mount option: alow_other\n  did you mean allow_other?",
            ),
            ("=", "unknown mount option: =\n"),
            (
                r#"guard="*.log":"*.csv""#,
                r#"mount option guard="*.log":"*.csv": double quotes can only stand around"#,
            ),
            (
                r#"guard=a"b"c"#,
                r#"mount option guard=a"b"c: double quotes can only stand around"#,
            ),
            (
                r#"require_mount=nfs"""#,
                r#"mount option require_mount=nfs"": double quotes can only stand around"#,
            ),
            (
                r#"config="/etc/a,guard=b,ro"#,
                r#"mount option config="/etc/a,guard=b,ro: a double quote is not closed"#,
            ),
            (
                r#"x-a=",guard=b"#,
                r#"mount option x-a=",guard=b: a double quote is not closed"#,
            ),
            (
                r#"context="u:r:t:s0:c1,c2"#,
                r#"mount option context="u:r:t:s0:c1,c2: a double quote is not closed"#,
            ),
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

    #[test]
    fn what_is_not_understood_can_be_kept() {
        let lists = ["ro,bogus".to_owned(), "auto_unmount,noexec".to_owned()];
        let parsed = parse(&lists, Unknown::Keep).unwrap();
        assert_eq!(parsed.unknown, ["bogus", "auto_unmount"]);
        assert!(parsed.read_only);
        assert_eq!(parsed.kernel, ["noexec"]);
        assert!(parse(&["threads=x".to_owned()], Unknown::Keep).is_err());
    }
}
