"""usage: watch.py FILE SIZE TOTAL

Reads a file again and again while blocks of SIZE bytes are appended to it, until
it has TOTAL bytes.  Prints how often it looked, and how often it saw

  size        a size that is not a whole number of blocks
  settled     the same size both before and after it read the contents
  content     bytes that are not those of a record, from its beginning on
"""

import os
import sys
import time

from common import HEADER, record

LARGEST_HEADER = 40


def begins_record(data):
    header = HEADER.match(data)
    if not header:
        return False
    whole = record(header[1].decode(), int(header[2]), int(header[3]))
    return whole.startswith(data)


path, block, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
looks = size_faults = settled_faults = content_faults = 0
checked = 0
deadline = time.monotonic() + 120
print("watching", flush=True)
while checked < total:
    if time.monotonic() > deadline:
        raise SystemExit(f"only {checked} of {total} bytes after 120 seconds")
    looks += 1
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        time.sleep(0.005)
        continue
    before = os.fstat(file).st_size
    size_faults += before % block != 0
    # What is new since the last look, and one byte more than there should be.
    data = b""
    while len(data) < before - checked + 1:
        piece = os.pread(file, before - checked + 1 - len(data), checked + len(data))
        if not piece:
            break
        data += piece
    after = os.fstat(file).st_size
    os.close(file)
    settled_faults += before == after and before % block != 0
    whole = len(data) // block
    for n in range(whole):
        found = data[n * block : (n + 1) * block]
        if not begins_record(found):
            content_faults += 1
            break
        checked += block
    rest = data[whole * block :]
    content_faults += len(rest) > LARGEST_HEADER and not begins_record(rest)
    if not whole:
        time.sleep(0.005)
print("looks", looks)
print("size", size_faults)
print("settled", settled_faults)
print("content", content_faults)
