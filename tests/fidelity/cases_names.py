"""Names: looking them up, making, linking, renaming and removing them."""

import ctypes
import os
import socket
import stat

from transcript import LIBC, append_file, case, read_file, system_call, write_file

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400

ODD_NAMES = [
    b"new\nline",
    b"\xff\xfe not utf-8 \x80",
    b"n" * 255,
    b"-rf",
    b" spaces  around ",
    b"tab\tand\\backslash",
    b"*?[glob]{a,b}",
    "Grüße-\u4e16\u754c".encode(),
    b"...",
    b"#hash'quote\"",
    b"\x01\x7f",
]


def rename_with(flags, old, new):
    """renameat2, which Python does not offer."""
    return system_call(
        LIBC.renameat2, AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)
    )


@case
def lookup_of_missing_and_long_names(c):
    c.do("stat a missing name", os.stat, "missing")
    c.do("stat below a missing name", os.stat, "missing/below")
    c.do("stat 256 bytes", os.stat, "n" * 256)
    c.do("create 256 bytes", write_file, "n" * 256)
    c.do("mkdir 256 bytes", os.mkdir, "n" * 256)
    c.do("symlink 256 bytes", os.symlink, "target", "n" * 256)
    c.do("unlink 256 bytes", os.unlink, "n" * 256)
    write_file("file")
    c.do("rename to 256 bytes", os.rename, "file", "n" * 256)
    c.do("link to 256 bytes", os.link, "file", "n" * 256)
    c.do("stat 4096 bytes of path", os.stat, "./" * 2048)
    c.do("stat the empty name", os.stat, "")
    c.do("stat below a file", os.stat, "file/below")
    c.do("stat a file with a slash", os.stat, "file/")
    c.listing()


@case
def odd_names_of_files(c):
    for name in ODD_NAMES:
        c.do("create", write_file, name, b"content")
        c.attr(name)
    c.listing()
    for name in ODD_NAMES:
        c.do("read", read_file, name)
        c.do("unlink", os.unlink, name)
    c.listing()


@case
def odd_names_of_everything_else(c):
    for name in ODD_NAMES:
        c.do("mkdir", os.mkdir, name)
        c.do("create in it", write_file, os.path.join(name, name), b"inside")
        c.do("rename in it", os.rename, os.path.join(name, name), os.path.join(name, b"plain"))
        c.do("rename back", os.rename, os.path.join(name, b"plain"), os.path.join(name, name))
        c.do("symlink", os.symlink, name, os.path.join(name, b"link"))
        c.do("readlink", os.readlink, os.path.join(name, b"link"))
        c.do("read", read_file, os.path.join(name, name))
    c.listing()


@case
def appends_to_files_with_odd_names(c):
    for name in ODD_NAMES:
        write_file(name, b"one\n")
        c.do("append", append_file, name, b"two\n")
        c.do("read", read_file, name)
    c.listing()


@case
def names_in_different_case_are_different(c):
    write_file("name", b"lower")
    c.do("stat NAME", os.stat, "NAME")
    write_file("NAME", b"upper")
    c.content("name", "NAME")
    c.listing()


@case
def missing_names_appear_as_soon_as_they_are_made(c):
    c.do("stat before", os.stat, "file")
    write_file("file", b"there")
    c.attr("file")
    os.unlink("file")
    c.attr("file")
    os.mkdir("file")
    c.attr("file")
    os.rmdir("file")
    c.attr("file")


@case
def names_start_and_end_like_hidden_helpers(c):
    for name in (".hidden", "file.lock", "file~", ".file.swp", "file.turn.1", ".nfs", ".turn"):
        c.do(f"create {name}", write_file, name, b"mine")
        c.content(name)
    c.listing()


@case
def mkdir_modes_and_umask(c):
    for mask in (0o000, 0o022, 0o027, 0o077, 0o777):
        os.umask(mask)
        for mode in (0o777, 0o755, 0o700, 0o1777, 0o2775, 0o4755, 0o000):
            name = f"directory-{mask:o}-{mode:o}"
            c.do("mkdir", os.mkdir, name, mode)
            c.attr(name)


@case
def create_modes_and_umask(c):
    for mask in (0o000, 0o022, 0o027, 0o077, 0o777):
        os.umask(mask)
        for mode in (0o666, 0o777, 0o600, 0o444, 0o000, 0o4755, 0o2755, 0o1644):
            name = f"file-{mask:o}-{mode:o}"
            c.do("create", write_file, name, b"x", mode)
            c.attr(name)


@case
def mkdir_nested_existing_and_missing_parent(c):
    c.do("mkdir", os.mkdir, "a")
    c.do("mkdir again", os.mkdir, "a")
    c.do("mkdir with a slash", os.mkdir, "b/")
    c.do("mkdir without parent", os.mkdir, "missing/below")
    c.do("mkdir deep", os.makedirs, "a/b/c/d/e/f/g/h")
    write_file("file")
    c.do("mkdir over a file", os.mkdir, "file")
    c.do("mkdir below a file", os.mkdir, "file/below")
    c.do("mkdir of .", os.mkdir, ".")
    c.do("mkdir of a/..", os.mkdir, "a/..")
    os.symlink("nowhere", "dangling")
    c.do("mkdir over a dangling link", os.mkdir, "dangling")
    c.attr("a", "a/b", "a/b/c")
    c.listing()


@case
def mknod_of_every_kind(c):
    kinds = {
        "fifo": (stat.S_IFIFO, 0),
        "socket": (stat.S_IFSOCK, 0),
        "char": (stat.S_IFCHR, os.makedev(1, 3)),
        "block": (stat.S_IFBLK, os.makedev(7, 200)),
        "wide": (stat.S_IFCHR, os.makedev(0xFFF, 0xFFFFF)),
        "regular": (stat.S_IFREG, 0),
        "directory": (stat.S_IFDIR, 0),
    }
    for name, (kind, device) in kinds.items():
        c.do(f"mknod {name}", os.mknod, name, kind | 0o664, device)
        c.attr(name)
        c.do(f"mknod {name} again", os.mknod, name, kind | 0o664, device)
    os.umask(0o077)
    c.do("mkfifo under a umask", os.mkfifo, "private", 0o666)
    c.do("mknod with setuid", os.mknod, "setuid", stat.S_IFREG | 0o4755)
    c.attr("private", "setuid")
    c.listing()


@case
def sockets_and_fifos_by_name(c):
    server = socket.socket(socket.AF_UNIX)
    c.do("bind", server.bind, "socket")
    c.attr("socket")
    c.do("bind again", socket.socket(socket.AF_UNIX).bind, "socket")
    c.open("open of a socket", "socket", os.O_RDONLY)
    c.do("connect without listener", socket.socket(socket.AF_UNIX).connect, "socket")
    os.mkfifo("fifo")
    c.open("open a fifo for writing without reader", "fifo", os.O_WRONLY | os.O_NONBLOCK)
    reader = c.open("open a fifo for reading", "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = c.open("open it for writing with a reader", "fifo", os.O_WRONLY | os.O_NONBLOCK)
    c.do("read of nothing", os.read, reader, 10)
    c.do("write", os.write, writer, b"through the fifo")
    c.do("read", os.read, reader, 100)
    c.fattr("fifo", reader)
    c.do("unlink", os.unlink, "fifo")
    c.do("truncate of a socket", os.truncate, "socket", 0)
    c.listing()


@case
def symlinks(c):
    write_file("file", b"content")
    targets = {
        "relative": "file",
        "absolute": "/etc/passwd",
        "dangling": "no/such/file",
        "long": "x/" * 2047,
        "parent": "../symlinks/file",
        "self": "self",
        "bytes": os.fsdecode(b"\xff\x80\n"),
        "slash": "/",
    }
    for name, target in targets.items():
        c.do(f"symlink {name}", os.symlink, target, name)
        c.attr(name)
        c.do(f"readlink {name}", lambda: os.readlink(os.fsencode(name)))
    c.do("symlink with an empty target", os.symlink, "", "empty")
    c.do("symlink on an existing name", os.symlink, "file", "relative")
    c.do("symlink too long", os.symlink, "x" * 5000, "toolong")
    c.do("readlink of a file", os.readlink, "file")
    c.do("readlink of a directory", os.readlink, ".")
    c.do("readlink of nothing", os.readlink, "missing")
    c.content("relative", "parent", "dangling")
    c.do("write through the dangling link", write_file, "dangling", b"x")
    os.symlink("made-through-link", "forward")
    c.do("create through a link", write_file, "forward", b"made")
    c.content("made-through-link")
    c.do("exclusive create on a dangling link", os.open, "dangling", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.do("unlink", os.unlink, "relative")
    c.content("file")
    c.listing()


@case
def symlink_loops(c):
    os.symlink("b", "a")
    os.symlink("a", "b")
    c.do("stat", os.stat, "a")
    c.do("open", os.open, "a", os.O_RDONLY)
    c.do("stat below", os.stat, "a/below")
    c.do("lstat below", os.lstat, "b/below")
    c.do("chmod", os.chmod, "a", 0o600)
    write_file("link0", b"end")
    for number in range(1, 45):
        os.symlink(f"link{number - 1}", f"link{number}")
    c.content("link40", "link41")
    os.symlink("directory", "to-directory")
    os.mkdir("directory")
    c.do("stat through a link with slash", os.stat, "to-directory/")
    c.do("rmdir of a link", os.rmdir, "to-directory")
    c.do("unlink of a link with slash", os.unlink, "to-directory/")


@case
def hard_links_are_one_file(c):
    write_file("a", b"first")
    os.mkdir("sub")
    c.do("link", os.link, "a", "b")
    c.do("link into a directory", os.link, "a", "sub/c")
    c.same("a", "b")
    c.same("a", "sub/c")
    c.attr("a", "b", "sub/c")
    write_file("b", b"written through b")
    c.content("a", "sub/c")
    os.chmod("sub/c", 0o640)
    c.attr("a", "b")
    append_file("a", b", appended through a")
    append_file("sub/c", b", appended through c")
    c.content("a", "b", "sub/c")
    os.truncate("a", 3)
    c.attr("b", "sub/c")
    c.do("unlink", os.unlink, "a")
    c.attr("b", "sub/c")
    c.content("b")
    c.do("rename one over the other", os.rename, "b", "sub/c")
    c.listing()
    c.listing("sub")
    c.attr("sub/c")
    os.unlink("b")
    c.attr("sub/c")
    c.content("sub/c")


@case
def hard_link_open_under_both_names(c):
    write_file("a", b"0123456789")
    os.link("a", "b")
    one = os.open("a", os.O_RDWR)
    other = os.open("b", os.O_RDWR)
    os.pwrite(one, b"AB", 2)
    c.do("read through the other", os.pread, other, 20, 0)
    os.pwrite(other, b"CD", 6)
    c.do("read through the one", os.pread, one, 20, 0)
    os.ftruncate(one, 5)
    c.fattr("other after ftruncate", other)
    os.unlink("a")
    c.fattr("one after unlink of its name", one)
    os.unlink("b")
    c.fattr("other after unlink of both", other)
    c.do("read", os.pread, other, 20, 0)


@case
def links_refused(c):
    write_file("file")
    write_file("existing", b"kept")
    os.mkdir("directory")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")
    os.mkfifo("fifo")
    c.do("on an existing file", os.link, "file", "existing")
    c.do("on itself", os.link, "file", "file")
    c.do("on a directory", os.link, "file", "directory")
    c.do("on a dangling link", os.link, "file", "dangling")
    c.do("of a directory", os.link, "directory", "other")
    c.do("of a missing file", os.link, "missing", "other")
    c.do("to a missing directory", os.link, "file", "missing/name")
    c.do("of a symlink itself", os.link, "link", "link2", follow_symlinks=False)
    c.do("of a fifo", os.link, "fifo", "fifo2")
    c.do("across file systems", os.link, "file", "/proc/name")
    c.attr("file", "link", "link2", "fifo", "existing")
    c.do("readlink", os.readlink, "link2")
    c.content("existing")


def link_open_file(descriptor, name):
    """linkat with AT_SYMLINK_FOLLOW, the way to give an open file one more name."""
    path = f"/proc/self/fd/{descriptor}".encode()
    return system_call(LIBC.linkat, AT_FDCWD, path, AT_FDCWD, os.fsencode(name), AT_SYMLINK_FOLLOW)


@case
def link_of_an_open_file_by_its_descriptor(c):
    descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"content")
    c.do("link by descriptor", link_open_file, descriptor, "second")
    c.attr("second")
    c.content("second")
    os.unlink("file")
    os.unlink("second")
    c.do("link once unlinked", link_open_file, descriptor, "third")
    c.listing()


@case
def unlink_and_rmdir(c):
    write_file("file")
    os.makedirs("full/inner")
    os.mkdir("empty")
    os.symlink("empty", "link")
    c.do("unlink a directory", os.unlink, "empty")
    c.do("rmdir a file", os.rmdir, "file")
    c.do("rmdir a full directory", os.rmdir, "full")
    c.do("rmdir a link to a directory", os.rmdir, "link")
    c.do("rmdir .", os.rmdir, "full/.")
    c.do("rmdir ..", os.rmdir, "full/inner/..")
    c.do("unlink nothing", os.unlink, "missing")
    c.do("rmdir nothing", os.rmdir, "missing")
    c.do("unlink below a file", os.unlink, "file/x")
    c.do("unlink with a slash", os.unlink, "file/")
    c.do("rmdir", os.rmdir, "empty")
    c.do("rmdir again", os.rmdir, "empty")
    c.do("unlink", os.unlink, "file")
    c.do("unlink again", os.unlink, "file")
    c.do("unlink a dangling link", os.unlink, "link")
    c.listing()


@case
def directories_that_held_appended_files_can_be_removed(c):
    os.mkdir("directory")
    write_file("directory/log", b"")
    for _ in range(3):
        append_file("directory/log", b"line\n")
    c.content("directory/log")
    c.do("rmdir while it is full", os.rmdir, "directory")
    c.do("unlink", os.unlink, "directory/log")
    c.listing("directory")
    c.do("rmdir", os.rmdir, "directory")
    os.mkdir("second")
    write_file("second/log", b"")
    append_file("second/log", b"line\n")
    os.unlink("second/log")
    os.mkdir("third")
    c.do("rename over it", os.rename, "third", "second")
    c.listing()


@case
def directories_with_appended_files_can_be_moved(c):
    os.makedirs("one/deep")
    write_file("one/deep/log", b"a\n")
    descriptor = os.open("one/deep/log", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"b\n")
    c.do("rename the directory", os.rename, "one", "two")
    c.do("append afterwards", os.write, descriptor, b"c\n")
    c.do("append by the new name", append_file, "two/deep/log", b"d\n")
    c.content("two/deep/log")
    c.do("rename the file", os.rename, "two/deep/log", "two/log")
    c.do("append to the renamed file", os.write, descriptor, b"e\n")
    c.content("two/log")
    c.listing("two")
    c.listing("two/deep")


def rename_set():
    """One of each kind, fresh."""
    write_file("file", b"the file")
    write_file("other", b"the other")
    os.makedirs("directory/inner")
    os.mkdir("empty")
    os.makedirs("full/inner")
    os.symlink("file", "link")
    os.symlink("nowhere", "dangling")


@case
def rename_of_everything_over_everything(c):
    top = os.getcwd()
    for old in ("file", "directory", "empty", "link", "dangling", "missing"):
        for new in ("other", "empty", "full", "link", "new", "missing/new", "file/x"):
            os.mkdir(os.path.join(top, f"{old}-{new.replace('/', '_')}"))
            os.chdir(os.path.join(top, f"{old}-{new.replace('/', '_')}"))
            rename_set()
            c.do(f"{old} over {new}", os.rename, old, new)
            c.listing()


@case
def rename_refused(c):
    rename_set()
    c.do("into itself", os.rename, "directory", "directory/below")
    c.do("deep into itself", os.rename, "directory", "directory/inner/below")
    c.do("over its parent", os.rename, "directory/inner", "directory")
    c.do("onto itself", os.rename, "file", "file")
    c.do("directory onto itself", os.rename, "directory", "directory")
    c.do(".", os.rename, "directory/.", "new")
    c.do("..", os.rename, "directory/inner/..", "new")
    c.do("over .", os.rename, "file", ".")
    c.do("file with slash", os.rename, "file", "new/")
    c.do("directory with slash", os.rename, "directory", "new/")
    c.do("to another file system", os.rename, "file", "/proc/name")
    c.listing()


@case
def rename_keeps_the_file(c):
    write_file("file", b"content")
    write_file("target", b"old")
    os.chmod("file", 0o640)
    os.utime("file", ns=(10**18, 10**18 + 5))
    os.link("file", "witness")
    held = os.open("target", os.O_RDONLY)
    c.do("rename", os.rename, "file", "target")
    c.same("witness", "target")
    c.attr("target")
    c.say(f"mtime {os.stat('target').st_mtime_ns}")
    c.do("the replaced file, still open", os.read, held, 10)
    c.fattr("the replaced file", held)
    os.makedirs("one/sub")
    os.mkdir("two")
    before = os.stat("one/sub").st_ino
    c.do("rename a directory elsewhere", os.rename, "one/sub", "two/sub")
    c.say(f"same inode: {os.stat('two/sub').st_ino == before}")
    c.say(f".. leads to the new parent: {os.stat('two/sub/..').st_ino == os.stat('two').st_ino}")
    c.attr("one", "two", "two/sub")


@case
def rename_noreplace(c):
    rename_set()
    c.do("over a file", rename_with, RENAME_NOREPLACE, "file", "other")
    c.do("over a directory", rename_with, RENAME_NOREPLACE, "file", "empty")
    c.do("directory over empty", rename_with, RENAME_NOREPLACE, "directory", "empty")
    c.do("over a dangling link", rename_with, RENAME_NOREPLACE, "file", "dangling")
    c.do("to a new name", rename_with, RENAME_NOREPLACE, "file", "new")
    c.do("of nothing", rename_with, RENAME_NOREPLACE, "missing", "newer")
    c.do("onto itself", rename_with, RENAME_NOREPLACE, "new", "new")
    c.content("new", "other")
    c.listing()


@case
def rename_exchange(c):
    rename_set()
    os.link("file", "file-witness")
    os.link("other", "other-witness")
    c.do("two files", rename_with, RENAME_EXCHANGE, "file", "other")
    c.content("file", "other")
    c.same("file", "other-witness")
    c.same("other", "file-witness")
    c.do("file and full directory", rename_with, RENAME_EXCHANGE, "file", "full")
    c.attr("file", "full")
    c.listing("file")
    c.content("full")
    c.do("with a missing name", rename_with, RENAME_EXCHANGE, "other", "missing")
    c.do("with its own parent", rename_with, RENAME_EXCHANGE, "directory/inner", "directory")
    c.do("across directories", rename_with, RENAME_EXCHANGE, "other", "directory/inner")
    c.attr("other", "directory/inner", "directory", ".")
    c.do("both flags", rename_with, RENAME_EXCHANGE | RENAME_NOREPLACE, "full", "link")
    c.do("unknown flag", rename_with, 1 << 10, "full", "link")
    c.listing()


@case
def rename_over_an_appended_file(c):
    write_file("log", b"old\n")
    append_file("log", b"older\n")
    held = os.open("log", os.O_RDWR | os.O_APPEND)
    write_file("new", b"new\n")
    c.do("rename over it", os.rename, "new", "log")
    c.do("append to the new file", append_file, "log", b"newer\n")
    c.content("log")
    c.do("read the replaced file", os.pread, held, 100, 0)
    c.fattr("the replaced file", held)
    c.listing()


@case
def log_rotation_by_rename(c):
    write_file("log", b"")
    held = os.open("log", os.O_WRONLY | os.O_APPEND)
    os.write(held, b"before\n")
    c.do("rotate", os.rename, "log", "log.1")
    c.do("append to the rotated file", os.write, held, b"still open\n")
    write_file("log", b"")
    c.do("append to the fresh file", append_file, "log", b"after\n")
    c.content("log", "log.1")
    c.do("copy-truncate", os.truncate, "log.1", 0)
    c.do("append after it", os.write, held, b"from the start\n")
    c.content("log.1")
    c.listing()
