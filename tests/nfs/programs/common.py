"""What the test programs share: the records that they append, and a common start.

A record begins with a header that says whose it is, its number and its size, and
its every byte follows from those three; so the checker knows a whole record when
it sees one, and a byte that belongs to none.
"""

import os
import re
import time
import zlib

LETTERS = "abcdefghijklmnopqrstuvwxyz" * 4
HEADER = re.compile(rb"@(host\d\.\w) (\d{6}) (\d{1,8}) ")
LARGEST_LINE = 99


def line(writer, number):
    """A line of 40 to 99 bytes; common.sh makes the same."""
    size = 40 + number * 7 % 60
    head = f"@{writer} {number:06d} {size} "
    begin = number % 26
    body = LETTERS[begin : begin + size - len(head) - 10]
    check = (number * 2654435761 + size) & 0xFFFFFFFF
    return f"{head}{body} {check:08x}\n".encode()


def block(writer, number, size):
    """A record of `size` bytes, with a checksum at its end."""
    import hashlib  # loads all of OpenSSL

    head = f"@{writer} {number:06d} {size} ".encode()
    body = head + hashlib.shake_128(head).digest(size - len(head) - 10)
    return body + f" {zlib.crc32(body):08x}\n".encode()


def record(writer, number, size=None):
    """The record with that header."""
    if size is None or size <= LARGEST_LINE:
        return line(writer, number)
    return block(writer, number, size)


def start_together(writer):
    """Says that it is ready, and waits until all others are."""
    barrier = os.environ.get("BARRIER")
    if barrier:
        with open(f"{barrier}/{writer}", "w"):
            pass
        while not os.path.exists(f"{barrier}/go"):
            time.sleep(0.005)


def stopped():
    """Has everybody been told to stop?"""
    return os.path.exists(os.environ["BARRIER"] + "/stop")


def append(descriptor, data):
    """One write(2) for the whole record."""
    written = os.write(descriptor, data)
    if written != len(data):
        raise SystemExit(f"only {written} of {len(data)} bytes were written")
