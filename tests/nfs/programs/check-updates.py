"""usage: check-updates.py KIND FILE WRITER=DONE...

Says what FILE keeps of the updates that each WRITER took for done (DONE: their
numbers, as in 0-5,7).  KIND is the kind of file: count, json, lines, records,
mbox, git or sqlite.  Prints one count a line:

  kept        how many of those are there
  doubled     updates that are there more than once
  strange     updates that are there, though nobody took them for done

and then, each after a `!`, what is wrong in words.
"""

import json
import re
import sys

from attempts import padding_of

NAME = re.compile(r"host\d\.\w\.\d+")


def main():
    kind, path, *words = sys.argv[1:]
    done = set()
    for word in words:
        writer, _, numbers = word.partition("=")
        for row in filter(None, numbers.split(",")):
            first, _, last = row.partition("-")
            done.update(f"{writer}.{n}" for n in range(int(first), int(last or first) + 1))
    faults = []
    try:
        found = KINDS[kind](path, done, faults)
    except Exception as error:
        faults.append(f"{path} is damaged: {type(error).__name__}: {error}")
        found = []
    kept = done.intersection(found)
    missing, strange = sorted(done.difference(found)), sorted(set(found) - done)
    if missing:
        faults.append(f"missing: {len(missing)}: {missing[:10]}...")
    if strange:
        faults.append(f"strange: {len(strange)}: {strange[:10]}...")
    print("kept", len(kept))
    print("doubled", len(found) - len(set(found)))
    print("strange", len(strange))
    for fault in faults:
        print("!", fault)


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def in_count(path, done, _faults):
    """A number says only how many there are."""
    value = int(read(path))
    names = sorted(done)[:value]
    return names + [f"more.{number}" for number in range(len(names), value)]


def in_json(path, _done, faults):
    document = json.loads(read(path))
    if document["count"] != len(document["done"]):
        faults.append(f"the count is {document['count']}, of {len(document['done'])}")
    return document["done"]


def in_lines(path, _done, faults):
    lines = read(path).splitlines()
    torn = [line for line in lines if line != "top" and not NAME.fullmatch(line)]
    if torn:
        faults.append(f"torn: {len(torn)} lines: {torn[:5]}...")
    if "top" in lines and lines.count("top") != 1:
        faults.append(f"the first line is there {lines.count('top')} times")
    return [line for line in lines if NAME.fullmatch(line)]


def in_records(path, _done, faults):
    names = []
    for line in read(path).splitlines():
        name, _, padding = line.partition(" ")
        number = name.rpartition(".")[2]
        if NAME.fullmatch(name) and padding == padding_of(int(number)):
            names.append(name)
        else:
            faults.append(f"torn: {len(line)} bytes: {line[:60]!r}")
    return names


def in_mbox(path, _done, faults):
    import mailbox  # costs more time to load than the rest together

    names = []
    for mail in mailbox.mbox(path, create=False):
        name, body = mail["Subject"] or "", mail.get_payload()
        if not NAME.fullmatch(name) or body.strip() != f"This is {name}.":
            faults.append(f"torn: a mail with subject {name!r} says {body[:60]!r}")
        names.append(name)
    return names


def in_git(path, _done, faults):
    import subprocess

    git = ["git", "-C", path, "-c", "safe.directory=*"]
    check = subprocess.run([*git, "fsck"], capture_output=True, text=True, check=False)
    if check.returncode:
        faults.append(f"git fsck: {check.stdout}{check.stderr}")
    log = subprocess.run([*git, "log", "--format=%s"], capture_output=True, text=True, check=True)
    files = subprocess.run(
        [*git, "ls-tree", "--name-only", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.split()
    names = [name for name in log.stdout.split() if NAME.fullmatch(name)]
    absent = set(names) - {name.removesuffix(".txt") for name in files}
    if absent:
        faults.append(f"committed, but not in the tree: {sorted(absent)[:10]}")
    return names


def in_sqlite(path, _done, faults):
    import sqlite3

    with sqlite3.connect(path) as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            faults.append(f"integrity_check: {verdict}")
        return [name for (name,) in database.execute("SELECT name FROM rows ORDER BY rowid")]


KINDS = {
    "count": in_count,
    "json": in_json,
    "lines": in_lines,
    "records": in_records,
    "mbox": in_mbox,
    "git": in_git,
    "sqlite": in_sqlite,
}

main()
