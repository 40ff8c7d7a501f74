"""What the writers of a storm share: each keeps a journal of what it tries.

The journal lies outside of NFS, in the cluster's state directory, which writes
through to the outer machine; so it outlives a power cut of the writer's host.  One
line says one thing, and ends in a point; a line without it was cut off:

  try SEQ SIZE TIME .     about to try number SEQ (SIZE bytes, or 0)
  ok SEQ TIME .           the last call of it has returned, without an error
  failed SEQ ERRNO TIME . it ended with an error
  fault TIME TEXT .       the writer itself has seen something that must not be

A try without an end was cut off together with its writer.
"""

import os
import random
import time

STATE = os.environ["STORM_STATE"]


class Journal:
    def __init__(self, writer):
        self.seq, self.done = 1, set()
        path = f"{STATE}/journal.{writer}"
        self.file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        text = b""
        while piece := os.read(self.file, 1 << 20):
            text += piece
        for line in text.decode().splitlines():
            words = line.split()
            if words[-1:] == ["."] and words[0] == "try":
                self.seq = int(words[1]) + 1
            elif words[-1:] == ["."] and words[0] == "ok":
                self.done.add(int(words[1]))
        if text and not text.endswith(b"\n"):
            os.write(self.file, b"\n")
        # What a writer does next differs from one life of it to the next.
        self.random = random.Random(f"{os.environ.get('STORM_SEED')} {writer} {self.seq}")

    def _say(self, *words):
        os.write(self.file, (" ".join(map(str, words)) + " .\n").encode())

    def begin(self, size=0):
        """Notes that the next number is about to be tried, and gives it."""
        seq, self.seq = self.seq, self.seq + 1
        self._say("try", seq, size, f"{time.time():.3f}")
        return seq

    def ok(self, seq):
        self.done.add(seq)
        self._say("ok", seq, f"{time.time():.3f}")

    def failed(self, seq, error):
        self._say("failed", seq, error.errno, f"{time.time():.3f}")

    def fault(self, text):
        self._say("fault", f"{time.time():.3f}", text)


def work(journal, pace, attempt):
    """Calls attempt() until all are told to stop, with pauses of `pace` ms on average.

    An attempt returns whether it went well.
    """
    while not os.path.exists(f"{STATE}/stop"):
        if not attempt():
            time.sleep(0.1)
        time.sleep(journal.random.uniform(0, 2 * pace / 1000))
