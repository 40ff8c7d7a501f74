"""Extended attributes."""

import ctypes
import os

from transcript import LIBC, case, system_call, write_file


def getxattr_into(path, name, size):
    """getxattr with a buffer of a given size: the length that it answers."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    return system_call(LIBC.getxattr, os.fsencode(path), name.encode(), buffer, ctypes.c_size_t(size))


def listxattr_into(path, size):
    """listxattr with a buffer of a given size."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    return system_call(LIBC.listxattr, os.fsencode(path), buffer, ctypes.c_size_t(size))


def names(path):
    """The names of the attributes, sorted, without those of a security module."""
    return sorted(name for name in os.listxattr(path) if not name.startswith("security."))


@case
def user_attributes(c):
    write_file("file", b"content")
    os.mkdir("directory")
    for path in ("file", "directory"):
        c.do("missing", os.getxattr, path, "user.a")
        c.do("set", os.setxattr, path, "user.a", b"value")
        c.do("get", os.getxattr, path, "user.a")
        c.do("create existing", os.setxattr, path, "user.a", b"x", os.XATTR_CREATE)
        c.do("replace missing", os.setxattr, path, "user.b", b"x", os.XATTR_REPLACE)
        c.do("create", os.setxattr, path, "user.b", b"created", os.XATTR_CREATE)
        c.do("replace", os.setxattr, path, "user.a", b"replaced", os.XATTR_REPLACE)
        c.do("both flags", os.setxattr, path, "user.a", b"x", 3)
        c.do("empty value", os.setxattr, path, "user.empty", b"")
        c.do("binary value", os.setxattr, path, "user.binary", bytes(range(256)))
        c.do("odd name", os.setxattr, path, "user.Grüße \n.", b"odd")
        for name in ("user.a", "user.b", "user.empty", "user.binary"):
            c.do(f"get {name}", os.getxattr, path, name)
        c.do("list", names, path)
        c.do("remove", os.removexattr, path, "user.a")
        c.do("remove again", os.removexattr, path, "user.a")
        c.do("get removed", os.getxattr, path, "user.a")
        c.do("list", names, path)


@case
def attribute_buffers(c):
    write_file("file")
    os.setxattr("file", "user.name", b"0123456789")
    c.do("size asked", getxattr_into, "file", "user.name", 0)
    c.do("small buffer", getxattr_into, "file", "user.name", 5)
    c.do("exact buffer", getxattr_into, "file", "user.name", 10)
    c.do("large buffer", getxattr_into, "file", "user.name", 60_000)
    c.do("list with a small buffer", listxattr_into, "file", 3)
    write_file("bare")
    c.do("size of a missing one", getxattr_into, "bare", "user.name", 0)


@case
def long_attributes(c):
    write_file("file")
    for size in (1000, 2000, 3000, 5000, 65536, 65537):
        c.do(f"set {size}", os.setxattr, "file", f"user.long{size}", b"v" * size)
        c.do(f"get {size}", os.getxattr, "file", f"user.long{size}")
        c.do(f"remove {size}", os.removexattr, "file", f"user.long{size}")
    c.do("longest name", os.setxattr, "file", "user." + "n" * 250, b"x")
    c.do("name too long", os.setxattr, "file", "user." + "n" * 251, b"x")
    for number in range(40):
        os.setxattr("file", f"user.number{number}", b"x")
    c.do("list", names, "file")


@case
def attributes_of_other_kinds(c):
    write_file("file")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    c.do("through a link", os.setxattr, "link", "user.a", b"value")
    c.do("of the file", os.getxattr, "file", "user.a")
    c.do("of a link itself", os.setxattr, "link", "user.a", b"value", follow_symlinks=False)
    c.do("get of a link itself", os.getxattr, "link", "user.a", follow_symlinks=False)
    c.do("of a fifo", os.setxattr, "fifo", "user.a", b"value")
    c.do("of nothing", os.setxattr, "missing", "user.a", b"value")
    c.do("empty name", os.setxattr, "file", "user.", b"value")
    c.do("unknown namespace", os.setxattr, "file", "nonsense.a", b"value")
    c.do("get of an unknown namespace", os.getxattr, "file", "nonsense.a")
    c.do("no namespace", os.setxattr, "file", "name", b"value")


@case
def trusted_attributes(c):
    write_file("file")
    os.symlink("file", "link")
    for path, follow in (("file", True), ("link", False)):
        c.do("set", os.setxattr, path, "trusted.a", b"value", follow_symlinks=follow)
        c.do("get", os.getxattr, path, "trusted.a", follow_symlinks=follow)
        c.do("list", lambda: sorted(n for n in os.listxattr(path, follow_symlinks=follow) if n[:8] != "security"))
        c.do("remove", os.removexattr, path, "trusted.a", follow_symlinks=follow)


@case
def attributes_by_descriptor_and_link(c):
    write_file("file")
    os.link("file", "other")
    descriptor = os.open("file", os.O_RDONLY)
    c.do("set by a reading descriptor", os.setxattr, descriptor, "user.a", b"value")
    c.do("get by the other name", os.getxattr, "other", "user.a")
    os.rename("file", "renamed")
    c.do("get after rename", os.getxattr, "renamed", "user.a")
    c.do("remove by descriptor", os.removexattr, descriptor, "user.a")
    c.do("list by descriptor", names, descriptor)
    os.chmod("renamed", 0o000)
    c.do("set without permission", os.setxattr, "renamed", "user.b", b"value")
    c.do("get without permission", os.getxattr, "renamed", "user.b")
    c.do("list without permission", names, "renamed")
