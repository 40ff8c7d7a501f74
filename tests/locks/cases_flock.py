"""flock(2), and flock(1) of util-linux."""


def case_exclusive_and_shared(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex nb")
    b.do("flock", "ex nb")
    b.do("flock", "sh nb")
    a.do("flock", "sh nb")
    b.do("flock", "sh nb")
    b.do("flock", "ex nb")
    a.do("flock", "un")
    a.do("flock", "un")
    b.do("flock", "ex")
    a.do("flock", "sh nb")


def case_upgrade_that_fails_keeps_nothing(stage):
    a, b, c = stage.actors("a b c")
    a.do("flock", "sh")
    b.do("flock", "sh")
    # Linux gives the shared lock up before it looks for the exclusive one.
    a.do("flock", "ex nb")
    b.do("flock", "ex nb")
    c.do("flock", "sh nb")
    b.do("flock", "un")
    a.do("flock", "ex nb")
    c.do("flock", "sh nb")


def case_descriptors_of_one_process_do_not_share(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "rw")
    a.do("flock", "ex")
    a.do("flock", "g", "ex nb")
    a.do("in_a_thread", "flock", "g", "sh nb")
    a.do("in_a_thread", "flock", "f", "sh nb")
    a.do("flock", "g", "sh nb")
    b.do("flock", "ex nb")


def case_duplicates_are_one(stage):
    a, b = stage.actors("a b")
    a.do("dup", "f", "g")
    a.do("flock", "ex")
    a.do("flock", "g", "ex nb")
    a.do("close", "f")
    b.do("flock", "sh nb")
    a.do("flock", "g", "un")
    b.do("flock", "sh nb")
    a.do("flock", "g", "ex nb")
    a.do("flock", "g", "sh nb")
    a.do("close", "g")
    b.do("flock", "ex nb")


def case_any_descriptor_will_do(stage):
    a, b = stage.actors("a b", opening=None)
    a.do("open", "f", "r")
    b.do("open", "f", "w")
    a.do("flock", "ex nb")
    b.do("flock", "ex nb")
    a.do("flock", "sh nb")
    b.do("flock", "sh nb")
    b.do("flock", "ex nb")
    a.do("flock", "un")
    b.do("flock", "ex nb")


def case_directories_too(stage):
    a, b = stage.actors("a b")
    a.do("opendir", "d")
    b.do("opendir", "d")
    a.do("flock", "d", "ex nb")
    b.do("flock", "d", "ex nb")
    a.do("setlk", "d", "rd", 0, 0)
    a.do("setlk", "d", "wr", 0, 0)
    a.do("close", "d")
    b.do("flock", "d", "ex nb")


def case_renamed_and_removed_files(stage):
    a, b = stage.actors("a b")
    a.do("flock", "ex nb")
    a.do("rename", "one", "new")
    b.do("open", "g", "rw", "new")
    b.do("flock", "g", "ex nb")
    a.do("unlink", "new")
    b.do("flock", "ex nb")
    a.do("flock", "un")
    b.do("flock", "g", "ex nb")
    b.do("flock", "f", "ex nb")


def case_program_without_waiting(stage):
    a, = stage.actors("a")
    a.do("flock", "ex")
    stage.shell("flock -n", 'flock -n "$1" echo in').ends()
    stage.shell("flock -n -E", 'flock -n -E 42 "$1" echo in').ends()
    stage.shell("flock -s -n", 'flock -s -n "$1" echo in').ends()
    a.do("flock", "sh")
    stage.shell("flock -s -n", 'flock -s -n "$1" echo in').ends()
    stage.shell("flock -n", 'flock -n "$1" echo in').ends()
    a.do("flock", "un")
    stage.shell("flock -n", 'flock -n "$1" echo in').ends()


def case_program_that_waits_for_a_while(stage):
    a, = stage.actors("a")
    a.do("flock", "ex")
    stage.shell("flock -w 0.05", 'flock -w 0.05 "$1" echo in').ends()
    stage.shell("flock -s -w 0.05", 'flock -s -w 0.05 "$1" echo in').ends()
    waiting = stage.shell("flock -w 30", 'exec flock -w 30 "$1" echo in')
    waiting.blocks("flock")
    a.do("flock", "sh")
    waiting.blocks("flock")
    a.do("flock", "un")
    waiting.ends()
    a.do("flock", "ex nb")
    waiting = stage.shell("flock", 'exec flock "$1" echo in')
    waiting.blocks("flock")
    a.do("close", "f")
    waiting.ends()


def case_program_on_a_shell_s_descriptor(stage):
    a, = stage.actors("a")
    script = """
        exec 9>>"$1"
        flock -n 9 && flock -n "$1" echo in
        echo $? > "$1.locked"
        read line < "$1.go"
        cat "$1.locked"
    """
    stage.shell("mkfifo", 'mkfifo "$1.go"').ends()
    shell = stage.shell("shell", script)
    stage.appears("one.locked")
    a.do("flock", "sh nb")
    stage.shell("echo", 'echo > "$1.go"').ends()
    shell.ends()
    a.do("flock", "ex nb")
