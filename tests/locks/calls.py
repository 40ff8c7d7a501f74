"""The system calls that lock, made as C programs make them.

Python's own `fcntl` calls again after EINTR, so these go through libc without it.
"""

import ctypes
import errno
import os

LIBC = ctypes.CDLL(None, use_errno=True)

TYPES = {"rd": 0, "wr": 1, "un": 2}
WHENCE = {"set": os.SEEK_SET, "cur": os.SEEK_CUR, "end": os.SEEK_END}
COMMANDS = {
    "getlk": 5,
    "setlk": 6,
    "setlkw": 7,
    "ofd_getlk": 36,
    "ofd_setlk": 37,
    "ofd_setlkw": 38,
}
FLOCK = {"sh": 1, "ex": 2, "nb": 4, "un": 8}
LOCKF = {"ulock": 0, "lock": 1, "tlock": 2, "test": 3}


class StructFlock(ctypes.Structure):
    """struct flock of 64-bit programs."""

    _fields_ = [
        ("l_type", ctypes.c_short),
        ("l_whence", ctypes.c_short),
        ("l_start", ctypes.c_int64),
        ("l_len", ctypes.c_int64),
        ("l_pid", ctypes.c_int),
    ]


def outcome(result):
    """"ok", or the name of the errno."""
    if result != -1:
        return "ok"
    number = ctypes.get_errno()
    # Python calls it EDEADLOCK, which is the same number.
    return "EDEADLK" if number == errno.EDEADLK else errno.errorcode[number]


def word(table, value):
    """The number behind a word; numbers stand for themselves, to pass wrong ones."""
    return value if isinstance(value, int) else table[value]


def fcntl(descriptor, command, kind, start, length, whence="set", pid=0):
    """fcntl(2) with a struct flock; gives the answer of those that ask."""
    lock = StructFlock(word(TYPES, kind), word(WHENCE, whence), start, length, pid)
    result = outcome(LIBC.fcntl(descriptor, COMMANDS[command], ctypes.byref(lock)))
    if result != "ok" or "getlk" not in command:
        return result
    if lock.l_type == TYPES["un"]:
        # The rest stays as it was asked.
        same = (lock.l_whence, lock.l_start, lock.l_len, lock.l_pid)
        return "free" if same == (word(WHENCE, whence), start, length, pid) else f"free {same}"
    names = {number: name for name, number in TYPES.items()}
    return [names[lock.l_type], lock.l_whence, lock.l_start, lock.l_len, lock.l_pid]


def flock(descriptor, operation):
    """flock(2); the operation is a number, or words like "ex nb"."""
    if isinstance(operation, str):
        operation = sum(FLOCK[part] for part in operation.split())
    return outcome(LIBC.flock(descriptor, operation))


def lockf(descriptor, command, length):
    """lockf(3), which counts from the descriptor's position."""
    return outcome(LIBC.lockf(descriptor, word(LOCKF, command), ctypes.c_int64(length)))
