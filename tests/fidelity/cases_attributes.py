"""Attributes: modes, owners, sizes and times, and what moves them."""

import ctypes
import os
import stat

from transcript import LIBC, append_file, attributes, case, read_file, system_call, write_file

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100


class TimeSpec(ctypes.Structure):
    """struct timespec"""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def utimensat(path, atime, mtime, flags=0):
    """utimensat with times as (seconds, nanoseconds), so that NOW, OMIT and nonsense can be given."""
    return system_call(
        LIBC.utimensat, AT_FDCWD, os.fsencode(path), (TimeSpec * 2)(TimeSpec(*atime), TimeSpec(*mtime)), flags
    )


def set_times(path):
    """Puts the times of a file into the past, so that a move is seen."""
    os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)


@case
def stat_of_every_kind(c):
    write_file("file", b"12345")
    os.mkdir("directory")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    for name in ("file", "directory", "link", "fifo"):
        c.attr(name)
        c.say(f"  followed: {attributes(os.stat(name))}")
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        c.fattr(f"  open: {name}", descriptor)
        c.say(f"  one inode: {os.fstat(descriptor).st_ino == os.stat(name).st_ino}")
        c.say(f"  on the device of its directory: {os.lstat(name).st_dev == os.stat('.').st_dev}")
        os.close(descriptor)
    c.say(f"different inodes: {len({os.lstat(n).st_ino for n in os.listdir('.')})}")
    c.say(f"block size: {os.stat('file').st_blksize}")


@case
def chmod_of_all_bits(c):
    write_file("file")
    os.mkdir("directory")
    for name in ("file", "directory"):
        for mode in [1 << bit for bit in range(12)] + [0o7777, 0o0000, 0o6755, 0o644]:
            c.do(f"chmod {name} {mode:04o}", os.chmod, name, mode)
            c.attr(name)
    os.chmod("directory", 0o755)


@case
def chmod_through_descriptors_and_links(c):
    write_file("file")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    descriptor = os.open("file", os.O_RDONLY)
    c.do("fchmod", os.fchmod, descriptor, 0o4711)
    c.attr("file")
    c.fattr("open", descriptor)
    c.do("chmod through a link", os.chmod, "link", 0o600)
    c.attr("file", "link")
    c.do("chmod of a dangling link", os.chmod, "dangling", 0o600)
    c.do("chmod of nothing", os.chmod, "missing", 0o600)
    path = os.open("file", os.O_PATH)
    c.do("fchmod of an O_PATH descriptor", os.fchmod, path, 0o640)
    c.do("chmod of it through /proc", os.chmod, f"/proc/self/fd/{path}", 0o640)
    c.attr("file")
    c.times("chmod", "file .", os.chmod, "file", 0o644)


@case
def chown_and_friends(c):
    write_file("file")
    os.mkdir("directory")
    os.symlink("file", "link")
    own_user, own_group = os.getuid(), os.getgid()
    owners = ((-1, -1), (own_user, -1), (-1, own_group), (-1, 2000), (-1, 3000), (1000, -1), (1001, 1001), (0, 0))
    for uid, gid in owners:
        for name in ("file", "directory"):
            c.do(f"chown {name} {uid}:{gid}", os.chown, name, uid, gid)
            c.attr(name)
    c.do("lchown a link", os.lchown, "link", 1000, 2000)
    c.attr("link", "file")
    c.do("chown through a link", os.chown, "link", 1001, 2000)
    c.attr("link", "file")
    descriptor = os.open("file", os.O_RDONLY)
    c.do("fchown", os.fchown, descriptor, 1000, 1000)
    c.fattr("open", descriptor)
    c.do("chown of nothing", os.chown, "missing", 0, 0)
    c.do("large ids", os.chown, "file", 4_000_000_000, 4_000_000_001)
    c.attr("file")


@case
def chown_clears_setuid(c):
    for mode in (0o4755, 0o2755, 0o6755, 0o2745, 0o6644, 0o1755):
        write_file("file")
        os.chmod("file", mode)
        c.do(f"chown of {mode:04o} to the same owner", os.chown, "file", os.getuid(), os.getgid())
        c.attr("file")
        os.chmod("file", mode)
        c.do(f"chgrp of {mode:04o}", os.chown, "file", -1, 2000)
        c.attr("file")
        os.chmod("file", mode)
        c.do(f"chown of {mode:04o} that changes nothing", os.chown, "file", -1, -1)
        c.attr("file")
        os.unlink("file")
    os.mkdir("directory")
    os.chmod("directory", 0o6755)
    c.do("chown of a directory", os.chown, "directory", os.getuid(), os.getgid())
    c.attr("directory")


@case
def writing_clears_setuid(c):
    actions = {
        "write": lambda: write_at("file", b"x", 0),
        "append": lambda: append_file("file", b"x"),
        "truncate down": lambda: os.truncate("file", 1),
        "truncate up": lambda: os.truncate("file", 100),
        "truncate to the same size": lambda: os.truncate("file", 5),
        "open with O_TRUNC": lambda: os.close(os.open("file", os.O_WRONLY | os.O_TRUNC)),
        "write of nothing": lambda: write_at("file", b"", 0),
        "fallocate": lambda: allocate("file"),
        "read": lambda: len(read_file("file")),
        "utime": lambda: os.utime("file"),
        "link": lambda: os.link("file", "second"),
    }
    for mode in (0o4777, 0o2777, 0o6777, 0o2767, 0o6666):
        for name, action in actions.items():
            write_file("file", b"12345")
            os.chmod("file", mode)
            c.do(f"{name} of {mode:04o}", action)
            c.attr("file")
            os.unlink("file")
        os.unlink("second")


def write_at(path, data, offset):
    """One pwrite to a file."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        return os.pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)


def allocate(path):
    """Space for 8 KiB."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, 8192)
    finally:
        os.close(descriptor)


@case
def setuid_survives_while_the_file_is_open(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT, 0o755)
    os.fchmod(descriptor, 0o6755)
    c.fattr("before", descriptor)
    os.write(descriptor, b"x")
    c.fattr("after a write", descriptor)
    os.fchmod(descriptor, 0o6755)
    c.fattr("set again", descriptor)
    os.write(descriptor, b"x")
    c.fattr("after a second write", descriptor)
    c.attr("file")


@case
def truncate_up_and_down(c):
    write_file("file", b"0123456789")
    descriptor = os.open("file", os.O_RDWR)
    for size in (5, 20, 0, 4096, 4097, 1, 1 << 20):
        c.do(f"truncate {size}", os.truncate, "file", size)
        c.attr("file")
        c.content("file")
        c.do(f"ftruncate {size + 3}", os.ftruncate, descriptor, size + 3)
        c.fattr("open", descriptor)
        c.content("file")
    c.do("negative", os.truncate, "file", -1)
    c.do("far too large", os.truncate, "file", 1 << 62)
    c.do("a directory", os.truncate, ".", 0)
    c.do("nothing", os.truncate, "missing", 0)
    readonly = os.open("file", os.O_RDONLY)
    c.do("ftruncate read-only", os.ftruncate, readonly, 0)
    os.symlink("file", "link")
    c.do("through a link", os.truncate, "link", 7)
    c.attr("file", "link")


@case
def truncate_leaves_zeroes_behind(c):
    write_file("file", b"x" * 10000)
    os.truncate("file", 5000)
    os.truncate("file", 10000)
    data = read_file("file")
    c.say(f"zeroes at the end: {data[5000:] == bytes(5000)}, data before: {data[:5000] == b'x' * 5000}")


@case
def explicit_times(c):
    write_file("file")
    os.mkdir("directory")
    os.symlink("file", "link")
    stamps = {
        "the epoch": (0, 0),
        "with nanoseconds": (1_234_567_890, 123_456_789),
        "one nanosecond": (1_000_000_000, 1),
        "last nanosecond": (1_000_000_000, 999_999_999),
        "one second before 1970": (-1, 0),
        "before 1970 with nanoseconds": (-2, 250_000_000),
        "1960": (-315_619_200, 999_999_999),
        "after 2038": (1 << 31, 500),
        "2100": (4_102_444_800, 123),
        "after 2106": ((1 << 32) + 5, 7),
        "far future": (1 << 36, 0),
        "1800": (-5_364_662_400, 0),
    }
    for label, stamp in stamps.items():
        other = (stamp[0] + 1, stamp[1])
        for name in ("file", "directory", "link"):
            c.do(f"{label} on {name}", utimensat, name, stamp, other, AT_SYMLINK_NOFOLLOW)
            status = os.lstat(name)
            c.say(f"  atime {status.st_atime_ns} mtime {status.st_mtime_ns}")


@case
def times_now_and_omitted(c):
    write_file("file")
    os.symlink("file", "link")
    now, omit, stamp = (0, UTIME_NOW), (0, UTIME_OMIT), (1_500_000_000, 5)
    for label, atime, mtime in (
        ("now, now", now, now),
        ("omit, omit", omit, omit),
        ("now, omit", now, omit),
        ("omit, now", omit, now),
        ("stamp, omit", stamp, omit),
        ("omit, stamp", omit, stamp),
        ("stamp, now", stamp, now),
    ):
        for name in ("file", "link"):
            set_times(name)
            c.times(f"{label} on {name}", name, utimensat, name, atime, mtime, AT_SYMLINK_NOFOLLOW)
    c.do("nonsense nanoseconds", utimensat, "file", (0, 10**9), stamp)
    c.do("negative nanoseconds", utimensat, "file", (0, -1), stamp)
    c.do("missing file", utimensat, "missing", now, now)
    c.do("missing file, omitted", utimensat, "missing", omit, omit)
    descriptor = os.open("file", os.O_RDONLY)
    c.do("by descriptor", os.utime, descriptor, ns=(7, 8))
    c.say(f"atime {os.stat('file').st_atime_ns} mtime {os.stat('file').st_mtime_ns}")
    set_times("link")
    c.do("through a link", os.utime, "link", ns=(9, 10))
    c.say(f"mtime of the file {os.stat('file').st_mtime_ns}, of the link {os.lstat('link').st_mtime_ns}")


@case
def times_moved_by_operations_on_a_file(c):
    write_file("file", b"0123456789")
    os.link("file", "other")
    for label, action in (
        ("write", lambda: write_at("file", b"x", 0)),
        ("write at the end", lambda: write_at("file", b"x", 10)),
        ("append", lambda: append_file("file", b"x")),
        ("truncate", lambda: os.truncate("file", 5)),
        ("truncate to the same size", lambda: os.truncate("file", 5)),
        ("chmod", lambda: os.chmod("file", 0o600)),
        ("chmod to the same mode", lambda: os.chmod("file", 0o600)),
        ("chown to the same owner", lambda: os.chown("file", os.getuid(), -1)),
        ("link", lambda: os.link("file", "third")),
        ("unlink of one link", lambda: os.unlink("third")),
        ("rename", lambda: os.rename("other", "renamed")),
        ("setxattr", lambda: os.setxattr("file", "user.a", b"b")),
        ("read", lambda: len(read_file("file"))),
        ("stat", lambda: os.stat("file").st_size),
        ("open and close", lambda: os.close(os.open("file", os.O_RDWR))),
        ("open with O_TRUNC", lambda: os.close(os.open("file", os.O_RDWR | os.O_TRUNC))),
        ("open with O_TRUNC of an empty file", lambda: os.close(os.open("file", os.O_RDWR | os.O_TRUNC))),
        ("write of nothing", lambda: write_at("file", b"", 0)),
    ):
        set_times("file")
        c.times(label, "file", action)


@case
def times_of_the_parent_directory(c):
    os.mkdir("d")
    os.mkdir("e")
    write_file("outside", b"x")
    for label, action in (
        ("create", lambda: write_file("d/a")),
        ("open with O_CREAT of an existing file", lambda: os.close(os.open("d/a", os.O_CREAT | os.O_WRONLY))),
        ("mkdir", lambda: os.mkdir("d/sub")),
        ("mkdir that fails", lambda: os.mkdir("d/sub")),
        ("symlink", lambda: os.symlink("a", "d/link")),
        ("link", lambda: os.link("outside", "d/hard")),
        ("mkfifo", lambda: os.mkfifo("d/fifo")),
        ("rename within", lambda: os.rename("d/a", "d/b")),
        ("rename out", lambda: os.rename("d/b", "e/b")),
        ("rename in, over another", lambda: os.rename("e/b", "d/hard")),
        ("move a directory", lambda: os.rename("d/sub", "e/sub")),
        ("unlink", lambda: os.unlink("d/hard")),
        ("rmdir", lambda: os.rmdir("e/sub")),
        ("chmod of an entry", lambda: os.chmod("d/fifo", 0o600)),
        ("stat of an entry", lambda: os.stat("d/fifo").st_size),
        ("list", lambda: sorted(os.listdir("d"))),
    ):
        set_times("d")
        set_times("e")
        c.times(label, "d e", action)


@case
def times_of_a_new_file_are_now(c):
    before = os.stat(".")
    write_file("file", b"x")
    os.mkdir("directory")
    os.symlink("file", "link")
    for name in ("file", "directory", "link"):
        status = os.lstat(name)
        c.say(f"{name}: not before its directory was made: {status.st_mtime_ns >= before.st_mtime_ns}")
        c.say(f"  times agree within a second: {abs(status.st_mtime_ns - status.st_ctime_ns) < 10**9}")


@case
def link_counts_of_directories(c):
    os.mkdir("d")
    c.attr("d")
    os.mkdir("d/one")
    os.mkdir("d/two")
    write_file("d/file")
    c.attr("d")
    os.rename("d/one", "elsewhere")
    c.attr("d", ".")
    os.rename("elsewhere", "d/two")
    c.attr("d", ".")
    os.rmdir("d/two")
    c.attr("d")


@case
def sizes_seen_by_other_descriptors(c):
    writer = os.open("file", os.O_WRONLY | os.O_CREAT)
    reader = os.open("file", os.O_RDONLY)
    for size in (1, 4095, 1, 70000):
        os.write(writer, b"z" * size)
        c.fattr("reader", reader)
        c.attr("file")
        c.do("read on", lambda: os.read(reader, 100_000))
    os.ftruncate(writer, 10)
    c.fattr("reader", reader)
    c.do("read at the end", os.read, reader, 10)


@case
def file_system_figures(c):
    write_file("file")
    descriptor = os.open("file", os.O_RDONLY)
    ways = {"path": os.statvfs("file"), "descriptor": os.fstatvfs(descriptor), "directory": os.statvfs(".")}
    for label, figures in ways.items():
        c.say(f"{label}: f_bsize {figures.f_bsize} f_frsize {figures.f_frsize} f_blocks {figures.f_blocks}")
        c.say(f"  f_files {figures.f_files} f_namemax {figures.f_namemax}")
        c.say(f"  some free: {figures.f_bfree > 0}, {figures.f_bavail > 0}, {figures.f_ffree > 0}")
    c.do("missing", os.statvfs, "missing")
    c.do("longest name", os.pathconf, ".", "PC_NAME_MAX")
    c.do("longest path", os.pathconf, ".", "PC_PATH_MAX")


@case
def access_of_every_combination(c):
    write_file("file")
    os.mkdir("directory")
    for mode in range(8):
        for shift in (6, 3, 0):
            for name in ("file", "directory"):
                os.chmod(name, mode << shift)
                answers = "".join(str(int(os.access(name, want))) for want in range(8))
                effective = "".join(str(int(os.access(name, want, effective_ids=True))) for want in range(8))
                c.say(f"{name} {mode << shift:04o}: {answers} {effective}")
    os.chmod("directory", 0o755)
    os.symlink("nowhere", "dangling")
    c.say(f"missing: {os.access('missing', os.F_OK)}, dangling: {os.access('dangling', os.F_OK)}")


@case
def open_respects_the_mode_of_ones_own_file(c):
    for mode in (0o000, 0o444, 0o222, 0o111, 0o666, 0o077, 0o700):
        write_file("file", b"x")
        os.chmod("file", mode)
        c.open(f"{mode:03o} read", "file", os.O_RDONLY)
        c.open(f"{mode:03o} write", "file", os.O_WRONLY)
        c.open(f"{mode:03o} both", "file", os.O_RDWR)
        c.open(f"{mode:03o} append", "file", os.O_WRONLY | os.O_APPEND)
        c.open(f"{mode:03o} create", "file", os.O_WRONLY | os.O_CREAT)
        c.open(f"{mode:03o} truncate", "file", os.O_RDONLY | os.O_TRUNC)
        c.do(f"{mode:03o} truncate by name", os.truncate, "file", 0)
        c.do(f"{mode:03o} utime now", os.utime, "file")
        c.do(f"{mode:03o} run", os.access, "file", os.X_OK)
        c.attr("file")
        os.unlink("file")


@case
def modes_of_the_types_stay(c):
    os.mkfifo("fifo")
    os.chmod("fifo", 0o6777)
    c.attr("fifo")
    c.say(f"still a fifo: {stat.S_ISFIFO(os.stat('fifo').st_mode)}")
    c.do("truncate", os.truncate, "fifo", 0)
    c.do("utime", os.utime, "fifo", ns=(1, 2))
    c.say(f"mtime {os.stat('fifo').st_mtime_ns}")
