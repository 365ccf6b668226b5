"""docs/architecture.md is true: rooms, contracts and layers are the code's."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import prunekit

ROOT = Path(prunekit.__file__).parent
REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "architecture.md").read_text()
ROWS = [
    re.findall(r"`(\w+)`", row.split("|")[1])
    for row in re.search(r"\| room \|.*?\n\|---.*?\n(.*?)\n\n", TEXT, re.S).group(1).splitlines()
]
CONTRACTS = re.search(r"## Contracts.*?```python\n(.*?)```", TEXT, re.S).group(1).splitlines()


def test_every_room_is_listed_once_and_nothing_else_is():
    rooms = {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()}
    rooms |= {p.stem for p in ROOT.glob("*.py") if not p.stem.startswith("__")}
    listed = [name for row in ROWS for name in row]
    assert sorted(listed) == sorted(rooms)


def test_the_layers_are_those_of_the_import_contract():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert contracts["exclude_type_checking_imports"] is False
    layers = next(c for c in contracts["contracts"] if c["name"].startswith("rooms"))["layers"]
    held = [sorted(part.strip().removeprefix("prunekit.") for part in layer.split(":")) for layer in layers]
    assert [sorted(row) for row in ROWS] == held


@pytest.mark.parametrize("line", CONTRACTS, ids=lambda line: line.split("(")[0])
def test_every_contract_is_the_signature(line):
    path, _, listed = line.rstrip(")").partition("(")
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        break
    for name in parts[cut:]:
        value = getattr(value, name)
    unwrapped = getattr(value, "__wrapped__", value)
    shown = inspect.signature(unwrapped)
    names = list(shown.parameters)
    wanted = [part.strip() for part in listed.split(",") if part.strip() not in ("*", "")]
    if wanted and wanted[-1] == "**options":
        from prunekit.options.together import options_said

        names = [name for name in names if name not in options_said()]
        wanted.pop()
    assert [name.lstrip("*") for name in wanted] == names
