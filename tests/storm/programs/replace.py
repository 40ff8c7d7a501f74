"""usage: replace.py HOW FILE WRITER PACE

Adds its updates to a JSON document as careful programs do, until all are told to
stop: reads it, writes the new one to a temporary file, and renames that over it.
HOW: `check`, without a lock, so that it is refused (ESTALE) when somebody else has
been faster; or `lockf`, under a lock of FILE.

What it finds must hold all that it has been told to be done.
"""

import contextlib
import fcntl
import json
import os
import sys

from journal import Journal, work


def main():
    how, path, writer, pace = *sys.argv[1:4], int(sys.argv[4])
    temporary = f"{os.path.dirname(path)}/temporary.{writer}"
    journal = Journal(writer)
    missed = set()

    def look(text):
        try:
            done = json.loads(text)["done"]
        except (ValueError, KeyError, TypeError):
            journal.fault(f"torn document of {len(text)} bytes: {text[:60]!r}...{text[-60:]!r}")
            raise OSError(0, "torn document") from None
        mine = {f"{writer}.{seq}" for seq in journal.done}
        for name in sorted(mine.difference(done, missed)):
            journal.fault(f"{name} was done, and is not there any more")
            missed.add(name)
        return done

    def update(seq):
        with contextlib.ExitStack() as stack:
            file = open(path, "r+" if how == "lockf" else "r", encoding="ascii")
            # Closing tells of errors, too; what counts is what the rename says.
            stack.callback(close, file)
            if how == "lockf":
                fcntl.lockf(file, fcntl.LOCK_EX)
            done = look(file.read())
            if how == "check":
                stack.close()
            with open(temporary, "w", encoding="ascii") as out:
                out.write(json.dumps({"done": done + [f"{writer}.{seq}"]}))
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, path)
            journal.ok(seq)

    def close(file):
        with contextlib.suppress(OSError):
            file.close()

    def attempt():
        seq = journal.begin()
        try:
            update(seq)
        except OSError as error:
            journal.failed(seq, error)
            return False
        return True

    work(journal, pace, attempt)


main()
