"""Tests of the arithmetic, on figures that can be reckoned by hand."""

import math
import unittest

import report
from arithmetic import Run, jain, per_round, ratios, spread
from targets import targets


def run(hosts, writers, method, counts, number=0, vers="4.2", **more):
    """A run of 2 seconds; counts: records of each writer, of which one was late."""
    made = Run(hosts, writers, method, number, vers, 2.0)
    for i, count in enumerate(counts):
        host, writer = divmod(i, writers)
        made.add(f"writer host{host + 1}.{writer + 1} {count} {count - 1} 2.5 0.{i + 1}".split())
    reported = sum(counts)
    made.add(["check", f"reported={reported}", f"kept={reported}", *more.pop("check", ())])
    for kind, value in more.items():
        made.add([kind, *str(value).split()])
    return made


class Arithmetic(unittest.TestCase):
    def test_jain(self):
        self.assertEqual(jain([5, 5, 5, 5]), 1)
        self.assertEqual(jain([8, 0, 0, 0]), 0.25)
        self.assertAlmostEqual(jain([1, 3]), 0.8)
        self.assertIsNone(jain([7]))
        self.assertIsNone(jain([0, 0]))

    def test_spread(self):
        self.assertEqual(spread([3, None, 1, 8]), {"median": 3, "least": 1, "most": 8})
        self.assertEqual(spread([2, 4])["median"], 3)
        self.assertIsNone(spread([None]))

    def test_what_came_in_time_counts(self):
        made = run(2, 2, "write-open", [11, 21, 31, 41])
        self.assertEqual((made.rate(), made.slowest()), (100 / 2, 10 / 2))

    def test_what_is_acknowledged_at_the_end_counts_until_then(self):
        self.assertEqual(run(2, 2, "close-held", [10, 20, 30, 40]).rate(), 100 / 2.5)

    def test_hosts_and_turns(self):
        made = run(2, 2, "write-open", [11, 21, 31, 41], turns=5, rpc="WRITE 52")
        made.add(["turns", "10"])
        made.add(["rpc", "LINK", "104"])
        self.assertEqual(made.by_host(), [30, 70])
        self.assertEqual((made.turn(), made.longest()), (0.25, 0.4))
        self.assertEqual(made.calls(), 1.5)

    def test_ratios_are_of_the_same_round(self):
        runs = [run(1, 1, "a", [5], 0), run(1, 1, "a", [9], 1), run(1, 1, "b", [3], 1)]
        self.assertEqual(ratios(per_round(runs, "a"), per_round(runs, "b")), [4])
        self.assertEqual(ratios({0: 1.0, 1: 0.0}, {0: 0.0, 1: 0.0}), [math.inf])

    def test_who_must_keep_all(self):
        lossy = {"check": ("lost=1",)}
        self.assertTrue(run(2, 1, "tcp", [3, 3], **lossy).faults())
        self.assertTrue(run(2, 1, "fcntl-open", [3, 3], **lossy).faults())
        self.assertTrue(run(1, 2, "fcntl-open", [3, 3], vers="3", **lossy).faults())
        self.assertFalse(run(2, 1, "fcntl-open", [3, 3], vers="3", **lossy).faults())
        self.assertFalse(run(2, 1, "plain-held", [3, 3], **lossy).faults())
        self.assertTrue(run(2, 1, "write-open", []).faults(), "nothing was appended")
        self.assertTrue(run(2, 1, "plain-open", [3, 3], error="it broke").faults())

    def test_targets(self):
        runs = [
            run(2, 2, "write-open", [31, 31, 31, 31]),
            run(2, 2, "fcntl-open", [11, 11, 11, 11]),
            run(2, 2, "plain-open", [41, 41, 41, 41]),
            run(8, 1, "write-open", [3] * 8, turns=20),
            run(1, 8, "write-open", [4] * 8),
        ]
        found = {each["what"]: each for each in targets(runs, 1)}
        self.assertTrue(found["2 hosts x 2, write-open / fcntl-open"]["met"])
        self.assertFalse(found["2 hosts x 2, write-open / plain-open"]["met"])
        self.assertIsNone(found["2 hosts x 2, write-open / liblockfile"]["met"])
        self.assertFalse(found["write-open: 8 hosts x 1 / 1 x 8"]["met"])
        self.assertTrue(found["dotlockfs, all runs: lost, torn or doubled"]["met"])

    def test_a_doubled_record_misses_the_first_target(self):
        found = targets([run(2, 2, "write-open", [1] * 4), run(2, 2, "close-held", [1] * 4, check=("doubled=1",))], 2)
        self.assertFalse(found[0]["met"])

    def test_table(self):
        settings = {"rounds": 1, "seconds": 2.0, "vers": "4.2"}
        runs = [run(1, 1, "write-open", [21]), run(1, 1, "tcp", [11], check=("lost=1",))]
        text = report.table(report.configuration(1, 1, runs), settings)
        self.assertIn("1 host, 1 writer; NFSv4.2, 1 round of 2 s", text)
        self.assertIn("TCP log server!", text)
        self.assertIn("2.00 (2.00-2.00)", text)

    def test_numbers(self):
        shown = [report.number(value) for value in (None, 0, 0.456, 9.99, 12.34, 99.96, 4321.5, math.inf)]
        self.assertEqual(shown, ["-", "0.00", "0.46", "9.99", "12.3", "100", "4322", "inf"])


def main():
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Arithmetic)
    return 0 if unittest.TextTestRunner(verbosity=0).run(suite).wasSuccessful() else 1
