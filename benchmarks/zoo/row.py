"""Measures one row with one tool: ``python -m benchmarks.zoo.row TOOL LIST NAME`` writes one JSON record."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.exact import TOLERANCE, exactness
from benchmarks.zoo.rows import builder, read_row
from benchmarks.zoo.tools import TOOLS, Record, Tool, call, tensors
from prunekit.errors import PrunekitError

OK_REMOVED = 0.2
STAGE = "stage "  # what the runner looks for, to say where a process was when it had to be ended


class RowError(Exception):
    """A condition of the rule does not hold; carries the status that the row gets."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


def measure(
    tool: Tool, zoo: Any, entry: Record, say: Callable[[str], None] = lambda stage: None, *, exact: bool = False
) -> Record:
    """The record of one row: its status by the rule of the list, and what was measured; ``exact``: see exactness."""
    record: Record = {"status": "failed"}

    def enter(stage: str) -> None:
        record["stage"] = stage
        say(stage)

    try:
        _measure(tool, zoo, entry, record, enter, exact)
    except RowError as error:
        record.update(status=error.status, error=str(error))
    except Exception as error:  # whatever a model or a tool raises is a failed row, not a failed run
        record.update(status="failed", error=f"{type(error).__name__}: {error}"[:600], where=place(error))
    return record


def _measure(tool: Tool, zoo: Any, entry: Record, record: Record, enter: Callable[[str], None], exact: bool) -> None:
    enter("baseline")
    model, x = zoo.build(entry)
    shapes = _shapes(_run(model, x))
    record["params_before"] = _count(model)
    two = None if entry.get("heavy") else zoo.make_inputs(entry, 2)  # full-size rows are there for their time
    shapes_two = None if two is None else _shapes(_run(model, two))
    trains = _trains(model, x)
    before = digest(model)
    enter("prune")
    try:
        record.update(tool(model, x, entry, lambda: zoo.build(entry)[0]))
    except PrunekitError as error:
        if digest(model) != before:
            raise RowError("wrong", f"refused, but the model changed: {error}") from error
        raise RowError("refused", f"{type(error).__name__}: {error}"[:2000]) from error
    record["params_after"] = _count(model)
    record["removed"] = round(1 - record["params_after"] / max(1, record["params_before"]), 4)
    enter("forward")
    model.eval()
    model.zero_grad()
    out = tensors(call(model, x))
    free = bool(entry.get("varies"))
    _expect(_same(shapes, _shapes(out), free), "wrong", f"output shapes {shapes[:3]} became {_shapes(out)[:3]}")
    floats = [t for t in out if t.is_floating_point()]
    _expect(all(bool(torch.isfinite(t).all()) for t in floats), "failed", "outputs that are not finite")
    enter("backward")
    _expect(not trains or _backward(out), "failed", "the original trains, the pruned model does not")
    enter("batch of 2")
    if two is not None:
        got = _shapes(_run(model, two))
        _expect(_same(shapes_two or [], got, free), "wrong", f"output shapes {(shapes_two or [])[:3]} became {got[:3]}")
    enter("symmetry")
    if record["removed"] < OK_REMOVED:
        raise RowError("no-op", f"{record['removed']:.0%} of the parameters removed")
    symmetry = record.get("symmetry", "passed")  # the other tool has no such check
    untold = free and symmetry == "not run"  # rounding turns a decision, and nothing compares; exactness is left
    alone = symmetry == "broken groups left alone"
    _expect(
        symmetry == "passed" or untold or (exact and alone),
        "failed",
        f"{symmetry}: {', '.join(record.get('left_alone', []))}",
    )
    if exact:
        enter("exactness")
        record.update(exactness(lambda: zoo.build(entry)[0], x))
        far = record.get("exact_error", 0.0)
        _expect(far <= TOLERANCE, "wrong", f"{far:.1e} from the masked model")
    if alone:
        raise RowError("partly", f"not symmetric, left alone: {', '.join(record['left_alone'])}")
    record["status"] = "ok"
    del record["stage"]


def _same(before: list[tuple[int, ...]], after: list[tuple[int, ...]], free: bool) -> bool:
    """Whether shapes agree; where values decide how many there are (boxes, frames), all but how many."""
    if not free:
        return before == after
    return len(before) == len(after) and [len(s) for s in before] == [len(s) for s in after]


def _trains(model: nn.Module, x: Any) -> bool:
    """Whether the original runs backward in eval mode, which some libraries do not want."""
    try:
        return _backward(tensors(call(model, x)))
    except Exception:  # the library's own refusal, of any kind
        return False
    finally:
        model.zero_grad()


def _backward(out: list[Tensor]) -> bool:
    floats = [t.float().square().mean() for t in out if t.is_floating_point()]
    torch.autograd.backward(torch.stack(floats).sum())
    return True


def _expect(holds: bool, status: str, text: str) -> None:
    if not holds:
        raise RowError(status, text)


def _run(model: nn.Module, x: Any) -> list[Tensor]:
    with torch.no_grad():
        return tensors(call(model, x))


def _shapes(found: list[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in found]


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def digest(model: nn.Module) -> str:
    """Identifies a model bit for bit: its tensors, and the plain numbers among its modules' attributes."""
    found = hashlib.sha256()
    for path, module in model.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str, tuple))}
        found.update(f"{path} {type(module)} {plain!r}".encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def place(error: Exception) -> str:
    """The innermost line of the row's own library."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" in f.filename]
    frames = [f for f in frames if "/torch/" not in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def main(tool: str, path: str, name: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    row = read_row(Path(path), name)

    def say(line: str) -> None:
        sys.stdout.write(f"\n{line}\n")
        sys.stdout.flush()

    exact = tool == "prunekit" and not row.entry.get("heavy")
    record = measure(TOOLS[tool], builder(Path(path)), row.entry, lambda stage: say(STAGE + stage), exact=exact)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    record["peak_rss_mb"] = usage.ru_maxrss // 1024
    record["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 2)
    say(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
