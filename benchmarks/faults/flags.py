"""Every command with every argument and flag that it has, read from the commands themselves, and a line that runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunekit.cli.command_table import COMMANDS, Command, ready_command

MODEL = "python:hostile_nets:tiny_model"
NETS = "from benchmarks.faults.tiny import tiny_model\n"
SMALL = ("--set=latency=false", "--set=images=2", "--set=val_images=1", "--set=train_images=2")
RUN_FILE = f"model: {MODEL}\nscorer: magnitude\nsettings: {{latency: no, images: 2, val_images: 1}}\n"
# What a command is called with where nothing is odd: the words that its arguments take, and flags
LINES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prune": ((MODEL,), ("--scorer", "magnitude", *SMALL)),
    "run": (("run.yaml",), ()),
    "plan": ((MODEL,), ("--scorer", "magnitude", "--images", "2")),
    "apply": (("mine.json", MODEL), ()),
    "report": (("kept",), ()),
    "explain": (("kept",), ()),
    "diff": (("kept", "kept"), ()),
    "trace": ((MODEL,), ()),
    "compare": ((MODEL,), ("--scorers", "magnitude", "--seeds", "1", "--images", "1", "--val-images", "1")),
    "eval": (("sam:nano",), ("--data", "kept")),
    "export": (("kept",), ("--to", "exported", "--out", "program")),
    "list": (("scorers",), ()),
    "recipes show": (("oneshot",), ()),
    "plugins new": (("mine",), ()),
    "doctor": ((MODEL,), ()),
}


@dataclass(frozen=True)
class Flag:
    """``name`` as it is written, of arguments in capitals; ``valued`` takes a text after it."""

    command: str
    name: str
    valued: bool
    place: int = -1

    def line(self, text: str) -> list[str]:
        """The command with ``text`` for this flag or argument."""
        words, flags = LINES[self.command]
        if self.place >= 0:
            return [*self.command.split(), *words[: self.place], text, *words[self.place + 1 :], *flags]
        return [*self.command.split(), *words, *flags, *([self.name, text] if self.valued else [f"{self.name}={text}"])]


def leaves(commands: dict[str, Command] | None = None) -> Iterator[tuple[str, Command]]:
    """Every command that does something, by its words."""
    for name, command in COMMANDS.items():
        if command.holds is None:
            yield name, command
        for inner, each in (command.holds or {}).items():
            yield f"{name} {inner}", each


def every_flag() -> list[Flag]:
    """Of every command, its arguments first."""
    found = []
    for name, command in leaves():
        place = 0
        for parameter in ready_command(name.split()[-1], command).params:
            if parameter.param_type_name == "argument":
                found.append(Flag(name, parameter.name.upper(), True, place))
                place += 1
            elif parameter.name != "help":
                valued = not (parameter.is_flag or parameter.count)
                found += [Flag(name, each, valued) for each in parameter.opts if each.startswith("--")]
    return found


def prepared(folder: Path) -> None:
    """What the lines name: models, a run file, a plan, and a pruned folder. It becomes the current folder's content."""
    import prunekit
    from benchmarks.faults.tiny import tiny_model

    (folder / "hostile_nets.py").write_text(NETS)
    (folder / "run.yaml").write_text(RUN_FILE)
    result = prunekit.prune(tiny_model(), ratio=0.5, scorer="magnitude")
    (folder / "mine.json").write_text(result.plan.to_json())
    prunekit.save(result, folder / "kept", spec=MODEL)
