"""usage: count.py FILE WRITER COUNT

Adds one to the number in FILE, COUNT times, in place: opens it for reading and
writing, reads, seeks back, writes, closes.
"""

import sys

from attempts import attempt

path, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def update(_number):
    with open(path, "r+", encoding="ascii") as file:
        value = int(file.read())
        file.seek(0)
        file.write(f"{value + 1}\n")


attempt(writer, count, update)
