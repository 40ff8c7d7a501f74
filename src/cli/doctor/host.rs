//! This host: the kernel and what FUSE needs.

use std::env;
use std::fs::{self, File};
use std::path::Path;

use super::{Finding, reason};
use crate::sys;

/// The oldest kernel that has all the calls: major and minor number.
const OLDEST: (u32, u32) = (5, 8);

pub(super) fn findings() -> Vec<Finding> {
    vec![kernel(), device(), helper()]
}

fn kernel() -> Finding {
    let subject = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (major, minor) = OLDEST;
    match version(release) {
        Some(version) if version >= OLDEST => Finding::ok(subject, format!("Linux {release}")),
        Some(_) => Finding::fault(
            subject,
            format!("Linux {release} lacks system calls that dotlockfs needs"),
            format!("use Linux {major}.{minor} or later"),
        ),
        None => Finding::note(
            subject,
            format!("its version is not known; Linux {major}.{minor} or later is needed"),
        ),
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn device() -> Finding {
    let subject = "/dev/fuse";
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::ok(subject, "can be opened"),
        Err(error) => Finding::fault(
            subject,
            format!("cannot be opened: {}", reason(&error)),
            "modprobe fuse; in a container pass the device in (--device /dev/fuse), with the \
             right to mount (--cap-add SYS_ADMIN)",
        ),
    }
}

fn helper() -> Finding {
    let subject = "fusermount3";
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("fusermount3"));
    let is_there = found.into_iter().any(|file| Path::is_file(&file));
    match (is_there, sys::creds::euid()) {
        (true, _) => Finding::ok(subject, "is installed, so users can mount without root"),
        (false, 0) => Finding::note(
            subject,
            "is not installed; only users without root need it (Debian: fuse3)",
        ),
        (false, _) => Finding::fault(
            subject,
            "was not found, and without root nothing can be mounted without it",
            "install it (Debian: fuse3), or mount as root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_all_kinds_of_releases() {
        for (release, expected) in [
            ("6.1.0-18-amd64", Some((6, 1))),
            ("5.10", Some((5, 10))),
            ("5.8-rc1", Some((5, 8))),
            ("", None),
            ("new", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!((5, 10) >= OLDEST && (5, 7) < OLDEST);
    }
}
