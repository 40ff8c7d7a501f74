"""usage: open.py HOW FILE [UNTIL]

Gets hold of FILE, prints `got it`, keeps it until there is a file UNTIL (100 seconds
at most) and lets it go.
HOW: `write` opens it for reading and writing, `nonblock` does so with O_NONBLOCK;
`lockf` and `flock` open it for appending and lock it; `read` opens it for reading.
On an error it prints the error's name and how many milliseconds it took.
"""

import errno
import fcntl
import os
import sys
import time

how, path = sys.argv[1], sys.argv[2]
until = sys.argv[3] if len(sys.argv) > 3 else "/"
flags = {
    "write": os.O_RDWR,
    "nonblock": os.O_RDWR | os.O_NONBLOCK,
    "read": os.O_RDONLY,
}
began = time.monotonic()
try:
    file = os.open(path, flags.get(how, os.O_WRONLY | os.O_APPEND))
    if how == "lockf":
        fcntl.lockf(file, fcntl.LOCK_EX)
    elif how == "flock":
        fcntl.flock(file, fcntl.LOCK_EX)
except OSError as error:
    print(errno.errorcode[error.errno], round((time.monotonic() - began) * 1000))
    raise SystemExit(1) from None
print("got it", flush=True)
while not os.path.exists(until) and time.monotonic() < began + 100:
    time.sleep(0.05)
os.close(file)
