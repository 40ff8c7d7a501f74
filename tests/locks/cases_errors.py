"""Calls that cannot be right."""

MAX = 2**63 - 1


def case_descriptors_that_do_not_allow_it(stage):
    a, b = stage.actors("a b", opening=None)
    a.do("open", "f", "r")
    b.do("open", "f", "w")
    for command in ("setlk", "setlkw", "ofd_setlk", "ofd_setlkw"):
        a.do(command, "wr", 0, 1)
        b.do(command, "rd", 0, 1)
    a.do("getlk", "wr", 0, 1)
    b.do("getlk", "rd", 0, 1)
    a.do("lockf", "tlock", 1)
    a.do("lockf", "test", 1)
    a.do("setlk", "rd", 0, 1)
    b.do("setlk", "wr", 1, 1)
    a.do("setlk", "un", 0, 1)
    b.do("setlk", "un", 1, 1)


def case_descriptors_that_are_none(stage):
    a, = stage.actors("a")
    a.do("open", "p", "path")
    a.do("setlk", "p", "rd", 0, 1)
    a.do("getlk", "p", "rd", 0, 1)
    a.do("flock", "p", "sh nb")
    a.do("close", "f")
    a.do("setlk", "rd", 0, 1)
    a.do("ofd_setlk", "rd", 0, 1)
    a.do("getlk", "rd", 0, 1)
    a.do("flock", "sh nb")
    a.do("lockf", "ulock", 1)


def case_arguments_that_make_no_sense(stage):
    a, = stage.actors("a")
    for command in ("setlk", "setlkw", "getlk", "ofd_setlk", "ofd_getlk"):
        a.do(command, 7, 0, 1)
        a.do(command, "rd", 0, 1, 5)
        a.do(command, "rd", -1, 1)
        a.do(command, "rd", 5, -6)
        a.do(command, "rd", MAX, 2)
        a.do(command, "rd", MAX, 0, "end")
        a.do(command, "rd", -101, 0, "end")
    a.do("getlk", "un", 0, 1)
    for command in ("ofd_setlk", "ofd_setlkw", "ofd_getlk"):
        a.do(command, "rd", 0, 1, "set", 1)
    for operation in (0, 3, 16, 5 | 8, 4):
        a.do("flock", operation)
    a.do("lockf", 9, 1)
    a.do("lockf", "lock", -1)


def case_refused_calls_leave_nothing(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 5, -6)
    a.do("setlk", 7, 0, 0)
    a.do("flock", 3)
    b.do("setlk", "wr", 0, 0)
    b.do("flock", "ex nb")
    a.do("setlk", "wr", 0, 0)
    a.do("flock", "sh nb")
    b.do("setlk", "un", 0, 0)
    b.do("flock", "un")
    a.do("setlk", "wr", 0, 0)
    a.do("flock", "ex nb")
