"""usage: within-a-tick.py replace|watch FILE MEETING ROUNDS

Puts two files in the place of FILE, one right after the other, ROUNDS times (`replace`);
who looks at FILE all the time (`watch`) must then find the second.  The two meet in the
directory MEETING.  Files that were replaced stay, under other names.
"""

import os
import sys
import time

role, file, meeting, rounds = sys.argv[1:]


def said(what):
    return os.path.exists(f"{meeting}/{what}")


def say(what):
    open(f"{meeting}/{what}", "w").close()


def replace(number):
    texts = [f"{number}.1", f"{number}.2"]
    for text in texts:
        with open(f"{file}.{text}", "w") as new:
            new.write(text)
        os.link(f"{file}.{text}", f"{file}.new.{text}")
    for text in texts:
        os.rename(f"{file}.new.{text}", file)


old = []
for number in range(int(rounds)):
    if role == "replace":
        replace(number)
        # The watcher looks in between, and a while after.
        time.sleep(0.1)
        say(f"{number}.replaced")
        while not said(f"{number}.seen"):
            time.sleep(0.01)
    else:
        while not said(f"{number}.replaced"):
            os.stat(file)
        with open(file) as now:
            text = now.read()
        if text != f"{number}.2":
            old.append(text)
        say(f"{number}.seen")
print(*old)
