"""Calls that wait: until they get the lock, or a signal, or would wait for ever."""


def case_fcntl_waits_for_an_unlock(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    b.waits("setlkw", "wr", 5, 10)
    a.do("setlk", "un", 0, 5)
    b.sleeps()
    a.do("setlk", "un", 0, 10)
    b.answers()
    a.do("getlk", "wr", 0, 0)
    a.waits("lockf", "lock", 0)
    b.do("setlk", "un", 0, 0)
    a.answers()


def case_flock_waits_for_an_unlock(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    b.waits("flock", "sh")
    a.do("flock", "sh")
    b.answers()
    a.waits("flock", "ex")
    b.do("flock", "un")
    a.answers()


def case_all_readers_are_let_in_together(stage):
    a, b, c, d = stage.actors("a b c d")
    a.do("setlk", "wr", 0, 0)
    b.waits("setlkw", "rd", 0, 10)
    c.waits("setlkw", "rd", 5, 10)
    d.waits("setlkw", "wr", 100, 10)
    a.do("setlk", "un", 0, 0)
    b.answers()
    c.answers()
    d.answers()


def case_upgrade_waits_for_the_other_reader(stage):
    a, b, c = stage.actors("a b c")
    a.do("setlk", "rd", 0, 10)
    b.do("setlk", "rd", 0, 10)
    a.waits("setlkw", "wr", 0, 10)
    # The reader that waits still has its shared lock.
    c.do("setlk", "wr", 0, 10)
    c.do("setlk", "rd", 0, 10)
    c.do("setlk", "un", 0, 10)
    b.do("setlk", "un", 0, 10)
    a.answers()
    c.do("setlk", "rd", 0, 10)


def case_wait_ends_when_the_holder_does(stage):
    a, b, c, d = stage.actors("a b c d")
    a.do("setlk", "wr", 0, 0)
    a.do("flock", "ex")
    b.waits("setlkw", "rd", 0, 0)
    c.waits("flock", "ex")
    a.killed()
    b.answers()
    c.answers()
    d.waits("flock", "sh")
    c.exits()
    d.answers()


def case_wait_ends_when_the_holder_closes(stage):
    a, b, c = stage.actors("a b c")
    a.do("setlk", "wr", 0, 0)
    a.do("open", "g", "rw")
    a.do("flock", "g", "ex")
    b.waits("setlkw", "rd", 0, 0)
    c.waits("flock", "ex")
    a.do("close", "g")
    b.answers()
    c.answers()


def case_killed_waiter_gets_nothing(stage):
    a, b, c, d = stage.actors("a b c d")
    a.do("setlk", "wr", 0, 0)
    a.do("flock", "ex")
    b.waits("setlkw", "wr", 0, 0)
    c.waits("flock", "ex")
    b.killed()
    c.killed()
    a.do("setlk", "un", 0, 0)
    a.do("flock", "un")
    d.do("setlk", "wr", 0, 0)
    d.do("flock", "ex nb")


def case_fcntl_ends_by_a_signal(stage):
    a, b, c = stage.actors("a b c")
    b.do("handle", "interrupt")
    a.do("setlk", "wr", 0, 10)
    b.waits("setlkw", "wr", 0, 10)
    b.signal()
    b.answers()
    b.do("handled")
    a.do("setlk", "un", 0, 0)
    c.do("setlk", "wr", 0, 10)
    b.waits("ofd_setlkw", "wr", 0, 10)
    b.signal()
    b.answers()
    c.do("setlk", "un", 0, 10)
    a.do("setlk", "wr", 0, 10)


def case_flock_ends_by_a_signal(stage):
    a, b, c = stage.actors("a b c")
    b.do("handle", "interrupt")
    a.do("flock", "ex")
    b.waits("flock", "sh")
    b.signal()
    b.answers()
    b.do("handled")
    a.do("flock", "un")
    c.do("flock", "ex nb")


def case_wait_goes_on_after_a_signal(stage):
    a, b, c = stage.actors("a b c")
    b.do("handle", "restart")
    c.do("handle", "restart")
    a.do("setlk", "wr", 0, 10)
    a.do("flock", "ex")
    b.waits("setlkw", "wr", 0, 10)
    c.waits("flock", "ex")
    b.signal()
    c.signal()
    b.sleeps()
    c.sleeps()
    a.do("setlk", "un", 0, 10)
    b.answers()
    a.do("flock", "un")
    c.answers()
    b.do("handled")
    c.do("handled")


def case_ignored_signals_do_not_count(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    b.waits("setlkw", "wr", 0, 10)
    # SIGCHLD, for which b has no handler.
    b.signal(17)
    b.sleeps()
    a.do("setlk", "un", 0, 10)
    b.answers()


def case_alarms_end_a_wait(stage):
    a, b = stage.actors("a b")
    b.do("handle", "interrupt")
    a.do("setlk", "wr", 0, 10)
    a.do("flock", "ex")
    b.do("alarms", 0.02)
    b.do("setlkw", "rd", 0, 10)
    b.do("flock", "ex")
    b.do("alarms", 0)
    b.do("handled")
    b.waits("setlkw", "rd", 0, 10)
    a.do("setlk", "un", 0, 10)
    b.answers()


def case_two_that_wait_for_each_other(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 1)
    b.do("setlk", "wr", 1, 1)
    b.do("setlk", "wr", 0, 1)
    a.waits("setlkw", "wr", 1, 1)
    b.do("setlk", "wr", 0, 1)
    b.do("setlkw", "wr", 0, 1)
    b.do("setlkw", "rd", 0, 0)
    a.sleeps()
    # The refused call has taken nothing away.
    b.do("setlk", "un", 1, 1)
    a.answers()
    b.waits("setlkw", "wr", 0, 1)
    a.do("setlk", "un", 0, 0)
    b.answers()


def case_two_readers_that_upgrade(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "rd", 0, 10)
    b.do("setlk", "rd", 0, 10)
    a.waits("setlkw", "wr", 0, 10)
    b.do("setlkw", "wr", 0, 10)
    b.do("setlk", "un", 0, 10)
    a.answers()


def case_three_in_two_files_that_wait_for_each_other(stage):
    a, b, c = stage.actors("a b c")
    for actor in (a, b, c):
        actor.do("open", "g", "rw", "two")
    a.do("setlk", "wr", 0, 1)
    b.do("setlk", "wr", 1, 1)
    c.do("setlk", "g", "wr", 0, 1)
    a.waits("setlkw", "wr", 1, 1)
    b.waits("setlkw", "g", "wr", 0, 1)
    c.do("setlkw", "wr", 0, 1)
    c.do("close", "g")
    b.answers()
    b.do("setlk", "un", 0, 0)
    a.answers()


def case_wait_that_was_interrupted_does_not_count(stage):
    a, b = stage.actors("a b")
    a.do("handle", "interrupt")
    a.do("setlk", "wr", 0, 1)
    b.do("setlk", "wr", 1, 1)
    a.waits("setlkw", "wr", 1, 1)
    a.signal()
    a.answers()
    b.waits("setlkw", "wr", 0, 1)
    a.do("setlk", "un", 0, 1)
    b.answers()


def case_flocks_that_wait_for_each_other_are_not_found(stage):
    a, b = stage.actors("a b")
    for actor in (a, b):
        actor.do("open", "g", "rw", "two")
    a.do("flock", "f", "ex")
    b.do("flock", "g", "ex")
    a.waits("flock", "g", "ex")
    b.waits("flock", "f", "ex")
    a.killed()
    b.answers()


def case_only_one_at_a_time(stage):
    for how in ("setlkw", "flock", "ofd_setlkw"):
        actors = stage.actors("a b c")
        for actor in actors:
            actor.send(["exclude", how, 15])
            actor.pending = f"exclude {how}"
        for actor in actors:
            # It may end at any time, so it cannot be too early.
            stage.told = 0
            actor.answers()
        for actor in actors:
            actor.killed()
