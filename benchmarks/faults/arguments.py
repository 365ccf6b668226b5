"""Arguments that cannot be, of every public function and every flag: done, or refused by a typed error."""

from __future__ import annotations

import contextlib
import io
import math
import os
import random
import sys
from pathlib import Path

import torch
from torch import nn

import prunekit
from benchmarks.faults.counting import Section
from benchmarks.faults.flags import every_flag, prepared
from prunekit.options.together import options_said

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
ODD = {
    "None": None,
    "a negative number": -1,
    "a float": 2.5,
    "NaN": math.nan,
    "a huge number": 10**30,
    "a word": "abc",
    "an empty list": [],
    "an empty mapping": {},
    "an object": object(),
    "a mapping of numbers": {1: 2},
    "a mapping with NaN": {"0": math.nan},
    "a function": lambda *given: 1,
    "a tensor": torch.ones(3),
    "bytes": b"x",
}
TEXTS = (
    "",
    "nan",
    "-1",
    "0",
    "1e400",
    "9" * 40,
    "abc",
    "../..",
    "\0",
    "a=b",
    ",",
    "é" * 300,
    "[[[",
    "0.5,0.5",
    "/dev/null",
)
SETTINGS = (
    "lr",
    "epochs",
    "images",
    "val_images",
    "seed",
    "batch",
    "align",
    "ranking",
    "temperature",
    "distill",
    "cache_gb",
)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def api_arguments(count: int, seed: int, folder: Path) -> Section:
    """Rows of options and of the other functions' arguments, ``count`` of them drawn by the seed."""
    section = Section("arguments of functions", seed)
    plan = prunekit.plan(net(), X, ratio=0.5, scorer="magnitude")
    result = prunekit.prune(net(), X, ratio=0.5, scorer="magnitude")
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    calls = {
        "trace(value)": lambda value: prunekit.trace(value, X),
        "apply(value)": lambda value: prunekit.apply(value, plan),
        "apply(plan=value)": lambda value: prunekit.apply(net(), value),
        "apply(compensate=value)": lambda value: prunekit.apply(net(), plan, compensate=value),
        "save(value)": lambda value: prunekit.save(value, folder / "a"),
        "save(folder=value)": lambda value: prunekit.save(result, value),
        "save(spec=value)": lambda value: prunekit.save(result, folder / "b", spec=value),
        "save(extras=value)": lambda value: prunekit.save(result, folder / "c", extras=value),
        "load(value)": prunekit.load,
        "compose(value)": lambda value: prunekit.compose(plan, value),
        "migrate_optimizer(value)": lambda value: prunekit.migrate_optimizer(value, result),
        "migrate_optimizer(result=value)": lambda value: prunekit.migrate_optimizer(optimizer, value),
    }
    for name in (*options_said(), "example_inputs", "data", "structure", "model"):
        calls[f"prune({name}=value)"] = lambda value, name=name: _pruned(name, value)
    rows = [(call, value) for call in calls for value in ODD]
    here = os.getcwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        for call, value in random.Random(seed).sample(rows, min(count, len(rows))):
            section.attempt(lambda c=call, v=value: calls[c](ODD[v]), f"{call} of {value}")
    finally:
        os.chdir(here)
    return section


def _pruned(name: str, value: object) -> None:
    model = net()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    given = {"model": model, "example_inputs": X, "scorer": "magnitude", name: value}
    try:
        prunekit.prune(**given)
    except BaseException:
        after = model.state_dict()
        if not all(after[key].shape == old.shape and torch.equal(after[key], old) for key, old in before.items()):
            raise AssertionError("a refused model was changed") from None
        raise


def command_arguments(count: int, seed: int, folder: Path) -> Section:
    """Rows of every flag and argument of every command, and of settings; what each is called with is in ``flags``."""
    from prunekit.cli.app import run

    section, draw = Section("arguments of commands", seed), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(folder))
    prepared(folder)
    base = ["python:hostile_nets:tiny_model", "--scorer", "magnitude", "--set=latency=false", "--set=images=2"]
    base += ["--set=val_images=1", "--set=train_images=2"]
    rows = [flag.line(text) for flag in every_flag() for text in (TEXTS if flag.valued else TEXTS[:1])]
    rows += [["prune", *base, flag, text] for flag in ("--bogus", "--rato") for text in TEXTS]
    rows += [["prune", *base, f"--set={name}={text}"] for name in SETTINGS for text in TEXTS]
    rows += [[command, text] for command in ("compare", "eval", "export", "list", "prune", "prun") for text in TEXTS]
    rows += [["export", text, "--to", "onnx", "--out", "x"] for text in TEXTS]
    rows += [["eval", "python:hostile_nets:tiny_model", "--data", text] for text in TEXTS]
    here = os.getcwd()
    os.chdir(folder)
    try:
        for row in draw.sample(rows, min(count, len(rows))):
            _command(section, run, row)
    finally:
        os.chdir(here)
        sys.path.remove(str(folder))
    return section


def _command(section: Section, run, row: list[str]) -> None:
    said = io.StringIO()

    def call():
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = run(row)
        if code == 1 or "Traceback" in said.getvalue():
            raise RuntimeError(said.getvalue()[:300])
        return code in (0, 3) or (code == 2 and said.getvalue().startswith("prunekit: ")) or row[1:] == []

    section.attempt(call, " ".join(row)[:200], seconds=240)
