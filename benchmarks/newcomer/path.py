"""The steps of README's section "First steps": every fenced block, in order, as it stands there."""

import re
from dataclasses import dataclass

TITLE = "First steps"


@dataclass(frozen=True)
class Step:
    """``shell`` is what is typed; a file to write has a ``name`` and its ``text`` instead."""

    shell: str = ""
    name: str = ""
    text: str = ""


def steps_in(readme: str) -> list[Step]:
    """A line of a plain block is a step; a Python block is the file that the sentence above it names."""
    section = re.search(rf"^## {TITLE}\n(.*?)(?=^## |\Z)", readme, re.M | re.S)
    if section is None:
        raise SystemExit(f"README.md has no section {TITLE!r}")
    found = []
    for before, kind, body in re.findall(r"([^\n]*)\n+```(\w*)\n(.*?)^```$", section[1], re.M | re.S):
        if kind == "python":
            named = re.findall(r"`(\S+\.py)`", before)
            if not named:
                raise SystemExit(f"no sentence says into which file this goes:\n{body}")
            found.append(Step(name=named[-1], text=body))
            continue
        found += [Step(shell=line.split("   #")[0].strip()) for line in body.splitlines() if line.strip()]
    return found
