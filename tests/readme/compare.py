"""Compares the output that a page shows with the output that came.

They have to be the same, but for this:

- a line `...` that is shown stands for any number of lines, or none;
- what the plan lets differ for a block (`may_differ`): of what each kind of word there matches,
  only that it is there counts, and not how many blanks stand before or after it;
- where the plan says `wraps`, lines may be broken at other words.
"""

import difflib
import re


class Language:
    """What may differ in one block."""

    def __init__(self, kinds, may_differ=(), wraps=False):
        unknown = [kind for kind in may_differ if kind not in kinds]
        if unknown:
            raise ValueError(f"the plan has no kind {unknown[0]}")
        self.kinds = [(kind, re.compile(kinds[kind])) for kind in may_differ]
        self.wraps = wraps

    def neutral(self, line):
        """A line without what may differ in it."""
        for kind, pattern in self.kinds:
            line = pattern.sub(f"<{kind}>", line)
        if self.kinds:
            line = re.sub(r" +", " ", line)
        return line.strip() if self.wraps else line.rstrip()

    def units(self, lines):
        """What is compared one by one: lines, or words."""
        lines = [self.neutral(line) for line in lines]
        return " ".join(lines).split() if self.wraps else lines

    def difference(self, shown, came):
        """What differs, for people; empty if nothing does."""
        left, right = self.units(shown), self.units(came)
        if matches(left, right):
            return ""
        lines = difflib.unified_diff(left, right, "shown", "came", lineterm="", n=2)
        return "\n".join(lines)


def matches(shown, came):
    """Whether `came` is `shown`, with anything for each `...`."""
    pieces, piece = [], []
    for unit in shown:
        if unit == "...":
            pieces.append(piece)
            piece = []
        else:
            piece.append(unit)
    pieces.append(piece)
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return came == first
    if came[: len(first)] != first or len(came) < len(first) + len(last):
        return False
    if last and came[-len(last) :] != last:
        return False
    at, end = len(first), len(came) - len(last)
    # The earliest place for each piece between leaves most room for those after it.
    for piece in pieces[1:-1]:
        while at + len(piece) <= end and came[at : at + len(piece)] != piece:
            at += 1
        if at + len(piece) > end:
            return False
        at += len(piece)
    return True
