"""What the programs that update files share: they attempt a number of updates, one
after another, and tell at their end what has become of them:

  done     numbers of the updates that are done, as far as the program can know
  refused  how many were refused with ESTALE, because another host had been faster
  failed   how many failed otherwise

and on standard error why the first few have failed.  In the directory $BARRIER it says
why it has failed last in a file failed.WRITER, and by recovered.WRITER that it has not
after that.  With $UNTIL_STOPPED a program ends before COUNT when all are told to stop.  One that is not ready after $TIME_LIMIT
seconds (100) gives up with an error.
"""

import json
import os
import signal
import sys
import time
import traceback

from common import start_together, stopped


class Refused(Exception):
    """Somebody else has been faster; nothing was changed."""


class TimeUp(BaseException):
    """No `except Exception` keeps it."""


def attempt(writer, count, update):
    """Calls update(number) `count` times."""
    done, refused, failures, recovered = [], 0, [], False
    seconds = int(os.environ.get("TIME_LIMIT", "100"))
    until_stopped = "UNTIL_STOPPED" in os.environ
    signal.signal(signal.SIGALRM, time_is_up)
    start_together(writer)
    # Again and again: the first may come where python cannot raise.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    late = False
    try:
        for number in range(count):
            if until_stopped and stopped():
                break
            began = time.monotonic()
            try:
                update(number)
                done.append(number)
                if failures and not recovered:
                    recovered = True
                    tell("recovered", writer, "")
            except Refused:
                refused += 1
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1].line
                took = time.monotonic() - began
                failures.append(f"update {number}: {type(error).__name__}: {error}: {where} ({took:.1f} s)")
                tell("failed", writer, failures[-1])
                # What has failed at once will fail again.
                time.sleep(0.05)
    except TimeUp:
        late = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    print("done", ",".join(map(str, done)))
    print("refused", refused)
    print("failed", len(failures))
    for failure in failures[:5]:
        print(f"{writer}: {failure}", file=sys.stderr)
    if late:
        raise SystemExit(f"{writer}: not ready after {seconds} seconds")


def tell(what, writer, words):
    barrier = os.environ.get("BARRIER")
    if barrier:
        with open(f"{barrier}/{what}.{writer}", "w", encoding="utf-8") as file:
            file.write(words)


def time_is_up(_signal, _frame):
    raise TimeUp


def name_of(writer, number):
    """What an update leaves in the file."""
    return f"{writer}.{number}"


def padding_of(number):
    """What makes a record longer than its name: up to 3 KB."""
    return "x" * (number * 397 % 3000)


def with_one_more(text, name):
    """The JSON document with one more entry, and its count one higher."""
    document = json.loads(text)
    document["count"] += 1
    document["done"].append(name)
    return json.dumps(document)
