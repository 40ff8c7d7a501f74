"""usage: sqlite-rows.py HOW FILE WRITER COUNT

Inserts COUNT rows into a database of SQLite, each in a transaction of its own, with
the rollback journal that is the default.  HOW: `held`, one connection for all; or
`each`, one for each row.
"""

import sqlite3
import sys

from attempts import attempt, name_of

how, path, writer, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
held = []


def connect():
    if held:
        return held[0]
    database = sqlite3.connect(path, timeout=60)
    if how == "held":
        held.append(database)
    return database


def update(number):
    database = connect()
    try:
        with database:
            database.execute("INSERT INTO rows (name) VALUES (?)", [name_of(writer, number)])
    finally:
        if not held:
            database.close()


attempt(writer, count, update)
