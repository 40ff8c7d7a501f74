"""Locks a file in every way that programs do, and prints what each of them is told.

    conformance.py DIR                  every case, each with fresh files in DIR
    conformance.py DIR --without-locks  the same, but all calls that lock are left out and taken
                                        to have succeeded: what no file system may print

The transcript names nothing that differs from one run to another (no process ids, no times), so
runs on two directories that behave alike print the same text. Each case starts with a line
`== NAME`. A line says who called what, and what came of it: the result, the name of the errno, or
`blocks`.

`actors.py` has the processes that make the calls, the cases are in `cases_*.py`.
"""

import os
import sys
import traceback

import actors
import cases_errors
import cases_fcntl
import cases_flock
import cases_lifetime
import cases_ofd
import cases_together
import cases_waiting

MODULES = [
    cases_fcntl,
    cases_flock,
    cases_ofd,
    cases_errors,
    cases_lifetime,
    cases_waiting,
    cases_together,
]


def main():
    """Runs all cases."""
    if sys.argv[2:] not in ([], ["--without-locks"]):
        sys.exit(__doc__)
    actors.LOCKS = not sys.argv[2:]
    number = 0
    for module in MODULES:
        for name, case in vars(module).items():
            if not name.startswith("case_"):
                continue
            number += 1
            group = module.__name__.removeprefix("cases_")
            print("==", group, name.removeprefix("case_"))
            place = os.path.join(sys.argv[1], f"case{number}")
            os.mkdir(place)
            stage = actors.Stage(place)
            try:
                case(stage)
            except Exception:
                print("  CASE BROKE")
                traceback.print_exc()
            finally:
                stage.clear()
            sys.stdout.flush()


if __name__ == "__main__":
    main()
