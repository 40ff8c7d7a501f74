//! Attributes in the form that fuser takes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::sys::fs::{SetTime, Stat, Timestamp};

/// The attributes of a file, under the inode number `ino`.
pub fn file_attr(stat: &Stat, ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: stat.size,
        blocks: stat.blocks,
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.file_type()),
        perm: (stat.mode & 0o7777) as u16,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        // Linux gives both in the same 32 bits (new_encode_dev), up to 12 bits of major number.
        rdev: stat.rdev as u32,
        blksize: stat.blksize,
        flags: 0,
    }
}

/// The type behind the `S_IFMT` bits of a mode.
pub fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// Attributes of a directory entry of which only the number and type are known.
pub fn entry_attr(ino: u64, kind: FileType) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nsec));
    match u64::try_from(time.sec) {
        Ok(sec) => UNIX_EPOCH + Duration::from_secs(sec) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(time.sec.unsigned_abs()) + nanos,
    }
}

/// A time to set, as the kernel sent it.
pub fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Omit,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp {
                sec: since.as_secs() as i64,
                nsec: since.subsec_nanos(),
            },
            // fuser 0.18 counts the nanoseconds of a time before 1970 backwards (its time.rs),
            // so the two parts are what the kernel sent.
            Err(before) => Timestamp {
                sec: -(before.duration().as_secs() as i64),
                nsec: before.duration().subsec_nanos(),
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_parts() {
        // What fuser makes of the kernel's (-2, 300).
        let from_kernel = UNIX_EPOCH - Duration::new(2, 300);
        let time = Timestamp { sec: -2, nsec: 300 };
        assert_eq!(
            set_time(Some(TimeOrNow::SpecificTime(from_kernel))),
            SetTime::To(time)
        );
        let shown = system_time(time);
        assert_eq!(
            UNIX_EPOCH.duration_since(shown).unwrap(),
            Duration::new(1, 999_999_700)
        );
    }
}
