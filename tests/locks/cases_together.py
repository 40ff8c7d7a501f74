"""flock(2) and fcntl(2) on one file, and many calls of all kinds."""

ACTORS = "a b c"


def case_in_one_process(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    a.do("setlk", "wr", 0, 0)
    a.do("open", "g", "rw")
    a.do("setlk", "g", "wr", 0, 0)
    a.do("flock", "un")
    b.do("setlk", "rd", 0, 0)
    b.do("flock", "ex nb")
    a.do("flock", "sh nb")
    a.do("setlk", "un", 0, 0)
    a.do("flock", "sh nb")
    b.do("setlk", "rd", 0, 0)


def case_in_two_processes(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    b.do("setlk", "wr", 0, 0)
    b.do("getlk", "wr", 0, 0)
    a.do("getlk", "wr", 0, 0)
    a.do("setlk", "rd", 0, 0)
    b.do("flock", "sh nb")
    a.do("flock", "un")
    a.do("setlk", "rd", 0, 0)
    b.do("setlk", "un", 0, 0)
    a.do("setlk", "rd", 0, 0)


def case_flock_and_ofd_on_one_descriptor(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    a.do("ofd_setlk", "wr", 0, 0)
    a.do("flock", "un")
    b.do("ofd_setlk", "rd", 0, 0)
    b.do("flock", "sh nb")
    a.do("ofd_setlk", "un", 0, 0)
    b.do("ofd_setlk", "rd", 0, 0)
    a.do("flock", "ex nb")
    a.do("close", "f")
    b.do("flock", "ex nb")


def case_waiting_for_one_holding_the_other(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    b.do("setlk", "wr", 0, 0)
    b.waits("flock", "sh")
    a.do("getlk", "wr", 0, 0)
    a.do("setlk", "rd", 0, 0)
    a.do("flock", "un")
    b.answers()
    a.waits("setlkw", "rd", 0, 0)
    b.do("flock", "un")
    a.sleeps()
    b.do("setlk", "un", 0, 0)
    a.answers()


def case_two_names_of_one_file(stage):
    a, b = stage.actors("a b")
    a.do("link", "one", "other")
    b.do("open", "g", "rw", "other")
    a.do("setlk", "wr", 0, 10)
    b.do("setlk", "g", "wr", 0, 10)
    b.do("getlk", "g", "wr", 0, 0)
    a.do("flock", "ex")
    b.do("flock", "g", "ex nb")
    b.do("open", "h", "r")
    b.do("setlk", "g", "wr", 10, 10)
    a.do("setlk", "wr", 10, 10)
    # The last process-owned lock ends with any descriptor of the file, whatever its name was.
    b.do("close", "h")
    a.do("setlk", "wr", 10, 10)
    a.do("unlink", "one")
    b.do("setlk", "g", "wr", 0, 10)
    a.do("close", "f")
    b.do("setlk", "g", "wr", 0, 10)
    b.do("flock", "g", "ex nb")


def case_they_bind_nobody_who_does_not_ask(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex")
    a.do("setlk", "wr", 0, 0)
    b.do("write", "f", 10)
    stage.shell("dd", 'dd if=/dev/zero of="$1" bs=200 count=1 status=none && stat -c %s "$1"').ends()
    b.do("setlk", "wr", 0, 0)


class Random:
    """Numbers that look random, the same in each run (Knuth's MMIX constants)."""

    def __init__(self, seed):
        self.value = seed

    def choose(self, *choices):
        """One of the choices."""
        self.value = (self.value * 6364136223846793005 + 1442695040888963407) % 2**64
        return choices[(self.value >> 33) % len(choices)]


def random_steps(stage, seed, kinds):
    """Calls that do not wait, of these kinds, by three processes with two descriptors each."""
    random = Random(seed)
    actors = stage.actors(ACTORS)
    for actor in actors:
        actor.quietly("open", "g", "rw")
    for _ in range(250):
        actor = random.choose(*actors)
        name = random.choose("f", "g")
        kind = random.choose(*kinds)
        start, length = random.choose(*range(12)), random.choose(*range(8))
        if kind == "flock":
            actor.do(kind, name, random.choose("ex nb", "sh nb", "un"))
        elif kind == "reopen":
            actor.do("close", name)
            actor.do("open", name, "rw")
        elif kind == "getlk":
            actor.asks(kind, name, random.choose("rd", "wr"), start, length)
        else:
            actor.do(kind, name, random.choose("rd", "wr", "un", "un"), start, length)


def case_random_steps_with_fcntl(stage):
    random_steps(stage, 1, ["setlk"] * 6 + ["getlk"] * 3 + ["reopen"])


def case_random_steps_with_flock(stage):
    random_steps(stage, 2, ["flock"] * 8 + ["reopen"])


def case_random_steps_with_everything(stage):
    random_steps(stage, 3, ["setlk", "ofd_setlk", "flock", "getlk"] * 4 + ["reopen"])
