"""usage: buffered.py FILE WRITER COUNT

Appends lines through python's own buffer, which cuts them wherever it is full.
"""

import sys

from common import line, start_together

path, writer, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
start_together(writer)
with open(path, "a", encoding="ascii") as out:
    for number in range(count):
        out.write(line(writer, number).decode())
