"""Several processes open the same few files, in all ways at once, and use them.

usage: crowd.py DIRECTORY

Prints what went wrong.
"""

import mmap
import os
import random
import sys

PROCESSES = 6
ROUNDS = 400
FILES = ("a", "b", "c")
WAYS = (
    os.O_RDONLY,
    os.O_RDWR,
    os.O_WRONLY,
    os.O_RDWR | os.O_APPEND,
    os.O_WRONLY | os.O_APPEND,
    os.O_RDWR | os.O_DIRECT,
    os.O_RDWR | os.O_CREAT,
)


def use(name, flags, data):
    descriptor = os.open(name, flags)
    try:
        access = flags & os.O_ACCMODE
        if access != os.O_RDONLY:
            os.pwrite(descriptor, data, 0)
        if access != os.O_WRONLY:
            os.preadv(descriptor, [data], 0)
        if access == os.O_RDWR:
            mmap.mmap(descriptor, 4096).close()
    finally:
        os.close(descriptor)


def crowd(number):
    dice = random.Random(number)
    data = mmap.mmap(-1, 4096)
    if number % 2:
        os.setgid(1000)
        os.setuid(1000)
    for round in range(ROUNDS):
        name, flags = dice.choice(FILES), dice.choice(WAYS)
        try:
            use(name, flags, data)
        except OSError as error:
            print(f"{number} {round} {name} {flags:o}: {error}", flush=True)


def main():
    os.chdir(sys.argv[1])
    for name in FILES:
        with open(name, "wb") as file:
            file.write(b"0" * 8192)
        os.chmod(name, 0o666)
    children = []
    for number in range(PROCESSES):
        pid = os.fork()
        if pid == 0:
            crowd(number)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


main()
