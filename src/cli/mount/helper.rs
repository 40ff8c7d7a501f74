//! mount(8)'s helper: this program called as `mount.dotlockfs` or `mount.fuse.dotlockfs`.
//!
//! mount(8) calls it for `mount -t dotlockfs` and for lines in `/etc/fstab`, with the arguments that
//! mount(8) describes under "external helpers", and hands its exit status on. For an ordinary user
//! (`user` in fstab) it has dropped root's rights before.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::{Asked, in_background, remount, unusable};
use crate::config::error::shown;
use crate::config::options::{self, Unknown};
use crate::sys::{self, mount_table};

/// The names by which the program is the helper.
const NAMES: [&str; 2] = ["mount.dotlockfs", "mount.fuse.dotlockfs"];

/// What mount(8) may say behind `-t`.
const TYPES: [&str; 3] = ["dotlockfs", "fuse.dotlockfs", "fuse"];

/// Exit statuses of mount(8). Its 8 (interrupted) is given where the signal comes; 16 and 64 are
/// never given: there is no mtab to write, and one mount only.
mod status {
    /// The call was wrong.
    pub const USAGE: u8 = 1;
    /// The system could not do it: no memory, no process.
    pub const SYSTEM: u8 = 2;
    /// The mount failed.
    pub const FAILED: u8 = 32;
}

/// Mount a directory, guarded, as mount(8) asks for it
#[derive(Debug, Parser)]
#[command(
    name = "mount.dotlockfs",
    version,
    after_help = "Called by mount(8): `mount -t dotlockfs SOURCE MOUNTPOINT`, and for lines of that \
                  type in /etc/fstab."
)]
struct Arguments {
    /// The directory to guard, most often on NFS
    source: PathBuf,
    /// Where the guarded view appears; may be SOURCE itself
    mountpoint: PathBuf,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Leave out options that are not known
    #[arg(short = 's')]
    sloppy: bool,
    /// Check what can be checked, and mount nothing
    #[arg(short = 'f')]
    fake: bool,
    /// Write no mtab (there is none)
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// Say what was done
    #[arg(short = 'v')]
    verbose: bool,
    /// Mount in this mount namespace, as /proc/PID/ns/mnt
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<PathBuf>,
    /// The type: dotlockfs or fuse.dotlockfs
    #[arg(short = 't', value_name = "TYPE", value_parser = TYPES)]
    _kind: Option<String>,
}

/// Whether the program was called as the helper; `name` is its own name.
pub fn is_called(name: Option<&OsStr>) -> bool {
    let name = name.map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| {
        NAMES
            .iter()
            .any(|helper| name.as_bytes() == helper.as_bytes())
    })
}

/// Runs it, and gives an exit status of mount(8).
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            let _ = answer.print();
            return match answer.use_stderr() {
                true => ExitCode::from(status::USAGE),
                false => ExitCode::SUCCESS,
            };
        }
    };
    let unknown = match arguments.sloppy {
        true => Unknown::Keep,
        false => Unknown::Refuse,
    };
    let options = match options::parse(&arguments.options, unknown) {
        Ok(options) => options,
        Err(error) => return failed(status::USAGE, &error),
    };
    for option in &options.unknown {
        say(&format!("left out, since it is not known: {option}"));
    }
    if let Some(namespace) = &arguments.namespace
        && let Err(error) = enter(namespace)
    {
        return failed(status::SYSTEM, &*error);
    }
    let asked = Asked {
        source: arguments.source,
        mountpoint: arguments.mountpoint,
        options,
    };
    let done = format!(
        "{} {} at {}",
        shown(&asked.source),
        match (arguments.fake, asked.options.remount) {
            (true, _) => "could be mounted",
            (_, true) => "is remounted",
            _ => "is mounted",
        },
        shown(&asked.mountpoint)
    );
    let outcome = match (arguments.fake, asked.options.remount) {
        (true, _) => fake(&asked).map(|()| ExitCode::SUCCESS),
        (_, true) => remount::run(&asked).map(|()| ExitCode::SUCCESS),
        _ => in_background(asked),
    };
    match outcome {
        Ok(code) => {
            if arguments.verbose && code == ExitCode::SUCCESS {
                println!("{}: {done}", NAMES[0]);
            }
            code
        }
        // What the system said of a process or of /proc, and no line for a path.
        Err(error) if error.is::<io::Error>() => failed(status::SYSTEM, &*error),
        Err(error) => failed(status::FAILED, &*error),
    }
}

fn failed(status: u8, error: &dyn Error) -> ExitCode {
    say(&error.to_string());
    ExitCode::from(status)
}

fn say(line: &str) {
    eprintln!("{}: {line}", NAMES[0]);
}

fn enter(namespace: &Path) -> Result<(), Box<dyn Error>> {
    let entered = fs::File::open(namespace).and_then(sys::mount::enter_namespace);
    Ok(entered.map_err(|error| unusable(namespace, "cannot enter this namespace", &error))?)
}

/// Looks whether both directories are there; changes nothing.
fn fake(asked: &Asked) -> Result<(), Box<dyn Error>> {
    for (path, what) in [
        (&asked.source, "cannot use it as the source"),
        (&asked.mountpoint, "cannot mount there"),
    ] {
        is_directory(path).map_err(|error| unusable(path, what, &error))?;
    }
    Ok(())
}

/// Fails where a path leads to no directory. What autofs has for it is not mounted.
fn is_directory(path: &Path) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let (fd, _) = mount_table::open(&path)?;
    let mode = sys::fs::statx(fd, c"", 0)?.mode;
    match mode & libc::S_IFMT == libc::S_IFDIR {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_known_by_its_name() {
        let called = |name: &str| is_called(Some(OsStr::new(name)));
        assert!(called("mount.dotlockfs"));
        assert!(called("/sbin/mount.fuse.dotlockfs"));
        assert!(!called("dotlockfs"));
        assert!(!called("/mount.dotlockfs/dotlockfs"));
        assert!(!is_called(None));
    }

    #[test]
    fn arguments_of_mount_are_understood() {
        let line =
            "mount.dotlockfs /a /b -s -f -n -v -N /proc/1/ns/mnt -o ro,x=y -t fuse.dotlockfs";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert!(arguments.sloppy && arguments.fake && arguments.verbose);
        assert_eq!(arguments.options, ["ro,x=y"]);
        assert_eq!(arguments.namespace, Some("/proc/1/ns/mnt".into()));
        let packed = "mount.dotlockfs /a /b -sfnv";
        assert!(Arguments::try_parse_from(packed.split(' ')).is_ok());
        let other = "mount.dotlockfs /a /b -t fuse.other";
        assert!(Arguments::try_parse_from(other.split(' ')).is_err());
    }
}
