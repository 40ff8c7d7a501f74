"""One run of tests/cluster-bench, and what is reckoned from runs."""

import statistics

# Methods whose appends are acknowledged all together, at the end.
AT_THE_END = {"plain-held", "close-held"}

# Methods that promise nothing.
UNSAFE = {"plain-open", "plain-fsync", "plain-held"}

FAULTS = ("lost", "torn", "doubled", "disordered")


class Run:
    """One method in one configuration, in one round."""

    def __init__(self, hosts, writers, method, number, vers, seconds):
        self.hosts, self.writers, self.method, self.number = hosts, writers, method, number
        self.vers, self.seconds = vers, seconds
        self.lines = {}  # writer: (records, timely, took, longest), as appender prints them
        self.check = dict.fromkeys(("reported", "kept", *FAULTS, "unreported"), 0)
        self.rpcs = {}
        self.turns = None
        self.errors = []

    def add(self, words):
        kind, *rest = words
        if kind == "writer" and len(rest) == 5:
            self.lines[rest[0]] = (int(rest[1]), int(rest[2]), float(rest[3]), float(rest[4]))
        elif kind == "check" and rest:
            for pair in rest:
                what, _, count = pair.partition("=")
                self.check[what] = int(count)
        elif kind == "rpc":
            self.rpcs[rest[0]] = self.rpcs.get(rest[0], 0) + int(rest[1])
        elif kind == "turns":
            # Names of earlier turns may stand there for a while.
            self.turns = max(self.turns or 0, int(rest[0]))
        else:
            self.errors.append(" ".join(rest) or kind)

    def records(self):
        return sum(line[0] for line in self.lines.values())

    def took(self):
        """Seconds until the last writer was done."""
        return max((line[2] for line in self.lines.values()), default=0)

    def by_writer(self):
        """What each writer has appended: in time, where that can be told."""
        which = 0 if self.method in AT_THE_END else 1
        return [line[which] for line in self.lines.values()]

    def by_host(self):
        hosts = {}
        for writer, count in zip(self.lines, self.by_writer()):
            host = writer.split(".")[0]
            hosts[host] = hosts.get(host, 0) + count
        return list(hosts.values())

    def rate(self):
        """Records per second, of all writers together."""
        return self.per_second(sum(self.by_writer()))

    def slowest(self):
        """Records per second of the writer that has appended the fewest."""
        return self.per_second(min(self.by_writer(), default=0))

    def per_second(self, records):
        time = self.took() if self.method in AT_THE_END else self.seconds
        return records / time if time else 0.0

    def longest(self):
        return max((line[3] for line in self.lines.values()), default=None)

    def calls(self):
        """Calls to the NFS server for each record."""
        return sum(self.rpcs.values()) / self.records() if self.rpcs and self.records() else None

    def turn(self):
        """Seconds from one turn to the next."""
        return self.took() / self.turns if self.turns else None

    def must_keep_all(self):
        """Version 3 is mounted so that each host has locks of its own."""
        local_locks = self.vers == "3" and self.hosts > 1 and self.method.startswith("fcntl-")
        return self.method not in UNSAFE and not local_locks

    def kept_all(self):
        return not any(self.check[fault] for fault in FAULTS) and bool(self.check["reported"])

    def faults(self):
        """What must not be, a line each."""
        where = f"round {self.number + 1}, {self.hosts} x {self.writers}, {self.method}"
        found = [f"{where}: {error}" for error in self.errors]
        if self.must_keep_all() and not self.kept_all():
            found.append(where + ": " + ", ".join(f"{self.check[what]} {what}" for what in ("reported", *FAULTS)))
        return found

    def raw(self):
        """Everything, for JSON."""
        names = ("records", "timely", "seconds", "longest_seconds")
        return {
            "round": self.number,
            "records_per_second": self.rate(),
            "writers": {writer: dict(zip(names, line)) for writer, line in self.lines.items()},
            "check": self.check,
            "calls": self.rpcs,
            "turns": self.turns,
            "errors": self.errors,
        }


def jain(counts):
    """Jain's fairness index: 1 when all are equal, 1/n when one has all.

    None where there is nobody to be unfair to, or nothing to share.
    """
    squares = sum(count * count for count in counts)
    if len(counts) < 2 or squares == 0:
        return None
    return sum(counts) ** 2 / (len(counts) * squares)


def spread(values):
    """Median, least and most of those that are there; None if there are none."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def per_round(runs, method):
    """The method's rate in each round."""
    return {run.number: run.rate() for run in runs if run.method == method}


def ratios(ours, theirs):
    """Of two rates in each round that has both: what the machine was busy with at that time
    is in both.  None where nothing was done by either."""
    found = []
    for number in sorted(ours.keys() & theirs.keys()):
        if theirs[number]:
            found.append(ours[number] / theirs[number])
        elif ours[number]:
            found.append(float("inf"))
    return found
