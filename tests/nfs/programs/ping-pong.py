"""usage: ping-pong.py FILE WRITER COUNT [OTHER]

Two of these, on two hosts, append to one file in turns and tell each other over
a TCP connection.  Whoever hears that the other's write() has returned must see
all of it at once: by stat, by open and read, and through a descriptor that was
open before.  With OTHER, a host name, this one calls; without, it listens.
"""

import os
import socket
import sys
import time

from common import append, line

PORT = 7007


def connect(other):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((other, PORT), timeout=30)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def accept():
    with socket.create_server(("", PORT)) as listener:
        listener.settimeout(30)
        connection, _ = listener.accept()
        connection.settimeout(30)
        return connection


def main():
    path, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    connection = connect(sys.argv[4]) if len(sys.argv) > 4 else accept()
    messages = connection.makefile("rw", encoding="ascii")
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    held = os.open(path, os.O_RDONLY)
    total = 0
    serving = len(sys.argv) > 4
    for number in range(count):
        if not serving:
            total = hear(messages, path, held, total)
        data = line(writer, number)
        append(out, data)
        total += len(data)
        expect(path, held, total, data, "one's own")
        messages.write(f"{total} {data.decode()}")
        messages.flush()
        if serving:
            total = hear(messages, path, held, total)


def hear(messages, path, held, before):
    text = messages.readline()
    if not text:
        raise SystemExit("the other side has ended")
    total, data = text.split(" ", 1)
    data = data.encode()
    if int(total) != before + len(data):
        raise SystemExit(f"the other had a file of {total} after {before} + {len(data)}")
    expect(path, held, int(total), data, "the other's")
    return int(total)


def expect(path, held, total, data, whose):
    size = os.stat(path).st_size
    if size != total:
        raise SystemExit(f"stat: {size} bytes, not {total}, after {whose} write")
    with open(path, "rb") as file:
        file.seek(total - len(data))
        text = file.read()
    if text != data:
        raise SystemExit(f"open and read: {text!r}, not {data!r}, after {whose} write")
    if os.fstat(held).st_size != total:
        raise SystemExit(f"fstat of an old descriptor: stale after {whose} write")
    if os.lseek(held, 0, os.SEEK_END) != total:
        raise SystemExit(f"lseek of an old descriptor: stale after {whose} write")
    text = os.pread(held, 1000, total - len(data))
    if text != data:
        raise SystemExit(f"read of an old descriptor: {text!r} after {whose} write")


main()
