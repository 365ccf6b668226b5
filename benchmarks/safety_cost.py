"""What checksums, flushing and the commit cost of save, load and apply: ``python -m benchmarks.safety_cost``.

Checksums are computed beside other work, so theirs is the difference between calls with and without them, made in
turn in one run; the rest is timed inside the calls that it belongs to.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import prunekit
from prunekit.checkpoints import damage, reading, save, saving
from prunekit.files import folders
from prunekit.inputs import infer
from prunekit.plans.bundle import Bundle
from prunekit.registry import build
from prunekit.surgery import cutting


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.safety_cost")
    parser.add_argument("model", nargs="?", default="sam:vit_b")
    parser.add_argument("--repeats", type=int, default=41)
    asked = parser.parse_args()
    torch.manual_seed(0)
    built = build(asked.model)
    part = built.model.get_submodule(built.part)
    plan = prunekit.plan(part, infer(part), ratio=0.5, scorer="magnitude", verify="shapes")
    spent: dict[str, float] = {}
    for module, name, what in (
        (folders, "flushed_tree", "flushing"),
        (reading, "name_not_finite", "finite"),
        (cutting, "standing", "commit"),
    ):
        _timed(module, name, what, spent)
    rows: dict[str, list[tuple[float, dict[str, float]]]] = {}

    def timed(call: str, do: Callable[[], Any]) -> Any:
        gc.collect()
        spent.clear()
        start = time.perf_counter()
        found = do()
        rows.setdefault(call, []).append((time.perf_counter() - start, dict(spent)))
        return found

    undo = timed("apply", lambda: prunekit.apply(part, plan))
    for _ in range(asked.repeats):
        undo()
        undo = timed("apply", lambda: prunekit.apply(part, plan))
    kept = Bundle(built.model, plan, {}, asked.model, {}, built.part)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "slim"
        for call, do in (("save", lambda: save(kept, folder, spec=None)), ("load", lambda: prunekit.load(folder))):
            save(kept, folder, spec=None)  # what is replaced or loaded has checksums, and is in the cache
            for number in range(2 * asked.repeats):
                checked = number % 4 in (0, 3)  # with, without, without, with: neither is always the first
                _checksums(checked)
                timed(call if checked else f"{call} without", do)
            _checksums(True)
    _tell(rows)


_DIGEST, _CHECK = folders.digest, reading.check_damage


def _checksums(on: bool) -> None:
    folders.digest = damage.digest = saving.digest = _DIGEST if on else lambda path: ""
    reading.check_damage = _CHECK if on else lambda folder: nullcontext(lambda: None)


def _tell(rows: dict[str, list[tuple[float, dict[str, float]]]]) -> None:
    for call in ("apply", "save", "load"):
        found = rows[call]
        total = _low([seconds for seconds, _ in found])
        parts = {name: _low([each.get(name, 0.0) for _, each in found]) for name in found[-1][1]}
        told = [f"{name} {seconds:.3f} s ({seconds / total:.1%})" for name, seconds in parts.items()]
        if f"{call} without" in rows:
            without = [seconds for seconds, _ in rows[f"{call} without"]]
            medians = statistics.median(seconds for seconds, _ in found) / statistics.median(without) - 1
            told.append(f"checksums {total / _low(without) - 1:+.1%} (between medians {medians:+.1%})")
        sys.stdout.write(f"{call}: {total:.3f} s, of it {', '.join(told)}; lower quartiles of {len(found)}\n")


def _low(seconds: list[float]) -> float:
    """The lower quartile: what else runs on a machine only ever adds time."""
    return statistics.quantiles(seconds)[0]


def _timed(module: Any, name: str, what: str, spent: dict[str, float]) -> None:
    whole = getattr(module, name)

    def call(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return whole(*given, **named)
        finally:
            spent[what] = spent.get(what, 0.0) + time.perf_counter() - start

    setattr(module, name, call)


if __name__ == "__main__":
    main()
