"""usage: check.py FILE WRITER=COUNT[+MORE]...

Says how much of what was appended to FILE is there.  Each WRITER appended
records 0 to COUNT-1, and perhaps MORE after them.  Prints one count a line:

  expected    the sum of all COUNTs
  kept        how many of those are there
  torn        stretches of bytes that are no whole record
  doubled     records that are there more than once
  disordered  records that stand before an earlier one of the same writer
  strange     records that nobody is said to have written

and then, each after a `!`, the first few faults in words.
"""

import re
import sys

from common import HEADER, record


def main():
    path, expected, more = sys.argv[1], {}, {}
    for word in sys.argv[2:]:
        writer, count, extra = re.fullmatch(r"(.*)=(\d+)(?:\+(\d+))?", word).groups()
        expected[writer] = int(count)
        more[writer] = int(extra or 0)
    with open(path, "rb") as file:
        data = file.read()

    faults = []
    torn = doubled = disordered = strange = 0
    seen = {writer: set() for writer in expected}
    latest = {}
    for begin, end, found in pieces(data):
        if found is None:
            torn += 1
            shown = data[begin : min(end, begin + 60)]
            faults.append(f"torn: bytes {begin} to {end}: {shown!r}")
            continue
        writer, number = found
        label = f"record {number} of {writer} at byte {begin}"
        if writer not in expected or number >= expected[writer] + more[writer]:
            strange += 1
            faults.append(f"strange: {label}")
        elif number in seen[writer]:
            doubled += 1
            faults.append(f"doubled: {label}")
        else:
            seen[writer].add(number)
            if number < latest.get(writer, -1):
                disordered += 1
                faults.append(f"disordered: {label}, after {latest[writer]}")
            latest[writer] = number

    kept = 0
    for writer, count in expected.items():
        missing = [number for number in range(count) if number not in seen[writer]]
        kept += count - len(missing)
        if missing:
            faults.append(f"missing: {len(missing)} of {writer}: {missing[:10]}...")
    print("expected", sum(expected.values()))
    print("kept", kept)
    print("torn", torn)
    print("doubled", doubled)
    print("disordered", disordered)
    print("strange", strange)
    for fault in faults[:20]:
        print("!", fault)


def pieces(data):
    """Cuts the file into whole records and what lies between them."""
    begin = 0
    while begin < len(data):
        header = HEADER.match(data, begin)
        if header:
            writer, number, size = header[1].decode(), int(header[2]), int(header[3])
            whole = record(writer, number, size)
            if data[begin : begin + len(whole)] == whole:
                yield begin, begin + len(whole), (writer, number)
                begin += len(whole)
                continue
        follower = HEADER.search(data, begin + 1)
        end = follower.start() if follower else len(data)
        # A damaged record may be followed by the damaged rest of another.
        yield begin, end, None
        begin = end


main()
