"""usage: append.py HOW FILE WRITER PACE BIG

Appends records to FILE until all are told to stop, with pauses of PACE ms between
them.  HOW: `held`, by one descriptor; or `each`, by one for each record.  One record
of BIG (0: none) is larger than one call of the kernel or of NFS takes.

A record is `@WRITER NUMBER SIZE ` and as many bytes as that makes; every byte follows
from those three, so whoever checks knows a whole record when it sees one.
"""

import errno
import os
import sys

from journal import Journal, work

BIG_SIZE = 1536 << 10

# With these the descriptor is of no more use: dotlockfs has ended under it.
MOUNT_IS_GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.ESTALE}


def record(writer, seq, size):
    head = f"@{writer} {seq:06d} {size} "
    unit = len(f"{seq:06d}.{0:06d} ")
    units = (f"{seq:06d}.{number:06d} " for number in range(size // unit + 1))
    return ((head + "".join(units))[: size - 1] + "\n").encode()


class Short(OSError):
    """Only a part was taken."""


def write(descriptor, data):
    written = os.write(descriptor, data)
    if written != len(data):
        raise Short(0, f"{written} of {len(data)} bytes")


def main():
    how, path, writer = sys.argv[1:4]
    pace, big = int(sys.argv[4]), int(sys.argv[5])
    journal = Journal(writer)
    dice = journal.random
    held = None

    def some_size():
        if big and dice.randrange(big) == 0:
            return BIG_SIZE + dice.randrange(1000)
        if dice.randrange(5) == 0:
            return dice.randrange(1000, 20000)
        return dice.randrange(60, 300)

    def append(data):
        nonlocal held
        if held is None:
            # Not made here: it is there, or the mount is not.
            held = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            write(held, data)
        except OSError as error:
            if error.errno in MOUNT_IS_GONE or dice.randrange(2):
                leave()
            raise
        if how == "each":
            descriptor, held = held, None
            os.close(descriptor)

    def leave():
        nonlocal held
        descriptor, held = held, None
        try:
            os.close(descriptor)
        except OSError:
            pass  # the write has failed already

    def attempt():
        size = some_size()
        seq = journal.begin(size)
        try:
            append(record(writer, seq, size))
        except OSError as error:
            journal.failed(seq, error)
            return False
        journal.ok(seq)
        return True

    work(journal, pace, attempt)


main()
