"""Measured latency: of a model's forward pass, or of any call."""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn

from prunekit.inputs import Inputs
from prunekit.modules.write_guard import originals_of
from prunekit.tracing.standin import swapped


class Timer(Protocol):
    """How long a call takes on a device."""

    def seconds(self, run: Callable[[], object], device: torch.device) -> float: ...


@dataclass(frozen=True)
class Clock:
    """The median over several runs, each against a yardstick that is timed right before and after it.

    On a shared CPU the pace itself changes by half within seconds, and neither minima nor medians of one call agree
    with those of the next; of the ratio to a fixed small product they do. Times are therefore ratios, in seconds of the
    yardstick at its fastest. With one thread that thread's own time is read, which other programs do not add to. Before
    each run ``sweep`` bytes are written, so that an operator finds its operands as cold as in the middle of a model.
    On other devices it is the plain median.

    At least ``least`` runs, at most ``most``, and for about ``budget`` seconds, after one that is not counted.
    """

    least: int = 7
    most: int = 25
    budget: float = 0.05
    sweep: int = 4 * 2**20

    def seconds(self, run: Callable[[], object], device: torch.device) -> float:
        run()
        times: list[float] = []
        began = time.perf_counter()
        while len(times) < self.least or (len(times) < self.most and time.perf_counter() - began < self.budget):
            times.append(self._against_yardstick(run) if device.type == "cpu" else _timed(run, device))
        median = statistics.median(times)
        return median * fastest_yardstick() if device.type == "cpu" else median

    def _against_yardstick(self, run: Callable[[], object]) -> float:
        """The time of ``run`` as a multiple of the yardstick."""
        before = _timed(_yardstick, _CPU)
        torch.ones(
            self.sweep, dtype=torch.uint8, device="cpu"
        )  # written, unlike zeros, which may come from the system unwritten
        taken = _timed(run, _CPU)
        return 2 * taken / (before + _timed(_yardstick, _CPU))


@dataclass(frozen=True)
class Glance:
    """The median of a few runs, and of one alone where that takes long: a figure for people, quickly.

    A first run pays for what libraries set up once. Where it took less than ``long`` seconds it is not counted.
    """

    long: float = 0.1
    most: int = 5
    budget: float = 0.1

    def seconds(self, run: Callable[[], object], device: torch.device) -> float:
        first = _timed(run, device)
        if first >= self.long:
            return first
        times: list[float] = []
        while len(times) < self.most and sum(times) < self.budget:
            times.append(_timed(run, device))
        return statistics.median(times)


@dataclass(frozen=True)
class Turn:
    """The least of three runs after one that is not counted: for two models that take turns and are compared.

    What drifts meets both, so no yardstick is needed, whose own noise is more than that of a model.
    """

    runs: int = 3

    def seconds(self, run: Callable[[], object], device: torch.device) -> float:
        run()
        return min(_timed(run, device) for _ in range(self.runs))


_CPU = torch.device("cpu")
_SQUARE = 192  # side of the yardstick's product: a fifth of a millisecond or so, and in the nearest caches
_YARDSTICKS = 200


def _yardstick() -> Tensor:
    side = torch.ones(_SQUARE, _SQUARE, device="cpu")
    return side @ side


@cache
def fastest_yardstick() -> float:
    """Seconds of the yardstick when nothing is in its way; measured once a process."""
    return min(_timed(_yardstick, _CPU) for _ in range(_YARDSTICKS))


@dataclass(frozen=True)
class Latency:
    """Seconds for one forward pass: minimum, median and maximum over ``runs``."""

    minimum: float
    median: float
    maximum: float
    runs: int


def latency(model: nn.Module, inputs: Inputs, *, runs: int = 5, warmup: int = 1) -> Latency:
    """Wall-clock time of ``model(*inputs.args, **inputs.kwargs)`` in eval mode without gradients."""
    device = _device(model)
    with _as_it_stands(model), torch.no_grad():
        times = [_timed(lambda: model(*inputs.args, **inputs.kwargs), device) for _ in range(warmup + runs)][warmup:]
    return Latency(min(times), statistics.median(times), max(times), runs)


def seconds_of(model: nn.Module, inputs: Inputs, timer: Timer) -> float:
    """Seconds of ``model(*inputs.args, **inputs.kwargs)`` in eval mode without gradients, as ``timer`` tells them."""
    return seconds_of_calls(lambda: model(*inputs.args, **inputs.kwargs), model, timer)


def seconds_of_calls(call: Callable[[], object], model: nn.Module, timer: Timer) -> float:
    """Seconds of ``call``, which runs ``model`` in one way or another, in eval mode without gradients."""
    with _as_it_stands(model), torch.no_grad():
        return timer.seconds(call, _device(model))


@contextlib.contextmanager
def _as_it_stands(model: nn.Module) -> Iterator[None]:
    """Inside, a model in eval mode with its own tensors, copied beforehand: to watch each operator would take time."""
    kept = originals_of(model)
    kept.keep_all()
    try:
        with swapped(model, lambda _, tensor: tensor, tables=None):
            yield
    finally:
        kept.put_back()


def conditions(device: torch.device) -> dict[str, str | int]:
    """What a time on ``device`` depends on, apart from the work."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": str(device), "name": name, "torch": torch.__version__, "threads": torch.get_num_threads()}


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _timed(run: Callable[[], object], device: torch.device) -> float:
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start
