"""Reads plan.toml, which says what of the page is not simply run as it stands."""

import re
import tomllib

from compare import Language

SECTION_KEYS = {"name", "hosts", "installed", "mounted", "setup", "block"}
BLOCK_KEYS = {
    "starts", "before", "after", "instead", "may_differ", "wraps", "answers", "status", "elsewhere",
    "why", "comes_from", "kernel", "file",
}


class Plan:
    """The whole plan."""

    def __init__(self, path):
        with open(path, "rb") as file:
            plan = tomllib.load(file)
        self.kinds = plan["kinds"]
        self.stand_ins = [(re.compile(one["what"], re.M), one["by"]) for one in plan["stand_in"]]
        self.flags_of_others = plan["flags_of_others"]
        self.sections = {}
        for section in plan["section"]:
            refuse_others(section, SECTION_KEYS, section.get("name"))
            self.sections[section["name"]] = Section(section)

    def section(self, name):
        return self.sections.get(name) or Section({"name": name})

    def language(self, block):
        return Language(self.kinds, block.get("may_differ", ()), block.get("wraps", False))

    def unused(self, document):
        """What the plan says of something that the page does not have."""
        names = {title for _, title in document.sections}
        for name, section in self.sections.items():
            if name not in names:
                yield f"the page has no section {name!r}"
            for block in section.blocks:
                first = [
                    one for one in document.blocks
                    if one.section == name and one.text().startswith(block["starts"])
                ]
                if len(first) != 1:
                    yield f"{name}: {len(first)} blocks start with {block['starts']!r}"
                elif not set(block.get("instead", {})) <= set(first[0].lines):
                    yield f"{name}: {block['starts']!r}: `instead` names a line that is not there"


class Section:
    """What one section's world is, and what its blocks are."""

    def __init__(self, section):
        self.hosts = section.get("hosts", ["host1"])
        self.installed = section.get("installed", True)
        self.mounted = section.get("mounted", [])
        self.setup = section.get("setup", "")
        self.blocks = section.get("block", [])
        for block in self.blocks:
            refuse_others(block, BLOCK_KEYS, section["name"])
            if ("instead" in block or "elsewhere" in block) and not block.get("why"):
                raise ValueError(f"{section['name']}: {block['starts']}: say why")

    def block(self, block):
        """What is planned for a block of the page; nothing for most."""
        found = [one for one in self.blocks if block.text().startswith(one["starts"])]
        return found[0] if found else {}


def refuse_others(table, keys, where):
    others = set(table) - keys
    if others:
        raise ValueError(f"plan.toml: {where}: what is {sorted(others)[0]!r}?")
