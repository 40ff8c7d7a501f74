"""usage: dotlocking.py FILE WRITER COUNT

Appends lines as liblockfile's users do: makes FILE.lock by link(2), opens,
appends, closes, removes FILE.lock.  Knows nothing of dotlockfs.
"""

import os
import random
import socket
import sys
import time

from common import append, line, start_together

path, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
lock = path + ".lock"
own = f"{path}.{socket.gethostname()}.{os.getpid()}"
start_together(writer)
for number in range(count):
    with open(own, "w", encoding="ascii") as claim:
        claim.write(f"{os.getpid()}\n")
    deadline = time.monotonic() + 60
    while True:
        try:
            os.link(own, lock)
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise SystemExit(f"{lock} stood for 60 seconds") from None
            time.sleep(random.uniform(0.002, 0.02))
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    append(out, line(writer, number))
    os.close(out)
    os.unlink(lock)
    os.unlink(own)
    # Lets the others have a turn, as a program with other work to do would.
    time.sleep(0.01)
