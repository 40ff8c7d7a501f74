//! Files and directories, relative to directory descriptors.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::calls::{self, Call};
use super::{check, check_size};

/// A point in time as the kernel gives it: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999, always counted forward from `sec`.
    pub nsec: u32,
}

/// What `statx(2)` tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device number of the file system, as `st_dev`.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file, as `st_rdev`.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Space in use, in units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of reads and writes.
    pub blksize: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of contents or attributes.
    pub ctime: Timestamp,
}

impl Stat {
    /// The file type bits of the mode (`S_IFMT`).
    pub fn file_type(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == libc::S_IFREG
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == libc::S_IFDIR
    }
}

fn timestamp(t: libc::statx_timestamp) -> Timestamp {
    Timestamp {
        sec: t.tv_sec,
        nsec: t.tv_nsec,
    }
}

/// `openat(2)`, always with `O_CLOEXEC`.
pub fn openat(dir: impl AsFd, name: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let dir = dir.as_fd().as_raw_fd();
    loop {
        // SAFETY: `name` is NUL-terminated and outlives the call; a non-negative result is a
        // new descriptor that nobody else owns.
        let fd = unsafe { libc::openat(dir, name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        match check(fd) {
            // SAFETY: see above.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `statx(2)` of a name in a directory, or of the descriptor itself where `name` is empty.
/// `flags` are `AT_*`; symbolic links are not followed.
pub fn statx(dir: impl AsFd, name: &CStr, flags: i32) -> io::Result<Stat> {
    if flags & libc::AT_STATX_FORCE_SYNC != 0 {
        calls::count(Call::Getattr);
    }
    let mut out = MaybeUninit::<libc::statx>::uninit();
    // SAFETY: `name` is NUL-terminated, `out` is writable and of the right size.
    check(unsafe {
        libc::statx(
            dir.as_fd().as_raw_fd(),
            name.as_ptr(),
            flags | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
            libc::STATX_BASIC_STATS,
            out.as_mut_ptr(),
        )
    })?;
    // SAFETY: the call succeeded, so the kernel has filled the structure.
    let s = unsafe { out.assume_init() };
    Ok(Stat {
        dev: libc::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: u32::from(s.stx_mode),
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: libc::makedev(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blocks: s.stx_blocks,
        blksize: s.stx_blksize,
        atime: timestamp(s.stx_atime),
        mtime: timestamp(s.stx_mtime),
        ctime: timestamp(s.stx_ctime),
    })
}

/// `linkat(2)`. `flags` may be `AT_EMPTY_PATH` or `AT_SYMLINK_FOLLOW`.
pub fn linkat(
    old_dir: impl AsFd,
    old: &CStr,
    new_dir: impl AsFd,
    new: &CStr,
    flags: i32,
) -> io::Result<()> {
    calls::count(Call::Link);
    // SAFETY: both names are NUL-terminated and outlive the call.
    check(unsafe {
        libc::linkat(
            old_dir.as_fd().as_raw_fd(),
            old.as_ptr(),
            new_dir.as_fd().as_raw_fd(),
            new.as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Makes a client of a network file system ask its server which file a name refers to, even where
/// it believes to know: before a name may be made, its file must be looked up. So the directory is
/// to be linked as this name, which is always refused, whether the name exists or not (`EEXIST`,
/// `EPERM`). A name that the client believes not to exist is not asked for.
pub fn look_up_anew(dir: impl AsFd, name: &CStr) {
    let _ = linkat(&dir, c".", &dir, name, 0);
}

/// `unlinkat(2)`; `flags` is 0 or `AT_REMOVEDIR`.
pub fn unlinkat(dir: impl AsFd, name: &CStr, flags: i32) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(unsafe { libc::unlinkat(dir.as_fd().as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: impl AsFd, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(unsafe { libc::mkdirat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// `mknodat(2)`.
pub fn mknodat(dir: impl AsFd, name: &CStr, mode: u32, rdev: u64) -> io::Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(unsafe { libc::mknodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, rdev) }).map(drop)
}

/// `symlinkat(2)`: makes `name` a symbolic link to `target`.
pub fn symlinkat(target: &CStr, dir: impl AsFd, name: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and outlive the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_fd().as_raw_fd(), name.as_ptr()) })
        .map(drop)
}

/// `readlinkat(2)` of the symbolic link that `fd` (opened with `O_PATH`) refers to.
pub fn readlink(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; libc::PATH_MAX as usize];
    // SAFETY: the buffer is writable for the length that is given.
    let len = check_size(unsafe {
        libc::readlinkat(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    })?;
    buffer.truncate(len);
    Ok(buffer)
}

/// `renameat2(2)`, by its number: musl has had no function for it until lately.
pub fn renameat2(
    old_dir: impl AsFd,
    old: &CStr,
    new_dir: impl AsFd,
    new: &CStr,
    flags: u32,
) -> io::Result<()> {
    // SAFETY: both names are NUL-terminated and outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            old_dir.as_fd().as_raw_fd(),
            old.as_ptr(),
            new_dir.as_fd().as_raw_fd(),
            new.as_ptr(),
            flags,
        )
    };
    check(result as libc::c_int).map(drop)
}

/// `chmod(2)` of a path that ends in a link of `/proc/self/fd`.
pub fn chmod(path: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
}

/// `fchownat(2)` of the descriptor itself; `u32::MAX` leaves an id as it is.
pub fn chown(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: the name is a constant; the other arguments are numbers.
    check(unsafe {
        libc::fchownat(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            uid,
            gid,
            libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW,
        )
    })
    .map(drop)
}

/// `truncate(2)` of a path that ends in a link of `/proc/self/fd`.
pub fn truncate(path: &CStr, size: u64) -> io::Result<()> {
    let size = to_offset(size)?;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(unsafe { libc::truncate(path.as_ptr(), size) }).map(drop)
}

/// `ftruncate(2)`.
pub fn ftruncate(fd: impl AsFd, size: u64) -> io::Result<()> {
    let size = to_offset(size)?;
    // SAFETY: takes a descriptor and a number.
    check(unsafe { libc::ftruncate(fd.as_fd().as_raw_fd(), size) }).map(drop)
}

/// A time to set with [`set_times`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it (`UTIME_OMIT`).
    Omit,
    /// The present time of the file system's clock (`UTIME_NOW`).
    Now,
    /// This time.
    To(Timestamp),
}

/// `utimensat(2)` of the descriptor itself, which may be an `O_PATH` one (Linux 5.8).
pub fn set_times(fd: impl AsFd, atime: SetTime, mtime: SetTime) -> io::Result<()> {
    let spec = |time| match time {
        SetTime::Omit => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
        SetTime::Now => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_NOW,
        },
        SetTime::To(t) => libc::timespec {
            tv_sec: t.sec,
            tv_nsec: i64::from(t.nsec),
        },
    };
    let times = [spec(atime), spec(mtime)];
    // SAFETY: the name is a constant, `times` holds the two entries that the call reads.
    check(unsafe {
        libc::utimensat(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            times.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// `faccessat2(2)` of the descriptor itself, with the *effective* ids of this thread.
pub fn access(fd: impl AsFd, mask: i32) -> io::Result<()> {
    // The C library's faccessat() emulates flags in user space on old systems, and then asks
    // with the wrong ids; the raw call (Linux 5.8) does not.
    // SAFETY: the name is a constant, the other arguments are numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            mask,
            libc::AT_EMPTY_PATH | libc::AT_EACCESS,
        )
    };
    check(result as libc::c_int).map(drop)
}

fn to_offset(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

/// `pread(2)`.
pub fn pread(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = to_offset(offset)?;
    // SAFETY: the buffer is writable for its length.
    check_size(unsafe {
        libc::pread(
            fd.as_fd().as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            offset,
        )
    })
}

/// `pwrite(2)`.
pub fn pwrite(fd: impl AsFd, data: &[u8], offset: u64) -> io::Result<usize> {
    calls::count(Call::Write);
    let offset = to_offset(offset)?;
    // SAFETY: `data` is readable for its length.
    check_size(unsafe {
        libc::pwrite(
            fd.as_fd().as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            offset,
        )
    })
}

/// Sets or clears `O_APPEND` of an open file.
pub fn set_append(fd: impl AsFd, append: bool) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes descriptors and numbers.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        let flags = if append {
            flags | libc::O_APPEND
        } else {
            flags & !libc::O_APPEND
        };
        check(libc::fcntl(fd, libc::F_SETFL, flags)).map(drop)
    }
}

/// `write(2)`.
pub fn write(fd: impl AsFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: `data` is readable for its length.
    check_size(unsafe { libc::write(fd.as_fd().as_raw_fd(), data.as_ptr().cast(), data.len()) })
}

/// `fsync(2)`, or `fdatasync(2)` where `data_only` is set.
pub fn fsync(fd: impl AsFd, data_only: bool) -> io::Result<()> {
    calls::count(Call::Sync);
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: both take a descriptor only.
    check(unsafe {
        if data_only {
            libc::fdatasync(fd)
        } else {
            libc::fsync(fd)
        }
    })
    .map(drop)
}

/// Closes a duplicate of the descriptor, which makes the file system's `flush` operation run
/// (NFS writes back and reports errors there), and tells its result.
pub fn flush(fd: impl AsFd) -> io::Result<()> {
    let copy = fd.as_fd().try_clone_to_owned()?;
    let raw = std::os::fd::IntoRawFd::into_raw_fd(copy);
    // SAFETY: `raw` was just made, is owned by nobody else, and is not used after this. Linux
    // releases the descriptor even where close() fails.
    check(unsafe { libc::close(raw) }).map(drop)
}

/// Asks the kernel to keep nothing of an open file in memory (`POSIX_FADV_DONTNEED` of
/// `posix_fadvise(2)`). What is not on the disk yet stays.
pub fn drop_cached(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: takes a descriptor and numbers.
    match unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        // It gives the error instead of setting errno.
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// `fallocate(2)`; `mode` are `FALLOC_FL_*`.
pub fn fallocate(fd: impl AsFd, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (to_offset(offset)?, to_offset(len)?);
    // SAFETY: takes a descriptor and numbers.
    check(unsafe { libc::fallocate(fd.as_fd().as_raw_fd(), mode, offset, len) }).map(drop)
}

/// `lseek(2)`.
pub fn lseek(fd: impl AsFd, offset: i64, whence: i32) -> io::Result<i64> {
    // SAFETY: takes a descriptor and numbers.
    let position = unsafe { libc::lseek(fd.as_fd().as_raw_fd(), offset, whence) };
    if position == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(position)
    }
}

/// `copy_file_range(2)` with explicit offsets.
pub fn copy_file_range(
    from: impl AsFd,
    from_offset: u64,
    to: impl AsFd,
    to_offset_: u64,
    len: usize,
) -> io::Result<usize> {
    let mut from_offset = to_offset(from_offset)?;
    let mut to_offset = to_offset(to_offset_)?;
    // SAFETY: the two offsets are valid for reading and writing during the call.
    check_size(unsafe {
        libc::copy_file_range(
            from.as_fd().as_raw_fd(),
            &mut from_offset,
            to.as_fd().as_raw_fd(),
            &mut to_offset,
            len,
            0,
        )
    })
}

/// `getdents64(2)`: fills the buffer with raw directory entries and gives the number of bytes;
/// 0 at the end of the directory.
pub fn getdents(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    let len = unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_fd().as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    check_size(len as libc::ssize_t)
}

/// `fstatfs(2)`, which tells the type of a file system (`f_type`) besides its room.
pub fn fstatfs(fd: impl AsFd) -> io::Result<libc::statfs> {
    let mut out = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `out` is writable and of the right size.
    check(unsafe { libc::fstatfs(fd.as_fd().as_raw_fd(), out.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the kernel has filled the structure.
    Ok(unsafe { out.assume_init() })
}

/// `getxattr(2)` on a path that ends in a link of `/proc/self/fd`. With an empty buffer it
/// gives the size of the value.
pub fn getxattr(path: &CStr, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the strings are NUL-terminated, the buffer is writable for its length.
    check_size(unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    })
}

/// `listxattr(2)`; as [`getxattr`].
pub fn listxattr(path: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the path is NUL-terminated, the buffer is writable for its length.
    check_size(unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// `setxattr(2)` on a path that ends in a link of `/proc/self/fd`.
pub fn setxattr(path: &CStr, name: &CStr, value: &[u8], flags: i32) -> io::Result<()> {
    // SAFETY: the strings are NUL-terminated, `value` is readable for its length.
    check(unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    })
    .map(drop)
}

/// `removexattr(2)` on a path that ends in a link of `/proc/self/fd`.
pub fn removexattr(path: &CStr, name: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated.
    check(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// Whether the file system is mounted read-only (`fstatvfs(3)`).
pub fn is_read_only(fd: impl AsFd) -> io::Result<bool> {
    Ok(mount_flags(fd)? & libc::ST_RDONLY != 0)
}

/// Whether no program in the file system can be executed (`fstatvfs(3)`).
pub fn is_no_exec(fd: impl AsFd) -> io::Result<bool> {
    Ok(mount_flags(fd)? & libc::ST_NOEXEC != 0)
}

fn mount_flags(fd: impl AsFd) -> io::Result<libc::c_ulong> {
    let mut out = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `out` is writable and of the right size.
    check(unsafe { libc::fstatvfs(fd.as_fd().as_raw_fd(), out.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the structure is filled.
    Ok(unsafe { out.assume_init() }.f_flag)
}
