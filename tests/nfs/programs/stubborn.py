"""usage: stubborn.py FILE WRITER COUNT

Appends COUNT records, each by one write(2) to a descriptor that stays open, and goes
on with the next one after an error.  A record is a line with a name of its own and as
many letters as its number says (check-updates.py, `records`).
"""

import os
import sys

from attempts import attempt, name_of, padding_of

path, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def update(number):
    record = f"{name_of(writer, number)} {padding_of(number)}\n".encode()
    written = os.write(out, record)
    if written != len(record):
        raise OSError(f"only {written} of {len(record)} bytes were written")


attempt(writer, count, update)
