"""Prunes one model, saves it as its library does, and has it loaded elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import prunekit
from benchmarks.homes.away import _tensors
from prunekit.errors import ConfigError

RATIO = 0.5
TOLERANCE = 1e-5
AWAY = Path(__file__).with_name("away.py")
Record = dict[str, Any]


def measure(model: nn.Module, inputs: dict[str, torch.Tensor], rebuild: Any) -> Record:
    """What became of one model: how it went home, what is gone, how far the outputs are off."""
    before = sum(p.numel() for p in model.parameters())
    start = time.perf_counter()
    try:
        result = prunekit.prune(model, inputs, ratio=RATIO, uniform=True)
        way = "plain"
    except ConfigError as error:
        model = rebuild()
        result = prunekit.prune(model, inputs, ratio=RATIO)
        way, trouble = "one line", str(error).splitlines()[0][:300]
    record: Record = {
        "class": type(model).__name__,
        "home": way,
        "removed": round(1 - sum(p.numel() for p in model.parameters()) / before, 4),
        "seconds": round(time.perf_counter() - start, 2),
    }
    if way == "one line":
        return record | {"why": trouble} | _by_prunekit(result, model, inputs)
    assert result.home is not None
    record["config"] = {entry: [was, now] for entry, was, now in result.home.edits}
    return record | _by_library(model, inputs)


def _by_library(model: Any, inputs: dict[str, torch.Tensor]) -> Record:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "model")
        asked = {"class": type(model).__name__, "generate": _generates(model, inputs)}
        (folder / "asked.json").write_text(json.dumps(asked))
        save_file({key: value.contiguous() for key, value in inputs.items()}, folder / "inputs.safetensors")
        done = subprocess.run([sys.executable, "-P", str(AWAY), name], capture_output=True, text=True, check=False)
        if done.returncode:
            return {"status": "failed", "error": done.stderr.strip().splitlines()[-1][:300]}
        away = load_file(folder / "away.safetensors")
    far = _far(_run(model, inputs), [away[key] for key in sorted(away, key=_number) if key != "text"])
    found: Record = {"difference": far, "status": "equal" if far <= TOLERANCE else "unequal"}
    if "text" in away:
        torch.manual_seed(0)
        found["generates"] = torch.equal(model.generate(**inputs, max_new_tokens=8, do_sample=False), away["text"])
        found["status"] = found["status"] if found["generates"] else "unequal"
    return found


def _by_prunekit(result: Any, model: nn.Module, inputs: dict[str, torch.Tensor]) -> Record:
    with tempfile.TemporaryDirectory() as name:
        prunekit.save(result, Path(name) / "slim")
        again = prunekit.load(Path(name) / "slim")
    far = _far(_run(model, inputs), _run(again, inputs))
    return {"difference": far, "status": "equal" if far <= TOLERANCE else "unequal"}


def _run(model: nn.Module, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        return [t for t in _tensors(model(**inputs)) if t.is_floating_point()]


def _far(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    if [x.shape for x in a] != [x.shape for x in b]:
        return float("inf")
    pairs = [(x.double(), y.double()) for x, y in zip(a, b, strict=True) if x.numel()]
    return max((float((x - y).abs().max()) / max(float(x.abs().max()), 1e-12) for x, y in pairs), default=0.0)


def _generates(model: Any, inputs: dict[str, torch.Tensor]) -> bool:
    if not model.can_generate() or "input_ids" not in inputs:
        return False
    try:
        model.generate(**inputs, max_new_tokens=8, do_sample=False)
    except Exception:  # a class that says that it generates and, from these inputs, does not
        return False
    return True


def _number(key: str) -> int:
    return int(key.removeprefix("out")) if key.startswith("out") else -1


def pretrained(spec: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The model in a folder, and token ids for it."""
    from prunekit.registry import build

    model: Any = build(spec).model
    ids = torch.randint(1000, model.config.vocab_size, (1, 24), generator=torch.Generator().manual_seed(0))
    return model, {"input_ids": ids}


def main(path: str, name: str) -> None:
    import logging
    import warnings

    from benchmarks.zoo.row import place
    from benchmarks.zoo.rows import builder, read_row

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        if path.startswith("hf:"):
            model, inputs = pretrained(path)
            record = measure(model, inputs, lambda: pretrained(path)[0])
        else:
            entry = {key: value for key, value in read_row(Path(path), name).entry.items() if key != "only"}
            zoo = builder(Path(path))
            model, inputs = zoo.build(entry)
            record = measure(model, inputs, lambda: zoo.build(entry)[0])
    except Exception as error:  # whatever a library raises is a row, not the end of the run
        record = {"status": "failed", "error": f"{type(error).__name__}: {error}"[:300], "where": place(error)}
    sys.stdout.write(f"\n{json.dumps(record)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
