"""Which multiples of a width a device's kernels want: a small table that is measured once and kept.

A width a little above a full block of a kernel costs as much as the next full block. How long a block is depends on the
device, on the element type and on the kind of product, and is measured here rather than known.
"""

from __future__ import annotations

import json
import logging
import os
import re
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from prunekit.quantities.stopwatch import Timer, Turn, conditions

logger = logging.getLogger(__name__)

FORMAT = "prunekit.kernels/1"
KINDS = ("convolution", "linear")
STEPS = (1, 2, 4, 8, 16, 32, 64)
ABOUT = 256  # units: the width around which steps are compared
NEAR = 0.04  # of the least time: a step that costs no more than that is as good as a larger one
ROUNDS = 6


@dataclass(frozen=True)
class Kernels:
    """The multiple that each kind of product wants on one device and element type, and where that is known from.

    ``costs`` is the time of a product at widths that are multiples of a step and of no larger one, by kind and step,
    as a part of the least; empty where nothing was measured. ``noise`` is how far apart the two least rounds of one
    product are, the median over products: above ``NEAR`` nothing can be told from it.
    """

    steps: Mapping[str, int]
    source: str
    costs: Mapping[str, Mapping[int, float]]
    noise: float = 0.0

    def __str__(self) -> str:
        steps = ", ".join(f"{step} ({kind})" for kind, step in self.steps.items())
        return f"multiples of {steps}; {self.source}"


def known_kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """What was measured and kept for this device, element type and torch version; else values by rule."""
    file = kept_at(device)
    told = _table_at(file)
    if told is not None and told["conditions"] == conditions(device) and str(dtype) in told["types"]:
        held = told["types"][str(dtype)]
        costs = {kind: {int(step): cost for step, cost in row.items()} for kind, row in held["costs"].items()}
        return Kernels(held["steps"], f"measured on this {device.type}", costs)
    steps = _steps_by_rule(device, dtype)
    return Kernels(steps, f"by rule for {_device_title(device, dtype)}, prunekit doctor --kernels measures", {})


def measured_kernels(device: torch.device, dtype: torch.dtype, timer: Timer | None = None) -> Kernels:
    """The steps as the clock finds them, within a minute or so on a CPU.

    A step counts as good where a product at its odd multiples near 256 costs, for each multiply-add, at most 4 % more
    than at those of the best step; the smallest such step is told, so that widths stay as free as they can.
    """
    timer = timer or Turn(runs=5)
    found = {kind: _step_costs(kind, device, dtype, timer) for kind in KINDS}
    costs = {kind: row for kind, (row, _) in found.items()}
    steps = {kind: min(step for step, cost in row.items() if cost <= 1 + NEAR) for kind, row in costs.items()}
    return Kernels(steps, f"measured on this {device.type}", costs, max(noise for _, noise in found.values()))


def keep_kernels(device: torch.device, found: Mapping[torch.dtype, Kernels]) -> Path:
    """Writes what was measured into the user's cache folder, whole or not at all; returns the file."""
    file = kept_at(device)
    types = {
        str(dtype): {"steps": dict(of.steps), "costs": {kind: dict(costs) for kind, costs in of.costs.items()}}
        for dtype, of in found.items()
    }
    told = {"format": FORMAT, "conditions": conditions(device), "types": types}
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(json.dumps(told, indent=1) + "\n")
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return file


def kept_at(device: torch.device) -> Path:
    """The file of a device: one for each name, torch version and number of threads."""
    here = conditions(device)
    name = "-".join(str(here[part]) for part in ("device", "name", "torch", "threads"))
    return cache_folder() / "kernels" / (re.sub(r"[^\w.+-]+", "_", name) + ".json")


def cache_folder() -> Path:
    """The user's cache folder for prunekit, by platformdirs where it is installed."""
    if find_spec("platformdirs") is not None:
        return Path(import_module("platformdirs").user_cache_dir("prunekit"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunekit"


def _table_at(file: Path) -> Any:
    """The table of a file; None where there is none, or where it cannot be read, which is logged."""
    try:
        told = json.loads(file.read_text())
        good = told["format"] == FORMAT and all(
            set(held["steps"]) == set(KINDS) and all(step in STEPS for step in held["steps"].values())
            for held in told["types"].values()
        )
        if not good:
            raise ValueError("other format or values")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is no table of kernels (%s): measure again by prunekit doctor --kernels", file, error)
        return None
    return told


def _steps_by_rule(device: torch.device, dtype: torch.dtype) -> dict[str, int]:
    """Where nothing was measured: 128 bytes for tensor cores, blocks of vector registers on a CPU, else 8."""
    if device.type == "cuda":
        step = 128 // dtype.itemsize
    elif device.type == "cpu":
        step = 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8
    else:
        step = 8
    return dict.fromkeys(KINDS, min(step, max(STEPS)))


def _device_title(device: torch.device, dtype: torch.dtype) -> str:
    capability = f" {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else ""
    return f"{device.type}{capability} and {str(dtype).removeprefix('torch.')}"


def _step_costs(kind: str, device: torch.device, dtype: torch.dtype, timer: Timer) -> tuple[dict[int, float], float]:
    """Time for each multiply-add at odd multiples of every step, as a part of the least, and the noise of it."""
    widths = {step: (ABOUT - step, ABOUT + step) for step in STEPS}
    times: dict[int, list[float]] = {width: [] for pair in widths.values() for width in pair}
    with torch.no_grad():
        for _ in range(ROUNDS):  # in turn, so that a slow minute meets every width
            for width, known in times.items():
                known.append(timer.seconds(_product_of_width(kind, width, device, dtype), device) / width**2)
    each = {step: statistics.mean(min(times[width]) for width in pair) for step, pair in widths.items()}
    two = [sorted(known)[:2] for known in times.values()]
    least = min(each.values())
    return {step: round(cost / least, 4) for step, cost in each.items()}, statistics.median(b / a - 1 for a, b in two)


def _product_of_width(kind: str, width: int, device: torch.device, dtype: torch.dtype) -> Callable[[], object]:
    """One product from ``width`` units to as many."""
    made: dict[str, Any] = {"device": device, "dtype": dtype}
    if kind == "linear":
        x, weight = torch.ones(196, width, **made), torch.ones(width, width, **made)
        return lambda: functional.linear(x, weight)
    image, kernel = torch.ones(1, width, 14, 14, **made), torch.ones(width, width, 3, 3, **made)
    return lambda: functional.conv2d(image, kernel, padding=1)
