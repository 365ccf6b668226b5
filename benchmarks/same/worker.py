"""Runs items in whichever tree PYTHONPATH names, and prints a digest of what came of each.

Both trees run this one file, so it uses what does not move: the public calls and the command line. It imports nothing
of the benchmarks beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import runpy
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What the machine decides, not the code: seconds, measured latency, and the folder that the run was written to
BY_THE_CLOCK = ("seconds", "latency_ms", "latency", "out")


def planned(item: dict[str, Any]) -> dict[str, str]:
    """The plan of one row of a zoo list."""
    import torch

    import prunekit

    spec = importlib.util.spec_from_file_location("zoo_builder", item["builder"])
    assert spec is not None
    assert spec.loader is not None
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    torch.manual_seed(0)
    model, x = zoo.build(item["entry"])
    how: dict[str, Any] = {"verify": "shapes"} if item["entry"].get("heavy") else {}
    return {"plan": digest(prunekit.plan(model, x, ratio=0.5, **how).to_json().encode())}


def ran(item: dict[str, Any]) -> dict[str, str]:
    """What one run of a recipe leaves: every file but pictures, the report less what the clock decides."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command(["prune", *item["arguments"], "--out", str(out)])
        found = {name: digest((out / name).read_bytes()) for name in ("plan.json", "model.safetensors", "model.json")}
        report = timeless(json.loads((out / "report.json").read_text()))
        return found | {
            f"report {key}": digest(json.dumps(value, sort_keys=True).encode()) for key, value in report.items()
        }


def command(arguments: list[str]) -> None:
    """``prunekit ARGUMENTS`` in this process. Raises RuntimeError with what it said where it fails."""
    sys.argv = ["prunekit", *arguments]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_module("prunekit", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(said.getvalue()[-2000:]) from end


def timeless(value: Any) -> Any:
    """A report without what the clock decides."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in BY_THE_CLOCK}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


KINDS = {"plan": planned, "run": ran}


def results(items: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each item by name with its digests, or with the error it ended in."""
    for item in items:
        try:
            found = KINDS[item["kind"]](item)
        except Exception as error:  # both trees must end in the same one
            said = str(error).split("\n  next: ")[0]  # the hint is there to be bettered
            found = {"error": f"{type(error).__name__}: {said}"[:2000]}
        yield item["name"], found


def main() -> None:
    # an installed tree must not lend a module that the measured one lacks
    sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
    warnings.simplefilter("ignore")
    logging.disable()
    for name, found in results(json.loads(sys.stdin.read())):
        print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main()
