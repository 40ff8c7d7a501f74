"""What dotlockfs is meant to come to on the cluster, and whether it does."""

from arithmetic import jain, per_round, ratios, spread

OURS = ("write-open", "write-held", "close-open", "close-held")


def targets(runs, writers):
    """Each target with the ratio that was measured (None: it was not), and whether it is met.

    `writers` is how many there are on each host where hosts compete.
    """

    def of(hosts, each, method):
        return [run for run in runs if (run.hosts, run.writers, run.method) == (hosts, each, method)]

    def rates(hosts, each, method):
        return per_round(of(hosts, each, method), method)

    def against(ours, theirs):
        return spread(ratios(rates(*ours), rates(*theirs)))

    found = []

    def want(what, relation, wanted, measured):
        met = None
        if measured is not None:
            median = measured["median"]
            met = {">=": median >= wanted, "<": median < wanted, "=": measured["most"] == wanted}[relation]
        found.append({"what": what, "relation": relation, "wanted": wanted, "measured": measured, "met": met})

    kept = [sum(run.check[fault] for fault in ("lost", "torn", "doubled")) for run in runs if run.method in OURS]
    want("dotlockfs, all runs: lost, torn or doubled", "=", 0, spread(kept))

    for other, least in (("fcntl-open", 3), ("liblockfile", 25), ("plain-open", 1)):
        want(f"2 hosts x 2, write-open / {other}", ">=", least, against((2, 2, "write-open"), (2, 2, other)))
    for other, least in (("fcntl-held", 20), ("liblockfile", 100), ("plain-held", 1)):
        want(f"2 hosts x 2, close-held / {other}", ">=", least, against((2, 2, "close-held"), (2, 2, other)))
    for ours, other, least in (("write-held", "plain-fsync", 0.8), ("close-held", "plain-held", 1)):
        want(f"1 host x 1, {ours} / {other}", ">=", least, against((1, 1, ours), (1, 1, other)))
    want("1 host, close-open: 8 writers / 1", ">=", 4, against((1, 8, "close-open"), (1, 1, "close-open")))

    for method in OURS:
        alone = (1, 8 * writers, method)
        competing = of(8, writers, method)
        want(f"{method}: 8 hosts x {writers} / 1 x {8 * writers}", ">=", 0.7, against((8, writers, method), alone))
        want("  Jain's index over the hosts", ">=", 0.9, spread(jain(run.by_host()) for run in competing))
        want("  Jain's index over the writers", ">=", 0.9, spread(jain(run.by_writer()) for run in competing))
        waits = [run.longest() / run.turn() if run.turn() else None for run in competing]
        want("  longest wait / mean turn", "<", 10, spread(waits))
    return found
