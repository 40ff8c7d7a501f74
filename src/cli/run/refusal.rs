//! Why a kernel or a container lets nobody make namespaces, and what to do then.

use std::fs;
use std::io;
use std::path::Path;

use crate::config::error::shown;

/// Settings that forbid it: a file, its value, and the command that allows it.
const SETTINGS: [(&str, &str, &str); 4] = [
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "sysctl user.max_user_namespaces=10000",
    ),
    (
        "/proc/sys/user/max_mnt_namespaces",
        "0",
        "sysctl user.max_mnt_namespaces=10000",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for \
         dotlockfs that has `userns,`",
    ),
];

/// The line for a user. `what` has failed.
pub(super) fn of_user(dir: &Path, what: &str, error: io::Error) -> String {
    let forbids = SETTINGS.iter().find(|(file, value, _)| {
        fs::read_to_string(file).is_ok_and(|found| found.trim() == *value)
    });
    line(dir, what, error, forbids.map(|(_, _, allow)| *allow))
}

/// The line for root, who needs the right to mount.
pub(super) fn of_root(dir: &Path, what: &str, error: &io::Error) -> String {
    format!(
        "{}: cannot be guarded: {what}: {}; root needs the right to mount, in a \
         container: --cap-add SYS_ADMIN",
        shown(dir),
        reason(error)
    )
}

fn line(dir: &Path, what: &str, error: io::Error, allow: Option<&str>) -> String {
    let why = match allow {
        Some(allow) => format!("root can allow it: {allow}"),
        None => "a container or a security module may forbid it".to_owned(),
    };
    format!(
        "{0}: cannot be guarded in a namespace of your own: {what}: {1}; {why}. With fusermount3: \
         mkdir -p ~/guarded; dotlockfs {0} ~/guarded; then run the command there",
        shown(dir),
        reason(&error)
    )
}

/// An error without its number.
fn reason(error: &io::Error) -> String {
    if error.raw_os_error() == Some(libc::ENOSPC) {
        // unshare(2) means a limit by it.
        return "no more of them are allowed".to_owned();
    }
    let reason = error.to_string();
    reason
        .split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_failed_where_and_what_to_do() {
        let error = || io::Error::from_raw_os_error(libc::EPERM);
        let dir = Path::new("/net/data");
        let known = line(dir, "mounting", error(), Some("sysctl a.b=1"));
        for part in [
            "/net/data: ",
            "mounting: Operation not permitted; ",
            "root can allow it: sysctl a.b=1.",
            "dotlockfs /net/data ~/guarded",
        ] {
            assert!(known.contains(part), "{known}");
        }
        let unknown = line(dir, "mounting", error(), None);
        assert!(unknown.contains("container"), "{unknown}");
    }
}
