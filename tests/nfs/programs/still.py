"""Tells when a program waits: it has used no processor for half a second.

As a program: still.py WORD, waits until all programs with that word on their
command lines are still (at least one).
"""

import os
import sys
import time


def used(process):
    with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(process)
    return int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])


def wait_until_still(processes):
    """Returns when the processes, given by a function, have been still."""
    deadline = time.monotonic() + 30
    since, before = time.monotonic(), None
    while time.monotonic() < deadline:
        now = {process: used(process) for process in processes()}
        if not now or now != before:
            since, before = time.monotonic(), now
        if time.monotonic() - since > 0.5:
            return
        time.sleep(0.05)
    raise SystemExit("not still within 30 seconds")


def with_word(word):
    found = []
    for process in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word.encode() in words and int(process) != os.getpid():
            found.append(int(process))
    return found


if __name__ == "__main__":
    wait_until_still(lambda: with_word(sys.argv[1]))
