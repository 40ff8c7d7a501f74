//! Mounting and unmounting without root, by fusermount3, which has the right to.
//!
//! fuser offers that as well. But the end of its session unmounts whatever stands at the path by
//! then, though what it had mounted there is gone, and somebody has mounted another thing since.
//! So it gets the descriptor only, and knows of no mount.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::service;
use crate::config::MountOptions;
use crate::sys;

const PROGRAM: &str = "fusermount3";

/// As with other FUSE programs, a variable may name another one. It has no more rights than whoever
/// sets it.
fn program() -> OsString {
    std::env::var_os("FUSERMOUNT_PATH").unwrap_or_else(|| PROGRAM.into())
}

/// Mounts, and gives the descriptor by which the kernel asks.
///
/// # Errors
/// `NotFound` where there is no fusermount3; else with what it says.
pub(super) fn mount(
    source: &Path,
    mountpoint: &Path,
    options: &MountOptions,
) -> io::Result<OwnedFd> {
    let (ours, its) = UnixStream::pair()?;
    let mut command = Command::new(program());
    service::is_not_for(&mut command);
    // It sends the descriptor through the socket that the variable names: its standard input.
    // In a group of its own, so that no key ends it (Ctrl-C) between the mount and the descriptor.
    command
        .process_group(0)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(its)))
        .arg("-o")
        .arg(words(source, options))
        .arg("--")
        .arg(mountpoint);
    let run = command.output()?;
    // It has the other end of the socket, whose end would not come.
    drop(command);
    match sys::fds::receive(&ours, &mut [0]) {
        Ok((1, Some(device))) if run.status.success() => Ok(device),
        Err(error) if run.status.success() => Err(error),
        _ => Err(said(&run.stderr)),
    }
}

/// Unmounts what is mounted there; `lazily` also where programs use it.
///
/// # Errors
/// What fusermount3 says, or that there is none.
pub(super) fn unmount(mountpoint: &Path, lazily: bool) -> io::Result<()> {
    let run = service::is_not_for(&mut Command::new(program()))
        .arg("-u")
        .args(lazily.then_some("-z"))
        .arg("--")
        .arg(mountpoint)
        .stdin(Stdio::null())
        .output()?;
    match run.status.success() {
        true => Ok(()),
        false => Err(said(&run.stderr)),
    }
}

fn said(words: &[u8]) -> io::Error {
    let words = String::from_utf8_lossy(words).trim().replace('\n', "; ");
    io::Error::other(match words.is_empty() {
        true => "fusermount3 failed without a word".to_owned(),
        false => words,
    })
}

/// The options, as fusermount3 wants them.
fn words(source: &Path, options: &MountOptions) -> OsString {
    let mut words = b"fsname=".to_vec();
    for &byte in source.as_os_str().as_bytes() {
        // As libfuse does it.
        if matches!(byte, b',' | b'\\') {
            words.push(b'\\');
        }
        words.push(byte);
    }
    words.extend_from_slice(b",subtype=dotlockfs,nosuid,nodev");
    let wanted = [
        (options.read_only, "ro"),
        (options.allow_other, "allow_other"),
        (options.default_permissions, "default_permissions"),
    ];
    let wanted = wanted
        .iter()
        .filter_map(|(wanted, word)| wanted.then_some(*word));
    let always = ["nosuid", "nodev"];
    let flags = options.kernel.iter().map(String::as_str);
    let flags = flags.filter(|flag| !always.contains(flag));
    let labels = options.labels.iter().map(String::as_str);
    for word in wanted.chain(flags).chain(labels) {
        words.push(b',');
        words.extend_from_slice(word.as_bytes());
    }
    OsString::from_vec(words)
}
