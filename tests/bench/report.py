"""What tests/cluster-bench has measured: tables, ratios, and which targets are met.

usage: report.py RUNS [--json FILE]
       report.py --self-test

RUNS is what the script writes: `vers`, `rounds`, `seconds` and `writers`, then for each
run a block of lines from `run HOSTS WRITERS METHOD ROUND` to `end`, with `writer` lines as
appender prints them, `check` (checker's), `rpc OPERATION CALLS` for each host, `turns N` and
`error TEXT`.  Exit status 1: a method that must keep everything has not, or a run failed.
"""

import json
import sys

from arithmetic import Run, jain, per_round, ratios, spread
from targets import targets

LABELS = {
    "plain-open": "plain, open-write-close",
    "plain-fsync": "plain, held, fsync each",
    "plain-held": "plain, held, one fsync",
    "fcntl-open": "fcntl, open-write-close",
    "fcntl-held": "fcntl, held",
    "liblockfile": "liblockfile",
    "tcp": "TCP log server",
    "write-open": "ack=write, open-write-close",
    "write-held": "ack=write, held",
    "close-open": "ack=close, open-write-close",
    "close-held": "ack=close, held",
}

# What each method of dotlockfs is compared with: what promises as much as it does, and the
# same program without it.
COMPARABLE = {
    "write-open": ["plain-open", "fcntl-open", "liblockfile", "tcp"],
    "write-held": ["plain-fsync", "fcntl-held", "liblockfile", "tcp"],
    "close-open": ["plain-open", "fcntl-open", "liblockfile", "tcp"],
    "close-held": ["plain-held", "fcntl-held", "liblockfile", "tcp"],
}

COLUMNS = """\
records/s   appended by all writers together within the time; with one fsync or close at
            the end, until that was done.  Median over the rounds, and least and most
slowest     the same of the writer that has appended the fewest
lost, torn, doubled
            of all rounds: reported as appended and not there; lines that are no record;
            records there twice.  A ! marks a method that should have kept all
fair        Jain's index over the writers' records and over the hosts': 1 when all have
            as many, 1/n when one of n has all
longest     the longest append of any writer, or the fsync and close at its end
calls       calls to the NFS server for each record
turn        time from one of dotlockfs's turns to the next, on average"""


def main(arguments):
    if arguments == ["--self-test"]:
        import selftest

        return selftest.main()
    results, runs = read_runs(arguments[0])
    results["configurations"] = []
    for hosts, writers in dict.fromkeys((run.hosts, run.writers) for run in runs):
        ours = [run for run in runs if (run.hosts, run.writers) == (hosts, writers)]
        results["configurations"].append(configuration(hosts, writers, ours))
    results["targets"] = targets(runs, results["writers"])
    for each in results["configurations"]:
        print(table(each, results))
    print(COLUMNS + "\n")
    print(target_table(results["targets"]))
    if "--json" in arguments:
        with open(arguments[arguments.index("--json") + 1], "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")
    faults = [fault for run in runs for fault in run.faults()]
    for fault in faults:
        print(f"tests/cluster-bench: {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_runs(path):
    """The settings, and the runs in their order."""
    settings, runs, run = {}, [], None
    with open(path, errors="replace") as file:
        for line in file:
            words = line.split()
            if not words:
                continue
            if words[0] == "run":
                hosts, writers, method, number = words[1:]
                run = Run(
                    int(hosts), int(writers), method, int(number), settings["vers"], settings["seconds"]
                )
            elif words[0] == "end":
                runs.append(run)
                run = None
            elif run is None:
                settings[words[0]] = words[1] if words[0] == "vers" else float(words[1])
            else:
                run.add(words)
    settings["rounds"], settings["writers"] = int(settings["rounds"]), int(settings["writers"])
    return settings, runs


def configuration(hosts, writers, runs):
    """All about one configuration, for the table and for JSON."""
    result = {"hosts": hosts, "writers": writers, "methods": {}, "ratios": {}}
    for method in LABELS:
        ours = [run for run in runs if run.method == method]
        if not ours:
            continue
        result["methods"][method] = {
            "records_per_second": spread(run.rate() for run in ours),
            "slowest_writer": spread(run.slowest() for run in ours),
            "reported": sum(run.check["reported"] for run in ours),
            **{what: sum(run.check[what] for run in ours) for what in ("lost", "torn", "doubled", "disordered")},
            "failed_runs": sum(bool(run.errors) for run in ours),
            "must_keep_all": ours[0].must_keep_all(),
            "jain_writers": spread(jain(run.by_writer()) for run in ours),
            "jain_hosts": spread(jain(run.by_host()) for run in ours),
            "longest_seconds": spread(run.longest() for run in ours),
            "calls_per_record": spread(run.calls() for run in ours),
            "turn_seconds": spread(run.turn() for run in ours),
            "rounds": [run.raw() for run in ours],
        }
    for method, others in COMPARABLE.items():
        for other in others:
            both = ratios(per_round(runs, method), per_round(runs, other))
            if both:
                result["ratios"].setdefault(method, {})[other] = spread(both)
    return result


def number(value):
    """Three digits, without an exponent."""
    if value is None:
        return "-"
    if value == float("inf"):
        return "inf"
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def middle(spread_, scale=1):
    return "-" if spread_ is None else number(spread_["median"] * scale)


def ranged(spread_):
    if spread_ is None:
        return "-"
    return f"{number(spread_['median'])} ({number(spread_['least'])}-{number(spread_['most'])})"


def aligned(rows):
    """Columns of text, the first one to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def many(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(configuration_, settings):
    hosts, writers = configuration_["hosts"], configuration_["writers"]
    each = "" if hosts == 1 else " each"
    rounds = many(settings["rounds"], "round")
    rows = [
        ["method", "records/s", "slowest", "lost", "torn", "doubled", "fair: writers", "hosts"]
        + ["longest s", "calls", "turn ms"]
    ]
    for method, found in configuration_["methods"].items():
        mark = "!" if found["must_keep_all"] and (found["lost"] or found["torn"] or found["doubled"]) else ""
        mark += " (failed)" if found["failed_runs"] else ""
        if method.startswith("fcntl-") and not found["must_keep_all"]:
            mark += " (each host's own locks)"
        rows.append(
            [
                LABELS[method] + mark,
                ranged(found["records_per_second"]),
                middle(found["slowest_writer"]),
                *(str(found[what]) for what in ("lost", "torn", "doubled")),
                middle(found["jain_writers"]),
                middle(found["jain_hosts"]),
                middle(found["longest_seconds"]),
                middle(found["calls_per_record"]),
                middle(found["turn_seconds"], 1000),
            ]
        )
    title = f"{many(hosts, 'host')}, {many(writers, 'writer')}{each}; NFSv{settings['vers']}, {rounds} of {settings['seconds']:g} s"
    text = f"{title}\n\n{aligned(rows)}\n"
    rows = [["dotlockfs, times", "plain", "fcntl", "liblockfile", "TCP"]]
    for method, against in configuration_["ratios"].items():
        rows.append([LABELS[method], *(ranged(against.get(other)) for other in COMPARABLE[method])])
    if len(rows) > 1:
        text += f"\n{aligned(rows)}\n"
    return text


def target_table(found):
    rows = [["target", "wanted", "measured", ""]]
    for target in found:
        if target["measured"] is None:
            measured, verdict = "-", "not measured"
        else:
            measured = ranged(target["measured"])
            verdict = "met" if target["met"] else "MISSED"
        rows.append([target["what"], f"{target['relation']} {target['wanted']:g}", measured, verdict])
    return "targets\n\n" + aligned(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
