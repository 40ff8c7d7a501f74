"""Types into an interactive shell, and waits for what the shell makes of it.

usage: type.py SECONDS SHELL [ARGUMENT...] <STEPS

Each line of STEPS is what is typed, a tab, and what must then be shown (nothing: it
is a command, which is run to its end).  "^" in what is typed stands for the key tab,
and "~" for the one that clears the line.
"""

import os
import pty
import select
import sys
import time


def main():
    seconds, *shell = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    steps = [line.rstrip("\n").split("\t") for line in sys.stdin]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(shell[0], shell)
    # A shell throws away what is typed before it listens.
    steps.insert(0, ["", "READY> "])
    for typed, wanted in steps:
        if wanted == "":
            typed, wanted = typed + "; echo DO''NE\n", "DONE"
        seen = ""
        keys = typed.replace("^", "\t").replace("~", "\x15")
        os.write(terminal, keys.encode())
        while wanted not in seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([terminal], [], [], left)[0]:
                sys.exit(f"{typed!r} did not lead to {wanted!r}: {seen!r}")
            try:
                seen += os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                sys.exit(f"the shell has ended after {typed!r}: {seen!r}")


main()
