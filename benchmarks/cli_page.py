"""Writes docs/cli.md: ``python -m benchmarks.cli_page``. A test holds the page to the command."""

import re
from pathlib import Path

from prunekit.cli.command_table import COMMANDS, ready_command

PATH = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Command line

`prunekit COMMAND --help` says the same. Every command takes `-q` (say nothing but errors, and JSON if asked), `-v`
(tell every decision; `-vv` what led to it) and `--json`. `--install-completion` completes commands and flags. A flag
that is an option of `prunekit.prune` too is explained in [options.md](options.md). This page is made by
`python -m benchmarks.cli_page`.
"""
SHARED = {"quiet", "verbose", "help"}


def page() -> str:
    parts = [HEAD]
    for name, command in COMMANDS.items():
        pairs = [(name, command)] if command.holds is None else [(f"{name} {n}", c) for n, c in command.holds.items()]
        for full, each in pairs:
            parts.append(section(full, ready_command(full.split()[-1], each), each.sentence))
    return "\n".join(parts)


def section(name: str, command, sentence: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    flags = [p for p in command.params if p.param_type_name == "option" and p.name not in SHARED]
    words = " ".join(argument.name.upper() for argument in arguments)
    rows = [f"| `{p.name.upper()}` | {cell(p)} |" for p in arguments]
    rows += [f"| `{', '.join([*p.opts, *p.secondary_opts])}` | {cell(p)} |" for p in flags]
    return "\n".join(
        [
            f"## prunekit {name}",
            "",
            sentence,
            "",
            f"`prunekit {name} {words}`".replace(" `", "`"),
            "",
            "| flag | what it does |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def cell(parameter) -> str:
    text = re.sub(r"\s+", " ", parameter.help or "").replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")
    default = parameter.default
    told = default not in (None, False, "", ()) and not callable(default)
    return f"{text} Default: `{default}`." if told else text


if __name__ == "__main__":
    PATH.write_text(page())
