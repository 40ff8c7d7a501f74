"""Checks that a page tells the truth: usage: check.py WHAT PAGE [BINARY [SECTION...]]

commands  every console, fstab, toml, sh, python and log block of PAGE (README.md), section by
          section, in a world made for it (world.py), as plan.toml says
rules     the tables of rules: each is understood, and each default is the default
links     the links of PAGE to its own headings, to files, and to headings in those
flags     the flags and subcommands of dotlockfs that PAGE names within its lines
output    standard input is what PAGE shows below the command that stands in the place of BINARY,
          which the plan says to be run elsewhere

Prints what is wrong, a paragraph each, and ends with status 1 if anything is.
"""

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import markdown
from plan import Plan
from world import CHECKOUT, HERE, World

RULES = "/net/data/.dotlockfs.toml"
SCRIPTS = {"sh", "python"}
LANGUAGES = {"console", "toml", "fstab", "log", "text"} | SCRIPTS


class Section:
    """The blocks of a section, and the world in which they are tried."""

    def __init__(self, name, blocks, plan, world):
        self.name, self.blocks, self.plan, self.world = name, blocks, plan, world
        self.here = plan.section(name)
        self.wrong = []

    def fault(self, line, text):
        self.wrong.append(f"README.md:{line}: {text}")

    def check(self):
        self.script(self.here.setup, "setup")
        for block in self.blocks:
            planned = self.here.block(block)
            self.script(planned.get("before", ""), f"before {planned.get('starts')!r}")
            if "elsewhere" in planned or block.language == "text" or older_than(planned):
                continue
            if block.language in SCRIPTS:
                self.file(block)
            else:
                getattr(self, block.language)(block, planned)
            self.script(planned.get("after", ""), f"after {planned.get('starts')!r}")
        return self.wrong

    def script(self, text, what):
        """Runs a script of the plan as root: lines of one host follow a line `@HOST`."""
        parts = re.split(r"^@(\w+)\n", "@host1\n" + text, flags=re.M)
        for host, lines in zip(parts[1::2], parts[2::2]):
            if lines.strip():
                status, output = self.world.hosts[host].run("set -eu\n" + lines, root=True)
                if status != 0:
                    lines = "\n".join(output)
                    self.wrong.append(f"{self.name}: {what}: status {status}\n{lines}")

    def console(self, block, planned):
        """Commands, and what they print."""
        language, instead = self.plan.language(planned), planned.get("instead", {})
        commands = block.commands()
        for command in commands:
            text = ("# " if command.root else "$ ") + command.text
            # What is run in place of it; several commands, at the same time.
            texts = instead.get(text, "").strip().splitlines() or [text]
            answers = planned.get("answers") if command.output else None
            status, output = self.together(command.host, texts, answers)
            wanted = planned.get("status", 0) if command is commands[-1] else 0
            if status != wanted:
                lines = "\n".join(output)
                self.fault(command.line, f"{text}\nstatus {status}, not {wanted}\n{lines}")
            elif difference := language.difference(command.output, output):
                self.fault(command.line, f"{text}\n{difference}")

    def together(self, host, texts, answers):
        """Runs commands, each after its prompt, at once; gives a status that is not 0, if there is
        one, and all that they print."""
        with ThreadPoolExecutor(len(texts)) as pool:
            runs = []
            for text in texts:
                line, _, more = text.partition("\n")
                prompt = markdown.PROMPT.match(line)
                where = self.world.hosts.get(prompt["host"] or host)
                if where is None:
                    return None, [f"the plan gives this section no {prompt['host'] or host}"]
                command = prompt["command"] + "\n" + more
                runs.append(pool.submit(where.run, command, prompt["who"] == "#", answers))
            ends = [run.result() for run in runs]
        failed = [status for status, _ in ends if status != 0]
        return failed[0] if failed else 0, [line for _, output in ends for line in output]

    def toml(self, block, planned):
        """A rule file: it is understood, and counts for the commands after it."""
        file = planned.get("file", RULES)
        text = f"cat >{file} <<'END'\n{block.text()}END\ndotlockfs check-config {file}"
        status, output = self.world.hosts["host1"].run(text, root=True)
        if status != 0:
            self.fault(block.line, "\n".join(output))
        for host in self.here.mounted:
            self.script(f"@{host}\ndotlockfs -o allow_other /net/data /net/data\n", "mounting")

    def file(self, block):
        """A script of the reader's: its first or second line is a comment that names it."""
        names = [line[2:] for line in block.lines[:2] if line.startswith("# /")]
        if not names:
            self.fault(block.line, "this script says in no comment where it lies")
            return
        text = f"cat >{names[0]} <<'END'\n{block.text()}END\nchmod 755 {names[0]}"
        status, output = self.world.hosts["host1"].run(text, root=False)
        if status != 0:
            self.fault(block.line, "\n".join(output))

    def fstab(self, block, _):
        """Lines of fstab: understood as they are, and mounted with what stands in for a server."""
        host, text = self.world.hosts["host1"], block.text()
        for line in block.lines:
            host.run(f"mkdir -p {line.split()[1]}", root=True)
        verify = f"cat >/run/fstab <<'END'\n{text}END\nfindmnt --verify --tab-file /run/fstab"
        status, output = host.run(verify, root=True)
        if status != 0:
            self.fault(block.line, "\n".join(output))
        for pattern, by in self.plan.stand_ins:
            text = pattern.sub(by, text)
        mount, end = [f"cat >/etc/fstab <<'END'\n{text}END", "set -e", "mount -a"], []
        for line in block.lines:
            source, place, kind = line.split()[:3]
            if kind == "dotlockfs":
                shown = f"$(findmnt -no SOURCE,FSTYPE {place} | tail -n 1 | tr -s ' ')"
                mount.append(f'test "{shown}" = "{source} fuse.dotlockfs"')
                mount.append(f"runuser -u me -- sh -c 'echo line >>{place}/log'")
                mount.append(f"grep -q line {source}/log")
            # What lies below is busy until the daemon has ended.
            end.insert(0, f"until umount {place}; do sleep 0.1; done")
        status, output = host.run("\n".join(mount + end), root=True)
        if status != 0:
            self.fault(block.line, "these lines are not mounted:\n" + "\n".join(output))

    def log(self, block, planned):
        """Lines of a log, which a script of the plan shows."""
        if "comes_from" not in planned:
            self.fault(block.line, "the plan does not say where these lines come from")
            return
        host, _, script = planned["comes_from"].partition("\n")
        _, output = self.world.hosts[host.removeprefix("@")].run(script, root=True)
        if difference := self.plan.language(planned).difference(block.lines, output):
            self.fault(block.line, difference)


def older_than(planned):
    """Whether this kernel is older than a block asks for."""
    wanted = numbers(planned.get("kernel", ""))
    return numbers(os.uname().release)[: len(wanted)] < wanted


def numbers(version):
    return [int(number) for number in re.findall(r"[0-9]+", version)]


def commands(page, binary, wanted):
    """Tries every block."""
    plan, document = Plan(os.path.join(HERE, "plan.toml")), markdown.read(page)
    wrong = [f"plan.toml: {text}" for text in plan.unused(document)]
    for block in document.blocks:
        if block.language not in LANGUAGES:
            wrong.append(f"README.md:{block.line}: a block in no known language")
        elif block.language == "text" and any(map(markdown.PROMPT.match, block.lines)):
            wrong.append(f"README.md:{block.line}: commands in a text block, which nobody runs")
    for name in dict.fromkeys(block.section for block in document.blocks):
        blocks = [
            block for block in document.blocks
            if block.section == name and block.language in LANGUAGES
        ]
        if all(block.language == "text" for block in blocks) or wanted and name not in wanted:
            continue
        here = plan.section(name)
        with World(binary, here.hosts, here.installed) as world:
            wrong += Section(name, blocks, plan, world).check()
        print(f"{name}: {len(blocks)} blocks", flush=True)
    return wrong


def explained(binary, text):
    """Whether check-config understands a rule file, and what it says of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        done = subprocess.run(
            [binary, "check-config", file.name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )
    return done.returncode == 0, done.stdout.replace(file.name, "FILE")


def rules(page, binary, _):
    """Every row of the tables of rules and keys."""
    document, wrong, checked = markdown.read(page), [], 0
    plain = "version = 1\n[[guard]]\nfiles = ['x']\n"
    as_it_is = explained(binary, plain)
    for section, line, row in document.rows:
        place = f"README.md:{line}"
        if section == "Your program does this: write that rule":
            settings = re.findall(r"`([a-z_]+ = [^`]+)`", row[1])
            if not settings:
                wrong.append(f"{place}: this row gives no rule")
                continue
            lines = {"files": "files = ['x']"}
            lines |= {setting.split(" = ")[0]: setting for setting in settings}
            text = "version = 1\n[[guard]]\n" + "\n".join(lines.values()) + "\n"
        elif section == "Rules" and len(row) == 3 and row[0] != "`files`" and row[1] != "none":
            key, default = row[0].strip("`"), row[1].strip("`")
            text = f"{plain}{key} = {default}\n"
            if explained(binary, text) != as_it_is:
                wrong.append(f"{place}: {default} is not the default of {key}")
        else:
            continue
        checked += 1
        understood, said = explained(binary, text)
        if not understood:
            wrong.append(f"{place}: {text}\n{said}")
    print(f"{checked} rules")
    return wrong if checked else ["no table of rules was found"]


def links(page, *_):
    """Every link that leads to something here."""
    wrong, folder = [], os.path.dirname(os.path.abspath(page))
    # A README, wherever it is, is about what lies here.
    if os.path.basename(page) == "README.md":
        folder = CHECKOUT
    for line, target in markdown.read(page).links:
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = os.path.join(folder, path) if path else page
        if not os.path.exists(file):
            wrong.append(f"{page}:{line}: there is no {path}")
        elif anchor and anchor not in markdown.read(file).anchors:
            wrong.append(f"{page}:{line}: no heading is #{anchor}")
    return wrong


def flags(page, binary, _):
    """Every --flag and subcommand that is named between commands."""
    def help_of(*command):
        words = [binary, *command, "--help"]
        return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout

    listed = re.search(r"Commands:\n(.*?)\n\n", help_of(), re.S)[1]
    subcommands = re.findall(r"^  ([a-z-]+)", listed, re.M)
    known = {
        name: set(re.findall(r"(?<![\w-])--[a-z-]+", help_of(*name.split())))
        for name in ["", *subcommands] if name != "help"
    }
    others = set(Plan(os.path.join(HERE, "plan.toml")).flags_of_others)
    wrong, checked = [], 0
    for line, span in markdown.read(page).spans:
        words = span.split(" -- ")[0].split()
        if words[0] == "dotlockfs" and len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*", words[1]):
            named = {words[1]: known.get(words[1])}
            if named[words[1]] is None:
                wrong.append(f"{page}:{line}: dotlockfs has no {words[1]}")
                continue
        elif words[0] == "dotlockfs" or words[0].startswith("--"):
            named = known
        else:
            continue
        flags_of_ours = set().union(*named.values()) | others | {"--help"}
        checked += 1
        for flag in re.findall(r"(?<![\w-])--[a-z-]+", " ".join(words)):
            if flag not in flags_of_ours:
                wrong.append(f"{page}:{line}: dotlockfs has no {flag}: {span}")
    return wrong if checked else ["no flag was found"]


def output(page, command, _):
    """Compares standard input with what is shown of a command that is run elsewhere."""
    plan, came = Plan(os.path.join(HERE, "plan.toml")), sys.stdin.read().splitlines()
    for block in markdown.read(page).blocks:
        if block.language == "console" and block.lines[0] == command:
            planned = plan.section(block.section).block(block)
            shown = block.commands()[0].output
            difference = plan.language(planned).difference(shown, came)
            return [f"README.md:{block.line}: {difference}"] if difference else []
    return [f"the page does not begin a block with {command}"]


def main():
    what, page, *rest = sys.argv[1:]
    checks = {
        "commands": commands, "rules": rules, "links": links, "flags": flags, "output": output,
    }
    wrong = checks[what](page, rest[0] if rest else "", rest[1:])
    for text in wrong:
        print(f"\nwrong: {text}")
    sys.exit(1 if wrong else 0)


main()
