"""Data: reading, writing, appending, holes, space and mappings."""

import ctypes
import fcntl
import hashlib
import mmap
import os
import resource
import signal

from transcript import LIBC, append_file, as_other_user, case, read_file, system_call, write_file

KEEP_SIZE = 1
PUNCH_HOLE = 2
ZERO_RANGE = 16


def fallocate(descriptor, mode, offset, length):
    """fallocate with flags."""
    return system_call(
        LIBC.fallocate, descriptor, ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length)
    )


def pattern(length, seed=0):
    """Bytes that tell where they come from."""
    block = bytes((index * 7 + index // 256 + seed) % 256 for index in range(65536))
    return (block * (length // 65536 + 1))[:length]


@case
def reads_and_writes_at_offsets(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
    c.do("write", os.write, descriptor, b"0123456789")
    c.do("position", os.lseek, descriptor, 0, os.SEEK_CUR)
    c.do("pwrite inside", os.pwrite, descriptor, b"AB", 3)
    c.do("pwrite beyond the end", os.pwrite, descriptor, b"end", 5000)
    c.do("position stays", os.lseek, descriptor, 0, os.SEEK_CUR)
    c.do("read on", os.read, descriptor, 4)
    c.do("pread", os.pread, descriptor, 12, 0)
    c.do("pread across the end", os.pread, descriptor, 100, 4999)
    c.do("pread beyond the end", os.pread, descriptor, 100, 6000)
    c.do("read of nothing", os.read, descriptor, 0)
    c.do("write of nothing", os.write, descriptor, b"")
    c.do("pwrite of nothing beyond the end", os.pwrite, descriptor, b"", 9000)
    c.do("pread before the start", os.pread, descriptor, 1, -1)
    c.do("pwrite before the start", os.pwrite, descriptor, b"x", -1)
    c.do("pwrite far too far", os.pwrite, descriptor, b"x", (1 << 63) - 10)
    c.attr("file")
    c.content("file")


@case
def vectored_reads_and_writes(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
    c.do("writev", os.writev, descriptor, [b"one,", b"", b"two,", b"three" * 2000])
    c.do("pwritev", os.pwritev, descriptor, [b"1", b"22"], 1)
    buffers = [bytearray(3), bytearray(5), bytearray(20000)]
    c.do("preadv", os.preadv, descriptor, buffers, 0)
    c.say(f"{bytes(buffers[0])} {bytes(buffers[1])}")
    c.content("file")


@case
def large_writes_and_reads(c):
    for size in (1, 4095, 4096, 4097, 131072, 131073, 1 << 20, (3 << 20) + 17):
        data = pattern(size, size)
        descriptor = os.open("file", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        c.do(f"write {size}", os.write, descriptor, data)
        c.do(f"read {size}", os.pread, descriptor, size + 10, 0)
        c.say(f"as written: {read_file('file') == data}")
        c.do("unaligned overwrite", os.pwrite, descriptor, b"!" * (size // 2), size // 3)
        c.content("file")
        os.close(descriptor)


@case
def descriptors_opened_one_way_only(c):
    write_file("file", b"0123456789")
    reader = os.open("file", os.O_RDONLY)
    writer = os.open("file", os.O_WRONLY)
    c.do("write to a reader", os.write, reader, b"x")
    c.do("read from a writer", os.read, writer, 1)
    c.do("ftruncate of a reader", os.ftruncate, reader, 1)
    c.do("fallocate of a reader", fallocate, reader, 0, 0, 100)
    c.do("fsync of a reader", os.fsync, reader)
    c.do("seek of a writer", os.lseek, writer, 4, os.SEEK_SET)
    c.do("write there", os.write, writer, b"x")
    c.content("file")


@case
def appends_land_at_the_end(c):
    write_file("file", b"start\n")
    one = os.open("file", os.O_WRONLY | os.O_APPEND)
    two = os.open("file", os.O_RDWR | os.O_APPEND)
    c.do("append", os.write, one, b"one\n")
    c.do("position", os.lseek, one, 0, os.SEEK_CUR)
    c.do("append by another", os.write, two, b"two\n")
    c.do("position of the other", os.lseek, two, 0, os.SEEK_CUR)
    c.do("append again", os.write, one, b"three\n")
    c.do("seek to the start", os.lseek, one, 0, os.SEEK_SET)
    c.do("append after it", os.write, one, b"four\n")
    c.do("position", os.lseek, one, 0, os.SEEK_CUR)
    c.do("read of the other from its position", os.read, two, 100)
    c.do("read from the start", os.pread, two, 100, 0)
    c.do("append of nothing", os.write, one, b"")
    c.do("writev", os.writev, one, [b"fi", b"ve", b"\n"])
    c.do("pwrite appends too", os.pwrite, one, b"six\n", 0)
    c.do("position stays", os.lseek, one, 0, os.SEEK_CUR)
    c.content("file")


@case
def appends_after_the_file_changed_its_size(c):
    write_file("file", b"0123456789")
    append = os.open("file", os.O_WRONLY | os.O_APPEND)
    os.write(append, b"a")
    os.truncate("file", 3)
    c.do("after truncate down", os.write, append, b"b")
    c.content("file")
    os.truncate("file", 10)
    c.do("after truncate up", os.write, append, b"c")
    c.content("file")
    c.do("ftruncate of the append descriptor", os.ftruncate, append, 2)
    c.do("after it", os.write, append, b"d")
    c.content("file")
    writer = os.open("file", os.O_WRONLY)
    os.pwrite(writer, b"far", 20)
    c.do("after a write beyond the end", os.write, append, b"e")
    c.content("file")
    os.close(os.open("file", os.O_WRONLY | os.O_TRUNC))
    c.do("after O_TRUNC", os.write, append, b"f")
    c.content("file")


@case
def append_is_turned_on_and_off(c):
    write_file("file", b"0123456789")
    descriptor = os.open("file", os.O_RDWR)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    c.do("turn it on", fcntl.fcntl, descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
    c.do("write", os.write, descriptor, b"end")
    c.do("position", os.lseek, descriptor, 0, os.SEEK_CUR)
    c.do("turn it off", fcntl.fcntl, descriptor, fcntl.F_SETFL, flags)
    c.do("pwrite", os.pwrite, descriptor, b"XX", 1)
    c.content("file")
    other = os.open("file", os.O_WRONLY | os.O_APPEND)
    c.do("turn off what was opened so", fcntl.fcntl, other, fcntl.F_SETFL, 0)
    c.do("write at the start", os.write, other, b"Y")
    c.content("file")
    c.say(f"flag of O_APPEND shows: {bool(fcntl.fcntl(os.open('file', os.O_APPEND), fcntl.F_GETFL) & os.O_APPEND)}")


@case
def large_appends_stay_in_one_piece(c):
    write_file("file", b"head")
    descriptor = os.open("file", os.O_WRONLY | os.O_APPEND)
    for size in (1, 4096, 65536, 131072 + 1, 1 << 20, 3 << 20):
        c.do(f"append {size}", os.write, descriptor, pattern(size, size))
    c.attr("file")
    c.content("file")


@case
def appends_of_several_processes(c):
    write_file("file")

    def child(letter):
        descriptor = os.open("file", os.O_WRONLY | os.O_APPEND)
        for number in range(50):
            os.write(descriptor, f"{letter}{number:03d}\n".encode())

    children = []
    for letter in "abcd":
        pid = os.fork()
        if pid == 0:
            try:
                child(letter)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    lines = read_file("file").decode().splitlines()
    c.say(f"lines: {len(lines)}, different: {len(set(lines))}")
    for letter in "abcd":
        own = [line for line in lines if line.startswith(letter)]
        c.say(f"{letter}: {len(own)}, in order: {own == sorted(own)}")
    os.unlink("file")  # the order of the processes is a matter of chance


@case
def seeking(c):
    write_file("file", b"0123456789")
    descriptor = os.open("file", os.O_RDWR)
    for label, offset, whence in (
        ("end", 0, os.SEEK_END),
        ("before the end", -3, os.SEEK_END),
        ("beyond the end", 100, os.SEEK_END),
        ("back", -10, os.SEEK_CUR),
        ("before the start", -1, os.SEEK_SET),
        ("before the start from the end", -11, os.SEEK_END),
        ("far", 1 << 40, os.SEEK_SET),
        ("data", 0, os.SEEK_DATA),
        ("data inside", 5, os.SEEK_DATA),
        ("data at the end", 10, os.SEEK_DATA),
        ("hole", 0, os.SEEK_HOLE),
        ("hole inside", 9, os.SEEK_HOLE),
        ("hole at the end", 10, os.SEEK_HOLE),
        ("negative data", -1, os.SEEK_DATA),
        ("nonsense", 0, 77),
    ):
        c.do(label, os.lseek, descriptor, offset, whence)
    append_file("file", b"abc")
    c.do("end after an append by another", os.lseek, descriptor, 0, os.SEEK_END)
    os.mkfifo("fifo")
    c.do("seek of a fifo", os.lseek, os.open("fifo", os.O_RDWR), 0, os.SEEK_SET)


@case
def sparse_files(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, b"a" * 65536, 1 << 20)
    os.pwrite(descriptor, b"b" * 65536, 8 << 20)
    os.ftruncate(descriptor, 16 << 20)
    os.fsync(descriptor)
    c.attr("file")
    for start in (0, 1 << 20, (1 << 20) + 65536, 4 << 20, 8 << 20, (8 << 20) + 65536, 16 << 20):
        c.do(f"data from {start}", os.lseek, descriptor, start, os.SEEK_DATA)
        c.do(f"hole from {start}", os.lseek, descriptor, start, os.SEEK_HOLE)
    c.say(f"takes less room than its size: {os.stat('file').st_blocks * 512 < 1 << 20}")
    c.do("read of a hole", os.pread, descriptor, 5000, 5000)
    c.say(hashlib.sha256(read_file("file")).hexdigest())


@case
def allocating_and_punching(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
    c.do("plain", fallocate, descriptor, 0, 0, 100_000)
    c.fattr("plain", descriptor)
    c.say(f"takes room: {os.fstat(descriptor).st_blocks * 512 >= 100_000}")
    c.do("keep size", fallocate, descriptor, KEEP_SIZE, 100_000, 400_000)
    c.fattr("keep size", descriptor)
    c.say(f"takes room: {os.fstat(descriptor).st_blocks * 512 >= 500_000}")
    os.pwrite(descriptor, pattern(200_000), 0)
    os.fsync(descriptor)
    c.do("punch", fallocate, descriptor, PUNCH_HOLE | KEEP_SIZE, 8192, 40_960)
    c.fattr("punch", descriptor)
    c.content("file")
    c.do("hole there", os.lseek, descriptor, 0, os.SEEK_HOLE)
    c.do("data after it", os.lseek, descriptor, 8192, os.SEEK_DATA)
    c.do("punch without keeping the size", fallocate, descriptor, PUNCH_HOLE, 0, 4096)
    c.do("punch unaligned", fallocate, descriptor, PUNCH_HOLE | KEEP_SIZE, 60_001, 10_000)
    c.do("punch beyond the end", fallocate, descriptor, PUNCH_HOLE | KEEP_SIZE, 1 << 30, 4096)
    c.do("zero a range", fallocate, descriptor, ZERO_RANGE, 150_000, 10_000)
    c.content("file")
    c.do("zero beyond the end", fallocate, descriptor, ZERO_RANGE, 190_000, 20_000)
    c.fattr("zero", descriptor)
    c.do("zero and keep the size", fallocate, descriptor, ZERO_RANGE | KEEP_SIZE, 200_000, 90_000)
    c.fattr("zero and keep", descriptor)
    c.content("file")
    c.do("no length", fallocate, descriptor, 0, 0, 0)
    c.do("negative offset", fallocate, descriptor, 0, -1, 10)
    c.do("far too large", fallocate, descriptor, 0, 1 << 62, 1 << 62)
    c.do("nonsense", fallocate, descriptor, 0x400, 0, 10)
    c.do("posix_fallocate", os.posix_fallocate, descriptor, 0, 300_000)
    c.fattr("posix_fallocate", descriptor)
    directory = os.open(".", os.O_RDONLY)
    c.do("of a directory", fallocate, directory, 0, 0, 10)


@case
def copying_within_the_kernel(c):
    data = pattern(300_000)
    write_file("from", data)
    source = os.open("from", os.O_RDONLY)
    target = os.open("to", os.O_RDWR | os.O_CREAT)
    c.do("whole", os.copy_file_range, source, target, 300_000)
    c.do("position", os.lseek, target, 0, os.SEEK_CUR)
    c.content("to")
    c.do("parts", os.copy_file_range, source, target, 5000, 100, 299_000)
    c.content("to")
    c.do("from the end", os.copy_file_range, source, target, 100, 300_000, 0)
    c.do("within one file", os.copy_file_range, target, target, 1000, 0, 200_000)
    c.do("overlapping", os.copy_file_range, target, target, 1000, 0, 500)
    c.content("to")
    c.do("to a reader", os.copy_file_range, source, source, 10, 0, 1000)
    c.do("from a writer", os.copy_file_range, os.open("to", os.O_WRONLY), target, 10, 0, 1000)
    append = os.open("to", os.O_WRONLY | os.O_APPEND)
    c.do("to an append descriptor", os.copy_file_range, source, append, 10, 0, 0)
    outside = os.memfd_create("outside")
    os.write(outside, b"from another file system")
    c.do("sendfile in", os.sendfile, target, outside, 0, 100)
    c.do("sendfile out", os.sendfile, os.memfd_create("sink"), source, 0, 100_000)
    c.content("to")


@case
def splicing_through_a_pipe(c):
    write_file("from", pattern(50_000))
    reading, writing = os.pipe()
    source = os.open("from", os.O_RDONLY)
    target = os.open("to", os.O_WRONLY | os.O_CREAT)
    c.do("into the pipe", os.splice, source, writing, 4000, 1000)
    c.do("out of the pipe", os.splice, reading, target, 4000, None, 10)
    c.content("to")
    os.write(writing, b"appended")
    append = os.open("to", os.O_WRONLY | os.O_APPEND)
    c.do("into an append descriptor", os.splice, reading, append, 8)


@case
def syncing_and_advice(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"x" * 10000)
    c.do("fsync", os.fsync, descriptor)
    c.do("fdatasync", os.fdatasync, descriptor)
    directory = os.open(".", os.O_RDONLY)
    c.do("fsync of a directory", os.fsync, directory)
    c.do("fdatasync of a directory", os.fdatasync, directory)
    for name in ("NORMAL", "SEQUENTIAL", "RANDOM", "WILLNEED", "DONTNEED", "NOREUSE"):
        c.do(name, os.posix_fadvise, descriptor, 0, 0, getattr(os, f"POSIX_FADV_{name}"))
    c.do("sync_file_range", system_call, LIBC.sync_file_range, descriptor, ctypes.c_long(0), ctypes.c_long(0), 7)
    c.do("syncfs", system_call, LIBC.syncfs, descriptor)
    for flag in (os.O_SYNC, os.O_DSYNC):
        synced = os.open("file", os.O_WRONLY | flag)
        c.do("synchronous write", os.write, synced, b"y")
    path = os.open("file", os.O_PATH)
    c.do("fsync of O_PATH", os.fsync, path)
    c.content("file")


def mapped(descriptor, flags):
    """The content of a file, read through a mapping."""
    with mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ) as area:
        return area[:]


@case
def mapping_for_reading(c):
    write_file("file", pattern(20_000))
    descriptor = os.open("file", os.O_RDONLY)
    c.do("private", mapped, descriptor, mmap.MAP_PRIVATE)
    c.do("shared", mapped, descriptor, mmap.MAP_SHARED)

    def write_in_private():
        with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as area:
            area[0:5] = b"own!!"
            return area[0:10]

    c.do("private and writable", write_in_private)
    c.content("file")
    append_file("file", b"appended")
    c.do("after an append", lambda: mapped(descriptor, mmap.MAP_SHARED)[-8:])

    def read_after_unlink():
        with mmap.mmap(descriptor, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ) as area:
            os.close(descriptor)
            os.unlink("file")
            return area[:]

    c.do("after close and unlink", read_after_unlink)


@case
def mapping_refused(c):
    write_file("file", b"x" * 5000)
    reader = os.open("file", os.O_RDONLY)
    writer = os.open("file", os.O_WRONLY)
    c.do("shared and writable on a reader", mmap.mmap, reader, 5000, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)
    c.do("read on a writer", mmap.mmap, writer, 5000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    directory = os.open(".", os.O_RDONLY)
    c.do("of a directory", mmap.mmap, directory, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


@case
def limit_on_the_size_of_files(c):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limited(function, *args):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            return function(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    for flags in (os.O_RDWR, os.O_RDWR | os.O_APPEND):
        descriptor = os.open("file", flags | os.O_CREAT | os.O_TRUNC)
        c.do("write up to it", limited, os.write, descriptor, b"x" * 9_000)
        c.do("write across it", limited, os.write, descriptor, b"x" * 9_000)
        c.do("write beyond it", limited, os.write, descriptor, b"x")
        c.do("ftruncate beyond it", limited, os.ftruncate, descriptor, 20_000)
        c.do("truncate beyond it", limited, os.truncate, "file", 20_000)
        c.attr("file")


@case
def unlinked_files_stay_usable(c):
    for flags in (os.O_RDWR, os.O_RDWR | os.O_APPEND):
        write_file("file", b"0123456789")
        descriptor = os.open("file", flags)
        other = os.open("file", os.O_RDONLY)
        c.do("unlink", os.unlink, "file")
        c.fattr("unlinked", descriptor)
        c.do("write", os.write, descriptor, b"new ")
        c.do("pread", os.pread, descriptor, 100, 0)
        c.do("read by the other", os.read, other, 100)
        c.do("ftruncate", os.ftruncate, descriptor, 6)
        c.do("fchmod", os.fchmod, descriptor, 0o640)
        c.do("fchown", os.fchown, descriptor, os.getuid(), os.getgid())
        c.do("futimens", os.utime, descriptor, ns=(5, 6))
        c.say(f"mtime {os.fstat(descriptor).st_mtime_ns}")
        c.fattr("changed", other)
        c.do("setxattr", os.setxattr, descriptor, "user.a", b"b")
        c.do("getxattr", os.getxattr, other, "user.a")
        c.do("fsync", os.fsync, descriptor)
        c.do("fallocate", fallocate, descriptor, 0, 0, 50)
        c.do("seek", os.lseek, descriptor, 0, os.SEEK_END)
        write_file("file", b"another")
        c.do("a new file of the name does not disturb", os.pread, descriptor, 100, 0)
        c.content("file")
        c.do("open again by /proc", lambda: read_file(f"/proc/self/fd/{other}"))
        os.close(descriptor)
        os.close(other)
        os.unlink("file")
        c.listing()


@case
def data_seen_by_other_processes_at_once(c):
    write_file("file", b"one")
    reader = os.open("file", os.O_RDONLY)
    for number in range(3):
        as_other_user(lambda: append_file("file", b" more") and 0)
        c.do("read on", os.read, reader, 100)
        as_other_user(lambda: os.truncate("file", 2))
        c.fattr("truncated", reader)
        c.do("whole", os.pread, reader, 100, 0)
        os.lseek(reader, 0, os.SEEK_END)
