"""Directories: listings, positions in them, dot and dotdot."""

import ctypes
import os

from transcript import LIBC, append_file, case, write_file

ENTRIES = 3000
KINDS = {1: "fifo", 2: "char", 4: "directory", 6: "block", 8: "file", 10: "symlink", 12: "socket", 0: "unknown"}


class Entry(ctypes.Structure):
    """struct dirent"""

    _fields_ = [
        ("inode", ctypes.c_ulong),
        ("offset", ctypes.c_long),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    ]


LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir.restype = ctypes.POINTER(Entry)
LIBC.telldir.restype = ctypes.c_long


class Directory:
    """A directory read with libc's own calls, which know positions."""

    def __init__(self, path):
        self.stream = ctypes.c_void_p(LIBC.opendir(os.fsencode(path)))
        if not self.stream:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def read(self):
        """The next entry as (name, kind, inode), or None."""
        entry = LIBC.readdir(self.stream)
        if not entry:
            return None
        return entry.contents.name, KINDS[entry.contents.kind], entry.contents.inode

    def tell(self):
        """The position."""
        return LIBC.telldir(self.stream)

    def seek(self, position):
        """Goes back to a position that `tell` gave."""
        LIBC.seekdir(self.stream, ctypes.c_long(position))

    def rewind(self):
        """Starts again."""
        LIBC.rewinddir(self.stream)

    def rest(self):
        """All entries that follow."""
        return list(iter(self.read, None))


@case
def listing_of_every_kind(c):
    write_file("file")
    os.mkdir("directory")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    os.mkfifo("fifo")
    os.mknod("socket", 0o140644)
    for name, kind, inode in sorted(Directory(".").rest()):
        expected = os.lstat(name).st_ino == inode
        c.say(f"{name} {kind}, inode number as stat says: {expected}")
    c.do("opendir of a file", Directory, "file")
    c.do("opendir of nothing", Directory, "missing")


@case
def empty_directory(c):
    os.mkdir("directory")
    c.say(f"{sorted(name for name, _, _ in Directory('directory').rest())}")
    c.listing("directory")


@case
def dot_and_dotdot(c):
    os.makedirs("a/b/c")
    here = os.stat(".").st_ino
    c.say(f"a/.. is here: {os.stat('a/..').st_ino == here}")
    c.say(f"a/b/c/../../.. is here: {os.stat('a/b/c/../../..').st_ino == here}")
    c.say(f"a/./b/.: {os.stat('a/./b/.').st_ino == os.stat('a/b').st_ino}")
    for directory in ("a", "a/b", "a/b/c"):
        found = {name: inode for name, _, inode in Directory(directory).rest()}
        c.say(f"{directory}: . is it: {found[b'.'] == os.stat(directory).st_ino}")
        c.say(f"{directory}: .. is its parent: {found[b'..'] == os.stat(directory + '/..').st_ino}")
    os.chdir("a/b/c")
    c.say(f"working directory ends in: {os.getcwd().endswith('/dot_and_dotdot/a/b/c')}")
    os.chdir("../..")
    c.listing()
    c.do("list a file by dotdot", os.listdir, "b/c/../../..")


@case
def listing_changes_at_once(c):
    names = []
    for number in range(20):
        write_file(f"file-{number}")
        names.append(sorted(os.listdir(".")))
    c.say(f"growing: {[len(found) for found in names]}")
    for number in range(0, 20, 2):
        os.unlink(f"file-{number}")
    os.rename("file-1", "renamed")
    c.listing()
    descriptor = os.open(".", os.O_RDONLY)
    c.do("list", lambda: len(os.listdir(descriptor)))
    write_file("late")
    c.do("list again by the same descriptor", lambda: "late" in os.listdir(descriptor))


@case
def rewinding_shows_what_is_new(c):
    write_file("one")
    directory = Directory(".")
    c.say(f"{sorted(name for name, _, _ in directory.rest())}")
    write_file("two")
    os.unlink("one")
    directory.rewind()
    c.say(f"{sorted(name for name, _, _ in directory.rest())}")
    c.say(f"at the end again: {directory.read()}")


@case
def large_listing(c):
    for number in range(ENTRIES):
        os.mknod(f"entry-{number:05d}")
    found = [name for name, _, _ in Directory(".").rest()]
    c.say(f"{len(found)} entries, {len(set(found))} different")
    c.say(f"complete: {sorted(found) == sorted([b'.', b'..'] + [b'entry-%05d' % n for n in range(ENTRIES)])}")
    with os.scandir(".") as entries:
        wrong = sum(entry.inode() != entry.stat().st_ino for entry in entries)
    c.say(f"entries with another inode number than stat says: {wrong}")


@case
def large_listing_while_entries_come_and_go(c):
    steady = {f"steady-{number:05d}" for number in range(ENTRIES)}
    for number, name in enumerate(sorted(steady)):
        os.mknod(name)
        if number % 2 == 0:
            os.mknod(f"goes-{number:05d}")
    seen = []
    with os.scandir(".") as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % 3 == 0 and os.path.lexists(f"goes-{number:05d}"):
                os.unlink(f"goes-{number:05d}")
            if number % 3 == 1 and number < ENTRIES:
                os.mknod(f"comes-{number:05d}")
            if number % 51 == 2 and number < ENTRIES:
                os.rename(f"comes-{number - 1:05d}", f"moved-{number:05d}")
    steady_seen = [name for name in seen if name in steady]
    c.say(f"steady entries: {len(steady_seen)}, different: {len(set(steady_seen))}")
    c.say(f"missing: {sorted(steady - set(steady_seen))[:5]}")
    left = sorted(os.listdir("."))
    c.say(f"afterwards: {len(left)} entries, {len(set(left))} different")


@case
def positions_in_a_listing(c):
    for number in range(ENTRIES):
        os.mknod(f"entry-{number:05d}")
    directory = Directory(".")
    order, positions = [], []
    while True:
        positions.append(directory.tell())
        entry = directory.read()
        if entry is None:
            break
        order.append(entry[0])
    c.say(f"entries: {len(order)}, different: {len(set(order))}")
    for index in (0, 1, 2, 100, 1234, ENTRIES // 2, ENTRIES, len(order) - 1):
        directory.seek(positions[index])
        rest = [name for name, _, _ in directory.rest()]
        c.say(f"from entry {index}: the same entries follow: {rest == order[index:]}")
    directory.seek(positions[-1])
    c.say(f"at the end: {directory.read()}")
    directory.seek(positions[2000])
    for name in order[1000:1010]:
        if name not in (b".", b".."):
            os.unlink(name)
    c.say(f"after entries before it went: {[n for n, _, _ in directory.rest()] == order[2000:]}")


@case
def removing_everything_while_listing(c):
    os.mkdir("directory")
    for number in range(1000):
        os.mknod(f"directory/{number}")
    rounds = 0
    with os.scandir("directory") as entries:
        for entry in entries:
            os.unlink(entry.path)
            rounds += 1
    c.say(f"removed: {rounds}")
    c.do("rmdir", os.rmdir, "directory")


@case
def listing_of_a_directory_with_appended_files(c):
    for name in ("log", "journal", "records"):
        write_file(name)
        append_file(name, b"one\n")
        append_file(name, b"two\n")
    c.listing()
    c.say(f"{sorted(name for name, _, _ in Directory('.').rest())}")
    os.unlink("log")
    c.listing()


@case
def deep_trees(c):
    depth = 60
    for _ in range(depth):
        os.mkdir("deep")
        os.chdir("deep")
    write_file("bottom", b"reached")
    os.chdir("/".join([".."] * depth))
    c.do("read by the long path", lambda: open("/".join(["deep"] * depth) + "/bottom", "rb").read())
    c.say(f"walked: {sum(1 for _ in os.walk('.'))}")
    os.rename("deep/deep/deep", "half")
    c.say(f"walked after a move: {sum(1 for _ in os.walk('half'))}, {sum(1 for _ in os.walk('deep'))}")
