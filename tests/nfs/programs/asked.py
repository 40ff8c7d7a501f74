"""usage: asked.py DIRECTORY

Does what it is told by files in DIRECTORY named 1, 2, 3, ...: each holds a line of
Python.  What came of it, `ok` or the name of the error, is told in 1.answer and so on.
Ends when there is a file `end`, or after two minutes without an order.
"""

import errno
import fcntl  # for the orders
import os
import sys
import time

directory = sys.argv[1]
number = 1
asked = time.monotonic()
while not os.path.exists(f"{directory}/end"):
    try:
        with open(f"{directory}/{number}", encoding="utf-8") as file:
            order = file.read()
    except FileNotFoundError:
        if time.monotonic() > asked + 120:
            raise SystemExit("nobody asks any more")
        time.sleep(0.01)
        continue
    try:
        exec(order)
        answer = "ok"
    except OSError as error:
        answer = errno.errorcode[error.errno]
    with open(f"{directory}/.answer", "w", encoding="utf-8") as file:
        file.write(answer)
    os.rename(f"{directory}/.answer", f"{directory}/{number}.answer")
    number += 1
    asked = time.monotonic()
