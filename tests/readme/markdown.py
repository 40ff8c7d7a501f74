"""What a Markdown file consists of: headings, fenced blocks, tables, links and anchors."""

import re
from dataclasses import dataclass, field

PROMPT = re.compile(r"^(?P<host>host[0-9]+)?(?P<who>[$#]) (?P<command>.*)$")


@dataclass
class Command:
    """One command of a console block, and the output that is shown below it."""

    line: int
    host: str
    root: bool
    text: str
    output: list = field(default_factory=list)


@dataclass
class Block:
    """A fenced block: its language, its lines, and the heading that it stands under."""

    section: str
    language: str
    line: int
    lines: list

    def text(self):
        return "".join(line + "\n" for line in self.lines)

    def commands(self):
        """The commands of a console block. A line that ends in a backslash goes on in the next."""
        commands, goes_on = [], False
        for number, line in enumerate(self.lines, self.line + 1):
            prompt = PROMPT.match(line)
            if goes_on:
                commands[-1].text += "\n" + line
                goes_on = line.endswith("\\")
            elif prompt:
                host = prompt["host"] or "host1"
                command = Command(number, host, prompt["who"] == "#", prompt["command"])
                commands.append(command)
                goes_on = line.endswith("\\")
            elif commands:
                commands[-1].output.append(line)
            else:
                raise ValueError(f"line {number}: output without a command before it")
        return commands


@dataclass
class Document:
    """A file, taken to pieces."""

    sections: list  # (line, title)
    blocks: list
    rows: list  # (section, line, cells) of tables, without their heads
    links: list  # (line, target)
    spans: list  # (line, text) of code within a line
    anchors: set


def plain(title):
    """A heading as it is read."""
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "")


def slug(title):
    """The anchor that GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", plain(title).lower())
    return kept.replace(" ", "-")


def cells(line):
    """The cells of a row; a bar in code, or after a backslash, parts none."""
    parts = re.findall(r"(?:`[^`]*`|\\\||[^|`])*", line.strip().strip("|"))
    return [part.strip() for part in parts if part]


def read(path):
    """Takes a file to pieces."""
    document = Document([], [], [], [], [], set())
    section, block, seen, above = "", None, {}, ""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    for number, line in enumerate(lines, 1):
        if block is not None:
            if line.strip() == "```":
                document.blocks.append(block)
                block = None
            else:
                block.lines.append(line)
            continue
        if line.startswith("```"):
            block = Block(section, line[3:].strip(), number, [])
        elif heading := re.match(r"#+ (.*)$", line):
            section = plain(heading[1])
            document.sections.append((number, section))
            anchor = slug(heading[1])
            count = seen.get(anchor, 0)
            seen[anchor] = count + 1
            document.anchors.add(f"{anchor}-{count}" if count else anchor)
        elif line.startswith("|"):
            row = cells(line)
            head = number < len(lines) and re.match(r"\|[ :|-]+\|$", lines[number])
            if not head and not re.match(r"\|[ :|-]+\|$", line):
                document.rows.append((section, number, row))
        document.spans += [(number, span) for span in re.findall(r"`([^`]+)`", line)]
        document.anchors.update(re.findall(r'<a id="([^"]+)"', line))
        # A link may be broken over two lines.
        code_free = re.sub(r"`[^`]*`", "`", above + " " + line)
        for target in re.findall(r"\]\(([^()\s]+)\)", code_free):
            if f"]({target})" in line:
                document.links.append((number, target))
        above = line
    if block is not None:
        raise ValueError(f"{path}:{block.line}: this block has no end")
    return document
