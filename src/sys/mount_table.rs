//! The kernel's table of mounts, `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//!
//! The table is asked, not the mount points: a mount whose daemon or server hangs would not
//! answer.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::sys;

/// The type of the mounts that this program makes.
pub const OURS: &str = "fuse.dotlockfs";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number, as long as it is mounted.
    pub id: u64,
    /// The number of the mount that it stands on.
    pub parent: u64,
    /// Device number of the file system, as `st_dev`.
    pub dev: u64,
    /// Which directory of the file system is mounted, from that one's root.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Options of the mount itself, with commas between them.
    pub options: String,
    /// The file system's type.
    pub kind: String,
    /// What is mounted: a device, a server's directory.
    pub source: OsString,
    /// Options of the file system, with commas between them.
    pub super_options: String,
}

impl Entry {
    /// Whether nothing can be changed by way of the mount.
    pub fn read_only(&self) -> bool {
        let has_ro = |list: &str| list.split(',').any(|option| option == "ro");
        has_ro(&self.options) || has_ro(&self.super_options)
    }
}

/// All mounts that this process can reach, in the order in which they were mounted.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn read() -> io::Result<Vec<Entry>> {
    read_file("/proc/self/mountinfo")
}

/// All mounts that another process can reach.
///
/// # Errors
/// Those of reading `/proc/PID/mountinfo`.
pub fn of_process(pid: i32) -> io::Result<Vec<Entry>> {
    read_file(&format!("/proc/{pid}/mountinfo"))
}

fn read_file(file: &str) -> io::Result<Vec<Entry>> {
    Ok(parse_all(&fs::read(file)?))
}

fn parse_all(table: &[u8]) -> Vec<Entry> {
    let lines = table.split(|&byte| byte == b'\n');
    lines.filter_map(parse).collect()
}

/// The mount of this number, if it is one of dotlockfs.
///
/// # Errors
/// Those of [`read`].
pub fn ours(id: u64) -> io::Result<Option<Entry>> {
    let mut table = read()?.into_iter();
    Ok(table.find(|entry| entry.id == id && entry.kind == OURS))
}

/// The newest mount of the file system with this device number, or `None` where it is not to be seen.
pub fn of_device(dev: u64) -> Option<Entry> {
    newest(read().ok()?, dev)
}

fn newest(table: Vec<Entry>, dev: u64) -> Option<Entry> {
    table.into_iter().rev().find(|entry| entry.dev == dev)
}

/// The options that the NFS mount with this device number shows (nfs(5)), or `None` where that is
/// no NFS mount, or is not to be seen.
pub fn nfs_options(dev: u64) -> Option<String> {
    let mount = of_device(dev)?;
    mount.kind.starts_with("nfs").then_some(mount.super_options)
}

/// A descriptor (`O_PATH`) of what a path leads to, and the number of the mount that it lies on.
/// Nobody is asked for it: this works on a mount whose daemon is dead.
///
/// # Errors
/// Those of `open(2)`; `ENODATA` where `/proc` does not tell the mount.
pub fn open(path: &Path) -> io::Result<(OwnedFd, u64)> {
    let cwd = fs::File::open("/")?;
    let path = sys::c_name(std::path::absolute(path)?.as_os_str())?;
    let fd = sys::fs::openat(cwd, &path, libc::O_PATH, 0)?;
    let id = id_of(&fd)?;
    Ok((fd, id))
}

/// The number of the mount that an open file lies on.
///
/// # Errors
/// Those of reading `/proc`; `ENODATA` where it does not tell.
pub fn id_of(fd: impl AsFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA))
}

/// Reads one line; `None` for one that is not as proc_pid_mountinfo(5) describes.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let id = text()?.parse().ok()?;
    let parent = text()?.parse().ok()?;
    let (major, minor) = text()?.split_once(':')?;
    let dev = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    let root = path(fields.next()?);
    let point = path(fields.next()?);
    let options = lossy(fields.next()?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Entry {
        id,
        parent,
        dev,
        root,
        point,
        options,
        kind: lossy(fields.next()?),
        source: OsString::from_vec(unescape(fields.next()?)),
        super_options: fields.next().map(lossy).unwrap_or_default(),
    })
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn lossy(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| std::str::from_utf8(tail.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            br"36 35 98:7 /m /mnt/two\040words rw,noatime master:1 - fuse.x /dev/r\134 rw,e=\";
        let entry = parse(line).unwrap();
        assert_eq!((entry.id, entry.parent), (36, 35));
        assert_eq!(entry.dev, libc::makedev(98, 7));
        assert_eq!(entry.root, Path::new("/m"));
        assert_eq!(entry.point, Path::new("/mnt/two words"));
        assert_eq!(entry.options, "rw,noatime");
        assert_eq!(entry.kind, "fuse.x");
        assert_eq!(entry.source, r"/dev/r\");
        assert_eq!(entry.super_options, r"rw,e=\");
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_mount_is_found_by_its_device() {
        let table = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,noac
39 22 0:51 / /net/data rw,relatime shared:9 master:3 - nfs4 server:/data rw,vers=4.2,noac
40 22 0:51 / /net/data ro,relatime shared:9 master:3 - nfs4 server:/data rw,vers=4.2,noac
41 22 0:52 / /net/more\\040data rw - nfs server:/more ro,vers=3
";
        let seen = |major, minor| {
            let mount = newest(parse_all(table.as_bytes()), libc::makedev(major, minor))?;
            let read_only = mount.read_only();
            Some((mount.id, mount.kind, read_only, mount.super_options))
        };
        let mount = |id, kind: &str, read_only, options: &str| {
            Some((id, kind.to_owned(), read_only, options.to_owned()))
        };
        assert_eq!(seen(8, 1), mount(22, "ext4", false, "rw,noac"));
        assert_eq!(seen(0, 51), mount(40, "nfs4", true, "rw,vers=4.2,noac"));
        assert_eq!(seen(0, 52), mount(41, "nfs", true, "ro,vers=3"));
        assert_eq!(seen(0, 53), None);
    }

    #[test]
    fn only_whole_escapes_are_undone() {
        assert_eq!(unescape(br"a\134b\04"), br"a\b\04");
    }

    #[test]
    fn the_mount_of_a_path_is_in_the_table() {
        let fresh = tempfile::tempdir().unwrap();
        let (_, id) = open(fresh.path()).unwrap();
        let table = read().unwrap();
        let entry = table.iter().find(|entry| entry.id == id).unwrap();
        let path = fresh.path().canonicalize().unwrap();
        assert!(path.starts_with(&entry.point), "{entry:?}");
        assert!(table.iter().any(|entry| entry.point == Path::new("/")));
    }
}
