"""usage: held.py FILE WRITER COUNT [SIZE]

Appends records through one descriptor that stays open, each by one write(2):
lines, or blocks of SIZE bytes.  Where $ACKNOWLEDGED names a file, the number of
records that write() has accepted is kept there.  With $UNTIL_STOPPED it ends
before COUNT when all are told to stop.
"""

import os
import sys

from common import append, record, start_together, stopped

path, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
size = int(sys.argv[4]) if len(sys.argv) > 4 else None
log = os.environ.get("ACKNOWLEDGED")
acknowledged = os.open(log, os.O_WRONLY | os.O_CREAT, 0o666) if log else None
until_stopped = "UNTIL_STOPPED" in os.environ
start_together(writer)
out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
for number in range(count):
    if until_stopped and stopped():
        break
    append(out, record(writer, number, size))
    if acknowledged is not None:
        os.pwrite(acknowledged, f"{number + 1}\n".encode(), 0)
os.close(out)
