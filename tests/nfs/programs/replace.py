"""usage: replace.py HOW FILE WRITER COUNT

Changes a JSON document COUNT times as careful programs do: reads it, writes the new
one to a temporary file beside it and renames that over it.  HOW says what keeps
others out meanwhile:

  lockf         fcntl.lockf of FILE itself, opened "r+"
  flock         fcntl.flock of FILE itself, opened "r+"
  guard-lockf   fcntl.lockf of a file beside it that is never replaced, opened "w"
  guard-flock   fcntl.flock of such a file, opened "a"
  nothing       nothing; FILE is closed as soon as it is read
  nothing-open  nothing; FILE stays open until it is replaced
"""

import contextlib
import errno
import fcntl
import os
import sys

from attempts import Refused, attempt, name_of, with_one_more

how, path, writer, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
guard = os.path.splitext(path)[0] + ".guard"


@contextlib.contextmanager
def document():
    """The open document, while nobody else should change it."""
    if how in ("lockf", "flock"):
        with open(path, "r+", encoding="ascii") as file:
            lock(file)
            yield file
    elif how.startswith("guard-"):
        with open(guard, "w" if how == "guard-lockf" else "a", encoding="ascii") as held:
            lock(held)
            with open(path, encoding="ascii") as file:
                yield file
    else:
        with open(path, encoding="ascii") as file:
            yield file


def lock(file):
    if how.endswith("lockf"):
        fcntl.lockf(file, fcntl.LOCK_EX)
    else:
        fcntl.flock(file, fcntl.LOCK_EX)


def update(number):
    # Each has a name of its own: an NFSv3 client remembers for long whether a file could be written.
    temporary = f"{path}.{writer}.{number}.tmp"
    with document() as file:
        text = with_one_more(file.read(), name_of(writer, number))
        if how == "nothing":
            file.close()
        with open(temporary, "w", encoding="ascii") as out:
            out.write(text)
        try:
            os.replace(temporary, path)
        except OSError as error:
            # Where nothing could be renamed back it is not there any more.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            if error.errno == errno.ESTALE:
                raise Refused from error
            raise


attempt(writer, count, update)
