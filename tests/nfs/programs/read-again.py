"""usage: read-again.py FILE READER

Opens and reads a JSON document without pause while others replace it, until all are
told to stop.  Prints how often it did, how often it got a whole document, and what it
saw otherwise:

  opens     how often it tried
  whole     how often it read a document, no older than the one before
  ENOENT, ESTALE, ...  how often it got that error
  torn      how often it read something else
  older     how often it read a document that is older than the one before
"""

import collections
import errno
import json
import os
import sys
import time

from common import start_together, stopped

path, reader = sys.argv[1], sys.argv[2]
limit = int(os.environ.get("TIME_LIMIT", "100"))
counts = collections.Counter(opens=0, whole=0)
newest = 0
start_together(reader)
began = time.monotonic()
# Often, but not each time: it is a look into another file system.
while counts["opens"] % 8 or not stopped():
    if time.monotonic() - began > limit:
        raise SystemExit(f"{reader}: not stopped within {limit} seconds")
    counts["opens"] += 1
    try:
        with open(path, encoding="ascii") as file:
            count = json.loads(file.read())["count"]
    except OSError as error:
        counts[errno.errorcode[error.errno]] += 1
    except (ValueError, TypeError, KeyError):
        counts["torn"] += 1
    else:
        counts["older" if count < newest else "whole"] += 1
        newest = count
for word, count in counts.items():
    print(word, count)
