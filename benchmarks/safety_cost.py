"""What checksums, flushing and the commit cost of save, load and apply: ``python -m benchmarks.safety_cost``.

Each is timed inside the calls that it belongs to, in one run, so that noise is of both alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import prunekit
from prunekit.checkpoints import reading, save
from prunekit.files import folders
from prunekit.inputs import infer
from prunekit.plans.bundle import Bundle
from prunekit.registry import build
from prunekit.surgery import cutting


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.safety_cost")
    parser.add_argument("model", nargs="?", default="sam:vit_b")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    built = build(asked.model)
    part = built.model.get_submodule(built.part)
    plan = prunekit.plan(part, infer(part), ratio=0.5, scorer="magnitude", verify="shapes")
    spent: dict[str, float] = {}
    for module, name, what in (
        (folders, "checksums", "checksums"),
        (folders, "flushed_tree", "flushing"),
        (folders, "flushed", "flushing"),
        (reading, "check_damage", "checksums"),
        (reading, "name_not_finite", "finite"),
        (cutting, "standing", "commit"),
    ):
        _timed(module, name, what, spent)
    rows: dict[str, list[tuple[float, dict[str, float]]]] = {}

    def timed(call: str, do):
        spent.clear()
        start = time.perf_counter()
        found = do()
        rows.setdefault(call, []).append((time.perf_counter() - start, dict(spent)))
        return found

    undo = timed("apply", lambda: prunekit.apply(part, plan))
    with tempfile.TemporaryDirectory() as place:
        for _ in range(asked.repeats):
            undo()
            undo = timed("apply", lambda: prunekit.apply(part, plan))
            kept = Bundle(built.model, plan, {}, asked.model, {}, built.part)
            timed("save", lambda kept=kept: save(kept, Path(place) / "slim", spec=None))
            timed("load", lambda: prunekit.load(Path(place) / "slim"))
    for call, found in rows.items():
        total = statistics.median(seconds for seconds, _ in found)
        parts = {name: statistics.median(each.get(name, 0.0) for _, each in found) for name in found[-1][1]}
        told = ", ".join(f"{name} {seconds:.3f} s ({seconds / total:.1%})" for name, seconds in parts.items())
        sys.stdout.write(f"{call}: {total:.3f} s, of it {told or 'nothing'}; median of {len(found)}\n")


def _timed(module, name: str, what: str, spent: dict[str, float]) -> None:
    whole = getattr(module, name)

    def call(*given, **named):
        start = time.perf_counter()
        try:
            return whole(*given, **named)
        finally:
            spent[what] = spent.get(what, 0.0) + time.perf_counter() - start

    setattr(module, name, call)


if __name__ == "__main__":
    main()
