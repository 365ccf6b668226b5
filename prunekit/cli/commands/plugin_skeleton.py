"""``prunekit plugins new``: a distribution of one's own, with a criterion, a recipe and a test that passes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from prunekit.cli.console.voice import speaker
from prunekit.errors import InputError

PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "prunekit-NAME"
version = "0.1.0"
description = "A plug-in of prunekit"
requires-python = ">=3.11"
dependencies = ["prunekit"]

[project.entry-points."prunekit.plugins"]
NAME = "prunekit_NAME.plugin:plugin"

[tool.setuptools]
packages = ["prunekit_NAME"]
"""
PLUGIN = '''"""What this distribution brings to prunekit: change or remove what is not yours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunekit import Group
from prunekit.plugins import Plugin
from prunekit.recipes import ONESHOT
from prunekit.scorers import Statistics


@dataclass(frozen=True)
class Largest:
    """I = max |w| over all weights of the unit."""

    needs_samples = False

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64; higher is kept."""
        found = torch.zeros(group.size, dtype=torch.float64)
        for member in group.parameters:
            values = statistics.parameter(member.tensor).detach().double().cpu().movedim(member.axis, 0)
            for unit in range(group.size):
                found[unit] = torch.maximum(found[unit], values[member.coordinates(unit)].abs().max())
        return found


RECIPE = replace(ONESHOT, name="NAME-oneshot", description="prune once, as NAME does")

plugin = Plugin(name="NAME", scorers={"NAME_largest": Largest}, recipes={RECIPE.name: RECIPE})
'''
TEST = '''"""The unit with the largest weight stays."""

import torch
from prunekit_NAME.plugin import Largest, plugin
from torch import nn

import prunekit


def test_the_largest_stays():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[5, 0] = 100
    (width,) = prunekit.plan(model, torch.ones(1, 4), ratio=0.5, scorer=Largest()).widths
    assert 5 in width.kept
    assert width.after == 4


def test_everything_has_the_name_that_it_is_asked_for_by():
    assert set(plugin.recipes) == {recipe.name for recipe in plugin.recipes.values()}
'''
README = """# prunekit-NAME

A plug-in of [prunekit](https://pypi.org/project/prunekit/).

    pip install -e . && pytest
    prunekit doctor                                    # is it found?
    prunekit prune MODEL --scorer NAME_largest --recipe NAME-oneshot
"""
FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "prunekit_NAME/__init__.py": '"""A plug-in of prunekit."""\n',
    "prunekit_NAME/plugin.py": PLUGIN,
    "tests/test_NAME.py": TEST,
}


def new_plugin(
    name: Annotated[str, typer.Argument(help="A short word of small letters, by which its models will be asked for.")],
    folder: Annotated[Path | None, typer.Option(help="Where to write it; ./prunekit-NAME by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON, and nothing else.")] = False,
) -> None:
    """Write the skeleton of a plug-in, with a test that passes."""
    from prunekit.files.folders import new_folder

    if not re.fullmatch(r"[a-z][a-z0-9]*", name):
        raise InputError(f"{name!r} is no name for a plug-in", hint="small letters and digits, for example: mine")
    if name in ("timm", "torchvision", "python"):
        raise InputError(f"{name}: is where models of that library are asked for", hint="choose another name")
    target = folder or Path(f"prunekit-{name}")
    with new_folder(target, "no-earlier-one") as draft:
        for path, text in FILES.items():
            file = draft / path.replace("NAME", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("NAME", name))
    console = speaker()
    if as_json:
        import json

        written = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
        console.file.write(json.dumps({"folder": str(target), "files": written}, indent=1) + "\n")
        return
    console.print(f"written to {target}", soft_wrap=True)
    path = shlex.quote(str(target))
    console.print(f"next: pip install -e {path} && pytest {path}", soft_wrap=True)
