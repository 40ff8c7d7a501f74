"""fcntl(2) and lockf(3): ranges, conversion, splits and merges, and what F_GETLK answers."""

MAX = 2**63 - 1


def case_exclusive_and_shared(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "rd", 0, 10)
    b.do("getlk", "rd", 0, 10)
    a.do("setlk", "rd", 0, 10)
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "rd", 0, 10)
    b.do("getlk", "rd", 0, 10)
    b.do("getlk", "wr", 0, 10)
    a.do("setlk", "un", 0, 10)
    b.do("setlk", "wr", 0, 10)
    a.do("setlk", "rd", 0, 10)
    # To unlock what one does not hold is no error.
    a.do("setlk", "un", 0, 10)
    a.do("setlk", "rd", 0, 10)


def case_ranges_that_overlap_and_touch(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 10, 10)
    b.do("setlk", "wr", 0, 10)
    b.do("setlk", "wr", 20, 10)
    b.do("setlk", "wr", 0, 11)
    b.do("setlk", "rd", 19, 1)
    b.do("setlk", "rd", 12, 2)
    b.do("setlk", "rd", 5, 1000)
    b.do("getlk", "rd", 15, 1)
    b.do("getlk", "rd", 0, 10)
    a.do("getlk", "wr", 0, 0)
    a.do("setlk", "wr", 9, 2)
    b.do("setlk", "un", 9, 1)
    a.do("setlk", "wr", 9, 2)


def case_length_zero_reaches_to_the_end_of_all_numbers(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 1000, 0)
    b.do("setlk", "wr", 0, 1000)
    b.do("setlk", "wr", MAX, 1)
    b.do("setlk", "wr", MAX - 1, 0)
    b.do("getlk", "wr", 0, 0)
    a.do("setlk", "un", 2000, 0)
    b.do("setlk", "wr", 2000, 0)
    b.do("getlk", "wr", 1999, 1)
    a.do("getlk", "wr", 0, 0)
    a.do("setlk", "un", 0, 0)
    b.do("setlk", "un", 0, 0)
    a.do("setlk", "wr", MAX, 1)
    b.do("getlk", "wr", 0, 0)
    b.do("setlk", "wr", 0, MAX)
    a.do("getlk", "wr", 0, 0)


def case_negative_length_counts_backwards(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 50, -10)
    b.do("getlk", "wr", 0, 0)
    b.do("setlk", "wr", 39, 1)
    b.do("setlk", "wr", 40, 1)
    b.do("setlk", "wr", 49, 1)
    b.do("setlk", "wr", 50, 1)
    b.do("getlk", "wr", 100, -51)
    a.do("setlk", "wr", 5, -6)


def case_whence(stage):
    a, b = stage.actors("a b")
    a.do("seek", "f", 30)
    a.do("setlk", "wr", -5, 10, "cur")
    b.do("getlk", "wr", 0, 0)
    # The file has 100 bytes.
    a.do("setlk", "wr", -10, 10, "end")
    b.do("getlk", "wr", 40, 0)
    b.do("getlk", "wr", 10, 0, "end")
    a.do("setlk", "wr", 0, 0, "end")
    b.do("getlk", "wr", 1000, 1)
    b.do("seek", "f", 20)
    b.do("setlk", "wr", 5, 1, "cur")
    b.do("setlk", "wr", 4, 1, "cur")
    b.do("getlk", "wr", 0, 10, "cur")
    b.do("setlk", "wr", 0, -11, "end")
    b.do("setlk", "wr", -31, 1, "cur")
    b.do("setlk", "wr", -101, 1, "end")
    a.do("write", "f", 3)
    a.do("setlk", "un", 0, 0, "cur")
    b.do("getlk", "wr", 33, 0)
    b.do("getlk", "wr", 0, 33)


def case_end_of_a_file_that_grew(stage):
    a, b = stage.actors("a b")
    b.do("seek", "f", 100)
    b.do("write", "f", 50)
    a.do("setlk", "wr", 0, 1, "end")
    b.do("getlk", "wr", 0, 0)


def case_unlock_in_the_middle(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 100)
    a.do("setlk", "un", 40, 20)
    b.do("setlk", "wr", 40, 20)
    b.do("setlk", "wr", 39, 1)
    b.do("setlk", "wr", 60, 1)
    b.do("getlk", "wr", 0, 0)
    b.do("getlk", "wr", 40, 0)
    a.do("getlk", "wr", 0, 0)
    a.do("setlk", "wr", 0, 100)
    b.do("setlk", "un", 45, 5)
    a.do("getlk", "wr", 0, 0)
    a.do("getlk", "wr", 45, 0)


def case_merging(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    a.do("setlk", "wr", 20, 10)
    b.do("getlk", "wr", 0, 0)
    a.do("setlk", "wr", 10, 10)
    b.do("getlk", "wr", 25, 1)
    a.do("setlk", "rd", 30, 10)
    b.do("getlk", "wr", 25, 100)
    b.do("getlk", "wr", 30, 100)
    a.do("setlk", "rd", 5, 30)
    b.do("getlk", "wr", 0, 0)
    b.do("getlk", "wr", 6, 0)
    a.do("setlk", "un", 0, 5)
    b.do("getlk", "wr", 0, 0)


def case_converting_a_part(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "rd", 0, 100)
    b.do("setlk", "rd", 50, 10)
    a.do("setlk", "wr", 0, 100)
    # What could not be had has changed nothing.
    b.do("setlk", "rd", 0, 100)
    b.do("setlk", "un", 0, 50)
    a.do("setlk", "wr", 20, 10)
    b.do("setlk", "rd", 15, 5)
    b.do("setlk", "rd", 20, 1)
    b.do("getlk", "rd", 0, 0)
    b.do("getlk", "wr", 0, 20)
    a.do("setlk", "rd", 25, 10)
    b.do("getlk", "rd", 0, 0)
    b.do("setlk", "rd", 25, 10)
    a.do("setlk", "wr", 20, 10)
    a.do("setlk", "un", 0, 0)
    b.do("setlk", "wr", 0, 0)


def case_which_lock_is_answered(stage):
    a, b, c, d = stage.actors("a b c d")
    a.do("setlk", "wr", 200, 10)
    b.do("setlk", "rd", 0, 10)
    a.do("setlk", "wr", 100, 10)
    c.do("setlk", "rd", 5, 10)
    d.do("getlk", "wr", 0, 0)
    d.do("getlk", "rd", 0, 0)
    d.do("getlk", "wr", 7, 1)
    d.do("getlk", "wr", 10, 10)
    b.do("setlk", "un", 0, 10)
    b.do("setlk", "rd", 0, 10)
    d.do("getlk", "wr", 7, 1)
    a.do("setlk", "un", 0, 0)
    a.do("setlk", "rd", 0, 20)
    d.do("getlk", "wr", 7, 1)


def case_lockf(stage):
    a, b = stage.actors("a b")
    a.do("seek", "f", 10)
    a.do("lockf", "lock", 10)
    b.do("getlk", "rd", 0, 0)
    b.do("seek", "f", 15)
    b.do("lockf", "tlock", 1)
    b.do("lockf", "test", 1)
    b.do("lockf", "test", -5)
    b.do("lockf", "tlock", -6)
    b.do("lockf", "test", -15)
    a.do("lockf", "test", 10)
    a.do("lockf", "ulock", 0)
    b.do("lockf", "test", 0)
    b.do("lockf", "tlock", 0)
    a.do("lockf", "tlock", 6)
    a.do("lockf", "tlock", 5)


def case_descriptors_of_one_process_share(stage):
    a, b = stage.actors("a b")
    a.do("open", "g", "rw")
    a.do("setlk", "wr", 0, 10)
    a.do("setlk", "g", "wr", 5, 10)
    a.do("getlk", "g", "wr", 0, 0)
    b.do("getlk", "wr", 0, 0)
    a.do("setlk", "g", "un", 0, 12)
    b.do("getlk", "wr", 0, 0)
    a.do("in_a_thread", "setlk", "wr", 0, 100)
    a.do("in_a_thread", "getlk", "wr", 0, 100)
    b.do("setlk", "rd", 50, 1)


def case_descriptors_for_reading_and_for_writing(stage):
    a, b = stage.actors("a b", opening=None)
    for first, second in (("r", "w"), ("w", "r"), ("r", "rw"), ("w", "rw")):
        for descriptor in (first, second):
            a.do("open", f"{first}{second}.{descriptor}", descriptor)
        b.do("open", f"{first}{second}", "rw")
    kinds = {"r": "rd", "w": "wr", "rw": "wr"}
    for first, second in (("r", "w"), ("w", "r"), ("r", "rw"), ("w", "rw")):
        for descriptor in (first, second):
            a.do("setlk", f"{first}{second}.{descriptor}", kinds[descriptor], 0, 10)
            b.do("getlk", f"{first}{second}", "wr", 0, 0)
        a.do("setlk", f"{first}{second}.{first}", "un", 0, 10)
        b.do("getlk", f"{first}{second}", "wr", 0, 0)


def case_renamed_and_removed_files(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 10)
    a.do("rename", "one", "new")
    b.do("open", "g", "rw", "new")
    b.do("setlk", "g", "wr", 0, 10)
    a.do("rename", "two", "new")
    b.do("getlk", "g", "wr", 0, 10)
    b.do("open", "h", "rw", "new")
    b.do("setlk", "h", "wr", 0, 10)
    b.do("setlk", "g", "wr", 0, 20)
    a.do("setlk", "un", 0, 10)
    b.do("setlk", "g", "wr", 0, 10)
    a.do("setlk", "wr", 0, 10)


def case_files_do_not_share(stage):
    a, b = stage.actors("a b")
    a.do("setlk", "wr", 0, 0)
    b.do("open", "g", "rw", "two")
    b.do("setlk", "g", "wr", 0, 0)
    b.do("setlk", "wr", 0, 0)
    a.do("open", "g", "rw", "two")
    a.do("setlk", "g", "wr", 0, 0)


def case_many_ranges(stage):
    a, b = stage.actors("a b")
    for start in range(0, 200, 2):
        a.quietly("setlk", "wr", start, 1)
    for start in range(1, 200, 2):
        b.quietly("setlk", "rd", start, 1)
    b.do("setlk", "rd", 0, 2)
    b.do("getlk", "rd", 99, 5)
    a.do("getlk", "wr", 100, 5)
    a.do("setlk", "wr", 0, 200)
    b.do("setlk", "un", 0, 0)
    a.do("setlk", "wr", 0, 200)
    b.do("getlk", "rd", 101, 1)
