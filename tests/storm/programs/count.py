"""usage: count.py FILE WRITER PACE

Counts in FILE, in place, until all are told to stop: opens it for reading and writing,
writes its own number into its own line and one more into the line `all`, and closes
it.  A line is a name, a number and a checksum, and never changes its length.

What it finds must not be older than what it has been told to be done.
"""

import os
import sys
import zlib

from journal import Journal, work

WIDTH = 32


def line(name, value):
    text = f"{name:<11} {value:010d} "
    return f"{text}{zlib.crc32(text.encode()):08x}\n".encode()


def main():
    path, writer, pace = *sys.argv[1:3], int(sys.argv[3])
    journal = Journal(writer)
    # What the two lines said at the least, when last all was well.
    known = {writer: max(journal.done, default=0), "all": 0}

    def look(text):
        values = {}
        for begin in range(0, len(text), WIDTH):
            found = text[begin : begin + WIDTH]
            name = found[:11].decode(errors="replace").strip()
            try:
                value = int(found[12:22])
            except ValueError:
                value = -1
            if found != line(name, value):
                journal.fault(f"torn line at byte {begin}: {found!r}")
                raise OSError(0, "torn line")
            values[name] = begin, value
        for name, value in known.items():
            if name not in values:
                journal.fault(f"no line {name} in {len(text)} bytes")
                raise OSError(0, "no such line")
            if values[name][1] < value:
                journal.fault(f"line {name} says {values[name][1]} after {value}")
        return values

    def update(descriptor, seq):
        values = look(os.pread(descriptor, 1 << 16, 0))
        begin, _ = values[writer]
        os.pwrite(descriptor, line(writer, seq), begin)
        begin, count = values["all"]
        os.pwrite(descriptor, line("all", count + 1), begin)
        return {writer: seq, "all": count + 1}

    def attempt():
        seq = journal.begin()
        try:
            descriptor = os.open(path, os.O_RDWR)
            try:
                news = update(descriptor, seq)
            except OSError:
                try:
                    os.close(descriptor)
                except OSError:
                    pass  # the first one tells more
                raise
            os.close(descriptor)
        except OSError as error:
            journal.failed(seq, error)
            return False
        journal.ok(seq)
        known.update(news)
        return True

    work(journal, pace, attempt)


main()
