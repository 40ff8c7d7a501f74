"""Locks of open file descriptions: F_OFD_SETLK and its like."""


def case_between_processes(stage):
    a, b = stage.actors("a b")
    a.do("ofd_setlk", "wr", 10, 10)
    b.do("ofd_setlk", "rd", 15, 10)
    b.do("ofd_setlk", "rd", 20, 10)
    a.do("ofd_setlk", "wr", 0, 0)
    a.do("ofd_setlk", "rd", 10, 10)
    b.do("ofd_setlk", "rd", 10, 10)
    b.asks("ofd_getlk", "rd", 0, 0)
    b.asks("ofd_getlk", "wr", 0, 0)
    a.do("ofd_setlk", "un", 12, 3)
    b.do("ofd_setlk", "wr", 12, 3)
    b.asks("ofd_getlk", "wr", 12, 0)
    a.asks("ofd_getlk", "rd", 0, 0)


def case_descriptors_of_one_process(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "rw")
    a.do("ofd_setlk", "wr", 0, 10)
    a.do("ofd_setlk", "g", "wr", 5, 10)
    a.asks("ofd_getlk", "g", "wr", 0, 0)
    a.do("ofd_setlk", "g", "wr", 10, 10)
    b.do("ofd_setlk", "rd", 0, 20)
    a.do("close", "g")
    b.do("ofd_setlk", "rd", 10, 10)
    b.do("ofd_setlk", "rd", 0, 10)
    a.do("dup", "f", "h")
    a.do("close", "f")
    b.do("ofd_setlk", "rd", 0, 10)
    a.do("ofd_setlk", "h", "un", 0, 0)
    b.do("ofd_setlk", "rd", 0, 10)


def case_together_with_those_of_processes(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    b.do("ofd_setlk", "wr", 0, 10)
    b.asks("ofd_getlk", "wr", 0, 10)
    # They are in each other's way within a process, too, even on one descriptor.
    a.do("ofd_setlk", "wr", 0, 10)
    b.do("ofd_setlk", "wr", 10, 10)
    a.do("setlk", "rd", 10, 10)
    a.asks("getlk", "rd", 10, 10)
    a.do("setlk", "un", 0, 0)
    a.do("ofd_setlk", "wr", 0, 10)
    a.do("setlk", "rd", 0, 10)
    a.do("ofd_setlk", "un", 0, 10)
    a.do("setlk", "rd", 0, 10)
    b.do("ofd_setlk", "rd", 0, 10)


def case_closing_another_descriptor_keeps_them(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "rw")
    a.do("ofd_setlk", "wr", 0, 10)
    a.do("setlk", "wr", 20, 10)
    a.do("close", "g")
    b.do("ofd_setlk", "rd", 0, 10)
    b.do("setlk", "rd", 20, 10)
    a.do("close", "f")
    b.do("ofd_setlk", "rd", 0, 10)


def case_children_share_them(stage):
    a, b = stage.actors("a b")
    a.do("ofd_setlk", "wr", 0, 10)
    child = a.fork("child")
    child.do("ofd_setlk", "wr", 0, 20)
    b.do("ofd_setlk", "rd", 10, 1)
    a.do("close", "f")
    b.do("ofd_setlk", "rd", 10, 1)
    child.do("ofd_setlk", "un", 10, 10)
    b.do("ofd_setlk", "rd", 10, 1)
    b.do("ofd_setlk", "rd", 0, 1)
    child.exits()
    b.do("ofd_setlk", "wr", 0, 0)


def case_waiting(stage):
    a, b, c = stage.actors("a b c")
    a.do("ofd_setlk", "wr", 0, 10)
    b.waits("ofd_setlkw", "rd", 5, 10)
    c.waits("ofd_setlkw", "rd", 0, 1)
    a.do("ofd_setlk", "rd", 5, 5)
    b.answers()
    c.sleeps()
    a.do("close", "f")
    c.answers()
    a.do("open", "f", "rw")
    a.waits("ofd_setlkw", "wr", 0, 0)
    b.do("ofd_setlk", "un", 0, 0)
    a.sleeps()
    c.killed()
    a.answers()


def case_waiting_for_each_other_is_not_found(stage):
    a, b = stage.actors("a b")
    a.do("ofd_setlk", "wr", 0, 1)
    b.do("ofd_setlk", "wr", 1, 1)
    a.waits("ofd_setlkw", "wr", 1, 1)
    b.waits("ofd_setlkw", "wr", 0, 1)
    a.killed()
    b.answers()
