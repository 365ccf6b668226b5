"""A fault at any line of the library, and whether a model then stands as it stood."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import prunekit
from prunekit.surgery.history import _CUTS
from prunekit.surgery.stale import _DEAD

ROOT = str(Path(prunekit.__file__).parent)


class Fault(BaseException):
    """Raised where a harness says; nothing in the library knows it."""


@dataclass(frozen=True)
class Thrown:
    """What became of a fault: whether it came out of the call, and else where it was swallowed; the lines run.

    ``gradients``: whether gradients were on or off afterwards as before.
    """

    raised: bool
    swallowed: str
    lines: int
    gradients: bool = True


def faulted(call: Callable[[], object], at: int | None) -> tuple[bool, int]:
    """Runs ``call`` and raises ``Fault`` before the line number ``at`` of the library; (whether raised, lines)."""
    found = thrown(call, at)
    return found.raised, found.lines


def thrown(call: Callable[[], object], at: int | None) -> Thrown:
    """``faulted``, with where a fault was raised that did not come out, but for what Python itself swallows."""
    count, where = 0, ""

    def trace(frame, event, _):
        nonlocal count, where
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        if event == "line":
            count += 1
            if count == at:
                place = frame.f_code.co_filename.removeprefix(ROOT)
                caller = frame.f_back
                while caller is not None and not caller.f_code.co_filename.startswith(ROOT):
                    caller = caller.f_back
                collected = frame.f_code.co_name in ("<lambda>", "__del__") or caller is None
                where = "" if collected else f"{place}:{frame.f_lineno}"
                raise Fault
        return trace

    before, gradients, raised = sys.gettrace(), torch.is_grad_enabled(), False
    sys.settrace(trace)
    try:
        call()
    except Fault:
        raised = True
    finally:
        sys.settrace(before)
        kept = torch.is_grad_enabled() == gradients
        # what is raised between the last line of a with block and its __exit__ leaves the block's mode set; the next
        # test must not run in it
        torch.set_grad_enabled(gradients)
    return Thrown(raised, "" if raised else where, count, kept)


def lines_of(call: Callable[[], object]) -> int:
    """How many lines of the library ``call`` runs."""
    return faulted(call, None)[1]


def points(total: int, count: int, seed: int) -> list[int]:
    """Half of them anywhere, half among the last lines, where something is changed."""
    draw = random.Random(seed)
    late = range(max(1, total - total // 20), total + 1)
    found = [
        *draw.sample(range(1, total + 1), min(count // 2, total)),
        *draw.sample(late, min(count // 2, len(late))),
    ]
    return sorted(set(found))


def stand(model: torch.nn.Module, besides: tuple[str, ...] = ("seen",)) -> dict:
    """Everything there is to see of a model, by reference and by bits; attributes ``besides`` are its own caches."""
    found = {}
    for name, module in model.named_modules():
        found[name, "class"] = type(module)
        for key, value in module.__dict__.items():
            if key not in besides:
                found[name, key] = tuple(value.items()) if isinstance(value, dict) else value
    for name, tensor in model.state_dict(keep_vars=True).items():
        found[name, "bits"] = tensor.detach().cpu().numpy().tobytes()
        found[name, "flags"] = (tensor.requires_grad, id(tensor.grad), id(tensor))
    found["", "cuts"] = id(_CUTS.get(model))
    found["", "dead"] = tuple(sorted(k for k in _DEAD if any(k == id(p) for p in model.parameters())))
    return found


def same(one: dict, other: dict) -> bool:
    """Whether two stands are one."""

    def equal(a, b):
        if isinstance(a, tuple) and isinstance(b, tuple):
            return len(a) == len(b) and all(map(equal, a, b))
        return a is b or (not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and bool(a == b))

    return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
