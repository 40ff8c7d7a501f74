"""What becomes of locks at close, dup, fork, exec, exit and kill."""


def case_closing_any_descriptor_ends_those_of_the_process(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "r")
    a.do("setlk", "wr", 0, 10)
    b.do("setlk", "wr", 0, 10)
    a.do("close", "g")
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "un", 0, 10)
    a.do("dup", "f", "h")
    a.do("setlk", "wr", 0, 10)
    b.do("setlk", "wr", 0, 10)
    a.do("close", "h")
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "un", 0, 10)
    a.do("setlk", "wr", 0, 10)
    a.do("open", "i", "r")
    a.do("open", "j", "r", "two")
    a.do("dup2", "j", "i")
    b.do("setlk", "wr", 0, 10)
    a.do("setlk", "wr", 0, 10)


def case_closing_another_file_ends_nothing(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "rw", "two")
    a.do("setlk", "wr", 0, 10)
    a.do("close", "g")
    b.do("setlk", "wr", 0, 10)


def case_closing_in_another_process_ends_nothing(stage):
    a, b, c = stage.actors("a b c")
    a.do("setlk", "wr", 0, 10)
    a.do("flock", "ex")
    b.do("close", "f")
    c.do("setlk", "wr", 0, 10)
    c.do("flock", "ex nb")


def case_closing_another_descriptor_keeps_a_flock(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "rw")
    a.do("flock", "ex")
    a.do("setlk", "wr", 0, 0)
    a.do("close", "g")
    b.do("flock", "sh nb")
    b.do("setlk", "rd", 0, 0)
    a.do("close", "f")
    b.do("flock", "sh nb")


def case_children_own_no_locks_of_the_process(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    child = a.fork("child")
    child.do("getlk", "rd", 0, 10)
    child.do("setlk", "rd", 0, 10)
    child.do("setlk", "un", 0, 10)
    b.do("getlk", "rd", 0, 10)
    child.do("setlk", "wr", 10, 10)
    a.do("getlk", "rd", 0, 0)
    b.do("getlk", "rd", 10, 10)
    child.do("close", "f")
    b.do("getlk", "rd", 0, 0)
    b.do("setlk", "wr", 10, 10)
    a.do("close", "f")
    b.do("setlk", "wr", 0, 10)


def case_child_outlives_its_parent(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    a.do("flock", "ex")
    child = a.fork("child")
    child.do("setlk", "wr", 20, 10)
    a.exits()
    b.do("setlk", "wr", 0, 10)
    b.do("getlk", "wr", 20, 10)
    b.do("flock", "ex nb")
    child.exits()
    b.do("setlk", "wr", 20, 10)
    b.do("flock", "ex nb")


def case_children_share_a_flock(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    child = a.fork("child")
    child.do("flock", "ex nb")
    child.exits()
    b.do("flock", "sh nb")
    child = a.fork("second")
    a.do("close", "f")
    b.do("flock", "sh nb")
    child.do("flock", "sh nb")
    b.do("flock", "sh nb")
    child.do("flock", "un")
    b.do("flock", "ex nb")
    child.do("flock", "sh nb")


def case_child_lets_go_for_its_parent(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    child = a.fork("child")
    b.do("flock", "ex nb")
    child.do("flock", "un")
    b.do("flock", "ex nb")
    a.do("flock", "sh nb")


def case_exec_keeps_what_it_does_not_close(stage):
    a, b, c, d = stage.actors("a b c d")
    a.do("setlk", "wr", 0, 10)
    b.do("open", "f", "rw", "two")
    b.do("flock", "ex")
    a.exec(True)
    b.exec(True)
    c.do("getlk", "wr", 0, 0)
    d.do("open", "f", "rw", "two")
    d.do("flock", "sh nb")
    a.killed()
    c.do("setlk", "wr", 0, 0)
    b.killed()
    d.do("flock", "sh nb")


def case_exec_ends_what_it_closes(stage):
    a, b, c, d = stage.actors("a b c d")
    a.do("setlk", "wr", 0, 10)
    b.do("flock", "ex")
    c.do("setlk", "wr", 0, 0)
    c.do("flock", "ex nb")
    a.exec(False)
    b.exec(False)
    c.do("setlk", "wr", 0, 0)
    d.do("flock", "ex nb")


def case_exit_ends_everything(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    a.do("flock", "ex")
    a.do("open", "g", "rw")
    a.do("ofd_setlk", "g", "wr", 50, 10)
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "wr", 50, 10)
    b.do("flock", "ex nb")
    a.exits()
    b.do("setlk", "wr", 0, 0)
    b.do("flock", "ex nb")


def case_kill_ends_everything(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    a.do("flock", "ex")
    a.do("open", "g", "rw")
    a.do("ofd_setlk", "g", "wr", 50, 10)
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "wr", 50, 10)
    b.do("flock", "ex nb")
    a.killed()
    b.do("setlk", "wr", 0, 0)
    b.do("flock", "ex nb")
