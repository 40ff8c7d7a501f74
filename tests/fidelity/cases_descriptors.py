"""Descriptors: open flags, duplicates, O_PATH, locks, and what outlives the name."""

import fcntl
import os
import select
import struct

from transcript import as_other_user, case, read_file, write_file

OFD_SETLK = 37


@case
def exclusive_and_truncating_creation(c):
    c.open("exclusive", "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.open("exclusive again", "file", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.open("exclusive without create", "file", os.O_EXCL | os.O_WRONLY)
    write_file("file", b"content")
    c.open("create on existing", "file", os.O_CREAT | os.O_WRONLY, 0o600)
    c.attr("file")
    c.open("truncate", "file", os.O_TRUNC | os.O_WRONLY)
    c.attr("file")
    write_file("file", b"content")
    c.open("truncate a reader", "file", os.O_TRUNC | os.O_RDONLY)
    c.attr("file")
    write_file("file", b"content")
    c.open("truncate and append", "file", os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
    c.attr("file")
    c.open("truncate and create", "fresh", os.O_TRUNC | os.O_CREAT | os.O_RDWR, 0o640)
    c.attr("fresh")
    os.symlink("file", "link")
    c.open("exclusive on a link", "link", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.open("missing", "missing", os.O_RDONLY)
    c.open("missing parent", "missing/file", os.O_CREAT | os.O_WRONLY)
    c.open("create with a slash", "name/", os.O_CREAT | os.O_WRONLY)
    c.listing()


@case
def opening_directories_and_links(c):
    os.mkdir("directory")
    write_file("file")
    os.symlink("file", "link")
    os.symlink("directory", "to-directory")
    os.symlink("nowhere", "dangling")
    for name in ("directory", "file", "link", "to-directory", "dangling", "missing"):
        for label, flags in (
            ("read", os.O_RDONLY),
            ("write", os.O_WRONLY),
            ("both", os.O_RDWR),
            ("directory", os.O_DIRECTORY),
            ("directory, write", os.O_DIRECTORY | os.O_RDWR),
            ("no follow", os.O_NOFOLLOW),
            ("no follow, directory", os.O_NOFOLLOW | os.O_DIRECTORY),
            ("path", os.O_PATH),
            ("path, no follow", os.O_PATH | os.O_NOFOLLOW),
            ("truncate", os.O_TRUNC | os.O_RDONLY),
        ):
            c.open(f"{name}: {label}", name, flags)
    c.open("create on a directory", "directory", os.O_CREAT | os.O_RDONLY)
    c.open("create on a directory, write", "directory", os.O_CREAT | os.O_WRONLY)
    c.open("exclusive create on a directory", "directory", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.open("create no follow on a link", "link", os.O_CREAT | os.O_NOFOLLOW | os.O_WRONLY)
    c.open("create, directory", "new", os.O_CREAT | os.O_DIRECTORY)
    c.do("read of a directory", os.read, os.open("directory", os.O_RDONLY), 10)
    c.do("write to a directory", os.write, os.open("directory", os.O_RDONLY), b"x")


@case
def path_descriptors(c):
    write_file("file", b"content")
    os.symlink("file", "link")
    os.makedirs("directory/sub")
    file = os.open("file", os.O_PATH)
    c.fattr("file", file)
    c.do("read", os.read, file, 10)
    c.do("write", os.write, file, b"x")
    c.do("seek", os.lseek, file, 0, os.SEEK_SET)
    c.do("truncate", os.ftruncate, file, 0)
    c.do("reopen", lambda: read_file(f"/proc/self/fd/{file}"))
    link = os.open("link", os.O_PATH | os.O_NOFOLLOW)
    c.fattr("link", link)
    c.do("readlink of it", lambda: os.readlink("", dir_fd=link))
    directory = os.open("directory", os.O_PATH)
    c.do("stat below", os.stat, "sub", dir_fd=directory)
    c.do("mkdir below", os.mkdir, "made", dir_fd=directory)
    c.do("chdir", os.fchdir, directory)
    c.listing()


@case
def calls_relative_to_a_directory(c):
    os.makedirs("directory/sub")
    directory = os.open("directory", os.O_RDONLY)
    c.do("open", lambda: os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=directory)))
    c.do("stat", os.stat, "file", dir_fd=directory)
    os.rename("directory", "moved")
    c.do("open after it moved", lambda: os.close(os.open("second", os.O_CREAT | os.O_WRONLY, dir_fd=directory)))
    c.do("rename", os.rename, "file", "sub/file", src_dir_fd=directory, dst_dir_fd=directory)
    c.do("link", os.link, "sub/file", "linked", src_dir_fd=directory, dst_dir_fd=directory)
    c.do("symlink", os.symlink, "linked", "symbolic", dir_fd=directory)
    c.do("fifo", os.mkfifo, "fifo", dir_fd=directory)
    c.do("unlink", os.unlink, "second", dir_fd=directory)
    c.listing("moved")
    c.do("list by descriptor", lambda: sorted(os.listdir(directory)))
    c.do("..", lambda: os.path.samestat(os.stat("..", dir_fd=directory), os.stat(".")))


@case
def removed_directory_as_working_directory(c):
    os.mkdir("directory")
    descriptor = os.open("directory", os.O_RDONLY)
    os.chdir("directory")
    c.do("rmdir", os.rmdir, "../directory")
    c.do("getcwd", os.getcwd)
    c.do("stat .", lambda: os.stat(".").st_nlink)
    c.do("list", os.listdir, ".")
    c.do("list by descriptor", os.listdir, descriptor)
    c.do("create", write_file, "file")
    c.do("mkdir", os.mkdir, "sub")
    c.do("symlink", os.symlink, "x", "y")
    c.do("stat ..", os.stat, "..")
    c.do("chmod .", os.chmod, ".", 0o700)
    c.fattr("descriptor", descriptor)
    c.do("fsync", os.fsync, descriptor)


@case
def duplicated_descriptors(c):
    write_file("file", b"0123456789")
    one = os.open("file", os.O_RDWR)
    two = os.dup(one)
    c.do("read by the one", os.read, one, 3)
    c.do("read by the other", os.read, two, 3)
    c.do("write by the one", os.write, one, b"X")
    os.close(one)
    c.do("write by the other after close", os.write, two, b"Y")
    c.do("position", os.lseek, two, 0, os.SEEK_CUR)
    c.content("file")
    c.say(f"child: {as_other_user(lambda: os.write(two, b'child') and 0)}")
    c.do("position after the child's write", os.lseek, two, 0, os.SEEK_CUR)
    c.content("file")
    append = os.open("file", os.O_WRONLY | os.O_APPEND)
    again = os.dup(append)
    os.close(append)
    c.do("append by a duplicate", os.write, again, b"dup")
    c.say(f"child: {as_other_user(lambda: os.write(again, b'child') and 0)}")
    c.content("file")


@case
def flags_of_an_open_file(c):
    for label, flags in (
        ("read", os.O_RDONLY),
        ("write", os.O_WRONLY),
        ("both", os.O_RDWR),
        ("append", os.O_WRONLY | os.O_APPEND),
        ("non-blocking", os.O_RDONLY | os.O_NONBLOCK),
        ("synchronous", os.O_WRONLY | os.O_SYNC),
        ("no access time", os.O_RDONLY | os.O_NOATIME),
    ):
        descriptor = c.open(label, "file", flags | os.O_CREAT)
        c.do("flags", fcntl.fcntl, descriptor, fcntl.F_GETFL)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLOUT)
    c.say(f"poll: {[events for _, events in poll.poll(0)]}")


@case
def locks_between_descriptors(c):
    write_file("file", b"0123456789")
    one = os.open("file", os.O_RDWR)
    two = os.open("file", os.O_RDWR)
    c.do("flock", fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB)
    c.do("flock by another", fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    c.do("shared by another", fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    c.do("unlock", fcntl.flock, one, fcntl.LOCK_UN)
    c.do("flock by another", fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)
    c.do("both shared", fcntl.flock, one, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(two)
    c.do("exclusive after close", fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB)


@case
def locks_between_processes(c):
    write_file("file", b"0123456789")
    file = os.open("file", os.O_RDWR)

    def wants(start, length, kind=fcntl.LOCK_EX):
        def child():
            descriptor = os.open("file", os.O_RDWR)
            try:
                fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, length, start)
            except OSError as error:
                return error.errno
            return 0

        return as_other_user(child)

    c.do("lock 0-4", fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
    c.say(f"child wants 0-4: {wants(0, 5)}")
    c.say(f"child wants 4-5: {wants(4, 2)}")
    c.say(f"child wants 5-9: {wants(5, 5)}")
    c.do("make it shared", fcntl.lockf, file, fcntl.LOCK_SH | fcntl.LOCK_NB, 5, 0)
    c.say(f"child wants 0-4 shared: {wants(0, 5, fcntl.LOCK_SH)}")
    c.say(f"child wants 0-4: {wants(0, 5)}")
    c.do("unlock 0-1", fcntl.lockf, file, fcntl.LOCK_UN, 2, 0)
    c.say(f"child wants 0-1: {wants(0, 2)}")
    c.say(f"child wants 2: {wants(2, 1)}")
    os.close(os.open("file", os.O_RDONLY))
    c.say(f"child wants 2 after any close: {wants(2, 1)}")
    other = os.open("file", os.O_RDWR)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    c.do("lock of the open file", lambda: len(fcntl.fcntl(file, OFD_SETLK, lock)))
    c.do("lock of another open file", lambda: len(fcntl.fcntl(other, OFD_SETLK, lock)))


@case
def many_descriptors_of_one_file(c):
    write_file("file", b"x")
    descriptors = [os.open("file", os.O_RDWR | os.O_APPEND) for _ in range(200)]
    for number, descriptor in enumerate(descriptors):
        os.write(descriptor, b"%d," % number)
    for descriptor in descriptors:
        os.close(descriptor)
    c.content("file")


@case
def readers_writers_and_appenders_together(c):
    """A file may be open in every way at once, in any order."""
    ways = {
        "reader": os.O_RDONLY,
        "writer": os.O_RDWR,
        "appender": os.O_RDWR | os.O_APPEND,
    }
    for first in ways:
        for second in ways:
            write_file("file", b"0123456789")
            one = c.open(first, "file", ways[first])
            two = c.open(f"and {second}", "file", ways[second])
            for label, descriptor in ((first, one), (second, two)):
                c.do(f"read by the {label}", os.pread, descriptor, 4, 2)
                c.do(f"write by the {label}", os.write, descriptor, b"ab")
            c.content("file")
            os.close(one)
            c.do("read after the close of the first", os.pread, two, 100, 0)
            os.close(two)
