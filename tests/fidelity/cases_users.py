"""Users: what belongs to others, or is open to a group, a sticky directory or an ACL."""

import os
import struct

import transcript
from transcript import append_file, case, read_file, write_file

ALICE, BOB, GROUP, STRANGERS = 1000, 1001, 2000, 3000
ACL_ACCESS, ACL_DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, GROUP_ENTRY, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF


def acl(*entries):
    """A POSIX ACL as the kernel stores it, from (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who) for tag, bits, who in entries)


def acl_text(path, name):
    """A POSIX ACL of a file, readable."""
    data = os.getxattr(path, name)
    entries = [struct.unpack_from("<HHI", data, offset) for offset in range(4, len(data), 8)]
    words = {USER_OBJ: "user", USER: "user", GROUP_OBJ: "group", GROUP_ENTRY: "group", MASK: "mask", OTHER: "other"}
    return " ".join(f"{words[tag]}:{'' if who == NOBODY else who}:{bits:o}" for tag, bits, who in entries)


ALICE_MAY = acl(
    (USER_OBJ, 6, NOBODY), (USER, 6, ALICE), (GROUP_OBJ, 0, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)
)
GROUP_MAY_READ = acl(
    (USER_OBJ, 6, NOBODY), (GROUP_OBJ, 0, NOBODY), (GROUP_ENTRY, 4, GROUP), (MASK, 4, NOBODY), (OTHER, 0, NOBODY)
)
BOB_MAY_NOT = acl(
    (USER_OBJ, 7, NOBODY), (USER, 0, BOB), (GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 6, NOBODY)
)
INHERITED = acl(
    (USER_OBJ, 7, NOBODY), (USER, 7, ALICE), (GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 5, NOBODY)
)


def prepare(top):
    """Makes the directories of the cases below, as root: `prepared/NAME` for the case NAME."""
    os.umask(0)
    os.chmod(top, 0o777)
    os.chdir(top)
    os.mkdir("prepared")
    os.chdir("prepared")

    def directory(path, mode, uid=0, gid=0):
        os.mkdir(path)
        os.chown(path, uid, gid)
        os.chmod(path, mode)

    def file(path, mode, uid, gid=None, content=b"content of somebody\n"):
        write_file(path, content)
        os.chown(path, uid, uid if gid is None else gid)
        os.chmod(path, mode)

    directory("setgid", 0o2777, gid=GROUP)
    directory("setgid_group_only", 0o2770, gid=GROUP)

    directory("sticky", 0o1777)
    directory("open_to_all", 0o777)
    for place in ("sticky", "open_to_all"):
        for owner in (0, ALICE, BOB):
            file(f"{place}/of-{owner}", 0o666, owner)
            directory(f"{place}/directory-of-{owner}", 0o777, owner, owner)
            os.symlink(f"of-{owner}", f"{place}/link-of-{owner}")
            os.lchown(f"{place}/link-of-{owner}", owner, owner)

    directory("owners", 0o777)
    for owner in (0, ALICE, BOB):
        for mode in (0o600, 0o640, 0o644, 0o660, 0o604, 0o606, 0o444, 0o000, 0o222, 0o066):
            file(f"owners/file-{owner}-{mode:03o}", mode, owner, GROUP)
        for mode in (0o700, 0o755, 0o711, 0o733, 0o770, 0o000, 0o777, 0o744):
            directory(f"owners/directory-{owner}-{mode:03o}", 0o777, owner, GROUP)
            file(f"owners/directory-{owner}-{mode:03o}/inside", 0o666, owner, GROUP)
            os.chmod(f"owners/directory-{owner}-{mode:03o}", mode)

    directory("groups", 0o777)
    for gid in (ALICE, BOB, GROUP, STRANGERS):
        for owner in (ALICE, BOB):
            file(f"groups/file-{owner}-{gid}", 0o6775, owner, gid)

    directory("setuid", 0o777)
    for owner in (0, ALICE, BOB):
        for mode in (0o4777, 0o2777, 0o6777, 0o6766):
            file(f"setuid/file-{owner}-{mode:04o}", mode, owner, GROUP)

    directory("acls", 0o777)
    for name, value in (("alice", ALICE_MAY), ("group", GROUP_MAY_READ), ("not-bob", BOB_MAY_NOT)):
        file(f"acls/{name}", 0o600, 0)
        os.setxattr(f"acls/{name}", ACL_ACCESS, value)
    directory("acls/default", 0o777)
    os.setxattr("acls/default", ACL_DEFAULT, INHERITED)
    directory("acls/private", 0o700)
    os.setxattr("acls/private", ACL_ACCESS, acl(
        (USER_OBJ, 7, NOBODY), (USER, 5, ALICE), (GROUP_OBJ, 0, NOBODY), (MASK, 7, NOBODY), (OTHER, 0, NOBODY)
    ))
    file("acls/private/inside", 0o644, 0)

    directory("trusted", 0o777)
    file("trusted/file", 0o666, 0)
    os.setxattr("trusted/file", "trusted.secret", b"root only")
    os.setxattr("trusted/file", "user.open", b"for all")


def enter(name):
    """Goes to what root prepared."""
    os.chdir(os.path.join(transcript.TOP[0], "prepared", name))


@case
def setgid_directory_inheritance(c):
    enter("setgid")
    for mode in (0o644, 0o755, 0o2755, 0o2644, 0o6777):
        c.do(f"create {mode:04o}", write_file, f"file-{mode:o}", b"x", mode)
        c.attr(f"file-{mode:o}")
        c.do(f"chmod {mode:04o}", os.chmod, f"file-{mode:o}", mode)
        c.attr(f"file-{mode:o}")
    c.do("mkdir", os.mkdir, "directory", 0o755)
    c.do("mkdir below", os.mkdir, "directory/below", 0o700)
    c.do("symlink", os.symlink, "x", "link")
    c.do("fifo", os.mkfifo, "fifo")
    c.do("mknod with setgid", os.mknod, "node", 0o102755)
    c.attr("directory", "directory/below", "link", "fifo", "node")
    c.do("append", append_file, "file-644", b"y")
    c.attr("file-644")
    c.do("chmod drops the bit from a directory", os.chmod, "directory", 0o755)
    c.attr("directory")
    below = "../setgid_group_only"
    c.do("list one for the group only", os.listdir, below)
    c.do("create in it", write_file, f"{below}/file", b"x")
    c.attr(f"{below}/file")


@case
def setgid_bit_kept_from_strangers(c):
    enter("groups")
    for name in sorted(os.listdir(".")):
        c.attr(name)
        c.do(f"chmod {name}", os.chmod, name, 0o2775)
        c.attr(name)
        c.do(f"chmod without group-execute {name}", os.chmod, name, 0o2765)
        c.attr(name)
        c.do(f"chgrp {name} to 2000", os.chown, name, -1, GROUP)
        c.attr(name)
        c.do(f"chgrp {name} to 3000", os.chown, name, -1, STRANGERS)
        c.do(f"chown {name} to alice", os.chown, name, ALICE, -1)
        c.attr(name)


@case
def sticky_directory(c):
    for place in ("sticky", "open_to_all"):
        enter(place)
        c.do("create", write_file, "own", b"x")
        for owner in (0, ALICE, BOB):
            c.do(f"write to of-{owner}", append_file, f"of-{owner}", b"more")
            c.do(f"open with O_CREAT of-{owner}", lambda: os.close(os.open(f"of-{owner}", os.O_CREAT | os.O_RDWR)))
            c.do(f"rename of-{owner}", os.rename, f"of-{owner}", f"renamed-{owner}")
            c.do(f"rename own over of-{owner}", os.rename, "own", f"of-{owner}")
            c.do("write own again", write_file, "own", b"x")
            c.do(f"link of-{owner}", os.link, f"of-{owner}", f"hard-{owner}")
            c.do(f"unlink of-{owner}", os.unlink, f"of-{owner}")
            c.do(f"follow link-of-{owner}", os.stat, f"link-of-{owner}")
            c.do(f"unlink link-of-{owner}", os.unlink, f"link-of-{owner}")
            c.do(f"rename directory-of-{owner}", os.rename, f"directory-of-{owner}", f"moved-{owner}")
            c.do(f"rmdir directory-of-{owner}", os.rmdir, f"directory-of-{owner}")
        c.listing()


@case
def files_of_others(c):
    enter("owners")
    for name in sorted(os.listdir(".")):
        if not name.startswith("file"):
            continue
        c.attr(name)
        c.do("  read", read_file, name)
        c.do("  append", append_file, name, b"+")
        c.do("  write", lambda: os.close(os.open(name, os.O_RDWR)))
        c.do("  utime now", os.utime, name)
        c.do("  utime explicit", os.utime, name, (1, 2))
        c.do("  truncate", os.truncate, name, 4)
        c.do("  open and truncate", lambda: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)))
        # To another than the owner the kernel itself says no, before it asks a FUSE file system
        # whether the file may be read at all; so which of the two errors it is may differ.
        if os.stat(name).st_uid == os.geteuid() or os.geteuid() == 0:
            c.do("  without access time", lambda: os.close(os.open(name, os.O_RDONLY | os.O_NOATIME)))
        c.do("  chmod", os.chmod, name, 0o640)
        c.do("  chown to alice", os.chown, name, ALICE, -1)
        c.do("  chgrp", os.chown, name, -1, GROUP)
        c.do("  set an attribute", os.setxattr, name, "user.a", b"b")
        c.do("  get an attribute", os.getxattr, name, "user.a")
        c.do("  link", os.link, name, "hard")
        if os.path.exists("hard"):
            os.unlink("hard")
        c.say(f"  access: {''.join(str(int(os.access(name, want))) for want in range(8))}")
        c.attr(name)


@case
def directories_of_others(c):
    enter("owners")
    for name in sorted(os.listdir(".")):
        if not name.startswith("directory"):
            continue
        c.attr(name)
        c.do("  list", lambda: sorted(os.listdir(name)))
        c.do("  stat inside", os.stat, f"{name}/inside")
        c.do("  stat missing", os.stat, f"{name}/missing")
        c.do("  read inside", read_file, f"{name}/inside")
        c.do("  create", write_file, f"{name}/new", b"x")
        c.do("  mkdir", os.mkdir, f"{name}/sub")
        c.do("  mkdir existing", os.mkdir, f"{name}/inside")
        c.do("  symlink", os.symlink, "x", f"{name}/link")
        c.do("  link", os.link, f"{name}/inside", f"{name}/hard")
        c.do("  rename", os.rename, f"{name}/inside", f"{name}/renamed")
        c.do("  rename back", os.rename, f"{name}/renamed", f"{name}/inside")
        c.do("  mkfifo", os.mkfifo, f"{name}/fifo")
        for made in ("new", "link", "hard", "fifo", "missing"):
            c.do(f"  unlink {made}", os.unlink, f"{name}/{made}")
        c.do("  rmdir", os.rmdir, f"{name}/sub")
        c.do("  chdir", enter_and_return, name)
        c.do("  rename it", os.rename, name, f"{name}.moved")
        c.do("  rename it back", os.rename, f"{name}.moved", name)
        c.do("  chmod", os.chmod, name, os.stat(name).st_mode & 0o7777)
        c.say(f"  access: {''.join(str(int(os.access(name, want))) for want in range(8))}")


def enter_and_return(name):
    """chdir there and back."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(name)
    finally:
        os.fchdir(here)
        os.close(here)


@case
def appends_where_the_directory_is_not_ones_own(c):
    """A file one may write, in a directory one may not: the guard must not stand in the way."""
    enter("owners")
    for owner in (0, ALICE, BOB):
        for mode in ("755", "711", "733", "777"):
            path = f"directory-{owner}-{mode}/inside"
            c.do(f"append to {path}", append_file, path, b"one line more\n")
            c.do("  read", read_file, path)
            c.do("  truncating open", lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)))
            c.attr(path)


@case
def setuid_of_others_cleared_by_writing(c):
    enter("setuid")
    for name in sorted(os.listdir(".")):
        c.attr(name)
        c.do("  append", append_file, name, b"x")
        c.attr(name)
        c.do("  set again", os.chmod, name, int(name[-4:], 8))
        c.attr(name)
        c.do("  truncate", os.truncate, name, 1)
        c.attr(name)
        c.do("  chown to oneself", os.chown, name, os.getuid(), -1)
        c.attr(name)


@case
def access_lists_are_obeyed(c):
    enter("acls")
    for name in ("alice", "group", "not-bob"):
        c.attr(name)
        c.do("  list", acl_text, name, ACL_ACCESS)
        c.do("  read", read_file, name)
        c.do("  append", append_file, name, b"more")
        c.do("  write", lambda: os.close(os.open(name, os.O_RDWR)))
        c.say(f"  access: {''.join(str(int(os.access(name, want))) for want in range(8))}")
        c.do("  change the list", os.setxattr, name, ACL_ACCESS, ALICE_MAY)
        c.do("  chmod", os.chmod, name, 0o640)
        c.attr(name)
        c.do("  list after chmod", acl_text, name, ACL_ACCESS)
    c.do("enter", os.listdir, "private")
    c.do("read in it", read_file, "private/inside")
    c.do("create in it", write_file, "private/new")


@case
def access_lists_are_inherited(c):
    enter("acls")
    for mask in (0o022, 0o077, 0o000):
        os.umask(mask)
        for mode in (0o666, 0o600, 0o777):
            name = f"default/file-{mask:o}-{mode:o}"
            c.do("create", write_file, name, b"x", mode)
            c.attr(name)
            c.do("  list", acl_text, name, ACL_ACCESS)
        c.do("mkdir", os.mkdir, f"default/directory-{mask:o}", 0o777)
        c.attr(f"default/directory-{mask:o}")
        c.do("  list", acl_text, f"default/directory-{mask:o}", ACL_ACCESS)
        c.do("  default", acl_text, f"default/directory-{mask:o}", ACL_DEFAULT)
        c.do("fifo", os.mkfifo, f"default/fifo-{mask:o}", 0o666)
        c.attr(f"default/fifo-{mask:o}")


@case
def access_lists_of_ones_own(c):
    write_file("file", b"x")
    os.mkdir("directory")
    c.do("none yet", os.getxattr, "file", ACL_ACCESS)
    c.do("set", os.setxattr, "file", ACL_ACCESS, ALICE_MAY)
    c.attr("file")
    c.do("get", acl_text, "file", ACL_ACCESS)
    c.do("names", lambda: sorted(n for n in os.listxattr("file") if n.startswith("system")))
    c.do("chmod", os.chmod, "file", 0o640)
    c.do("get", acl_text, "file", ACL_ACCESS)
    minimal = acl((USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 4, NOBODY))
    c.do("set one that is a mode", os.setxattr, "file", ACL_ACCESS, minimal)
    c.attr("file")
    c.do("get", os.getxattr, "file", ACL_ACCESS)
    c.do("default on a file", os.setxattr, "file", ACL_DEFAULT, INHERITED)
    c.do("default on a directory", os.setxattr, "directory", ACL_DEFAULT, INHERITED)
    c.do("nonsense", os.setxattr, "file", ACL_ACCESS, b"nonsense")
    c.do("remove", os.removexattr, "directory", ACL_DEFAULT)
    c.do("gone", os.getxattr, "directory", ACL_DEFAULT)


@case
def access_lists_and_the_setgid_bit(c):
    """Setting an ACL on a file of a foreign group drops setgid, as chmod does."""
    enter("groups")
    for name in sorted(os.listdir(".")):
        c.do(f"chmod {name}", os.chmod, name, 0o2775)
        c.do(f"set a list on {name}", os.setxattr, name, ACL_ACCESS, BOB_MAY_NOT)
        c.attr(name)


@case
def trusted_attributes_stay_hidden(c):
    enter("trusted")
    c.do("list", lambda: sorted(n for n in os.listxattr("file") if not n.startswith("security")))
    c.do("get", os.getxattr, "file", "trusted.secret")
    c.do("set", os.setxattr, "file", "trusted.secret", b"changed")
    c.do("remove", os.removexattr, "file", "trusted.secret")
    c.do("open one", os.getxattr, "file", "user.open")


@case
def created_files_belong_to_their_maker(c):
    write_file("file")
    os.mkdir("directory")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    c.attr("file", "directory", "link", "fifo", ".")
    c.do("give it away", os.chown, "file", BOB if os.getuid() == ALICE else ALICE, -1)
    c.do("to a group of mine or not", os.chown, "file", -1, GROUP)
    c.do("to a strange group", os.chown, "file", -1, STRANGERS)
    c.attr("file")
