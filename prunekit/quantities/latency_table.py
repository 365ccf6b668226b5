"""Latency of a pruned model before it exists: every operator is timed once a shape, on the device at hand."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError
from prunekit.inputs import Inputs
from prunekit.quantities.limits import PLAIN, runner_of
from prunekit.quantities.runners import RUNNERS
from prunekit.quantities.stopwatch import Clock, Timer, conditions, seconds_of_calls
from prunekit.quantities.work import Work, arguments_of, elements_of, key_of, works

FORMAT = "prunekit.latency/1"
_MODULE_CALL, _CALLS = "a module call", 64
_TIMES = 3  # that a model is timed on each side of its operators


@dataclass(eq=False)
class LatencyTable:
    """Seconds by operator and shapes on one device. Each entry is measured when it is first asked for, and stays.

    Pass one table to several calls, or save it and load it in a later process: what recurs is not measured again.
    Views cost nothing; calling a module costs what Python takes for an empty one. An operator that cannot be run
    alone at other shapes (its arguments name sizes) is given the time of its traced shapes, scaled by the elements of
    its result.

    Attributes:
        device: where operators run; only models on this device can be told about.
        timer: how a call is timed.
        seconds: seconds by a text that names operator, shapes, dtypes and other arguments; None where it cannot run.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    timer: Timer = field(default_factory=Clock)
    seconds: dict[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = torch.device(self.device)
        if str(self.device) == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device())

    def save(self, file: str | Path) -> None:
        """Writes the entries as JSON, with the machine, version and threads that they hold for."""
        told = {"format": FORMAT, "conditions": conditions(self.device), "seconds": self.seconds}
        Path(file).write_text(json.dumps(told, indent=1) + "\n")

    @classmethod
    def load(cls, file: str | Path, device: torch.device | str = "cpu", timer: Timer | None = None) -> LatencyTable:
        """A table that was saved. Raises InputError where it is none, or was measured under other conditions."""
        try:
            told = json.loads(Path(file).read_text())
            found = dict(told["conditions"])
            kept = {str(k): None if v is None else float(v) for k, v in told["seconds"].items()}
            if told["format"] != FORMAT or any(v is not None and not 0 <= v < math.inf for v in kept.values()):
                raise ValueError("other format or values")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"this is not a latency table: {error}",
                where=str(file),
                hint="pass a file that LatencyTable.save wrote",
            ) from error
        here = conditions(torch.device(device))
        if found != here:
            differ = ", ".join(f"{k}: {found.get(k)!r}, here {v!r}" for k, v in here.items() if found.get(k) != v)
            raise InputError(
                f"the latency table was measured elsewhere ({differ})", where=str(file), hint="measure a new one here"
            )
        return cls(torch.device(device), timer or Clock(), kept)

    def total(self, structure: Structure, kept: Mapping[str, Tensor]) -> float:
        """Seconds of the operators and module calls of a forward pass, when each named group keeps the given units."""
        shapes = structure.shapes(kept) if kept else {}
        gone = structure.gone(kept)
        calls = sum(not is_inside(call.module, gone) for call in structure.trace.modules)
        with torch.no_grad(), torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            between = calls * self._module_call()  # stays when widths shrink
            return math.fsum([between, *(self.of(work, shapes) for work in works(structure.trace, gone))])

    def _module_call(self) -> float:
        """Seconds that Python takes to call a module that does nothing."""
        if _MODULE_CALL not in self.seconds:
            empty, nothing = nn.Identity(), torch.empty(0, device=self.device)

            def run() -> None:
                for _ in range(_CALLS):
                    empty(nothing)

            self.seconds[_MODULE_CALL] = self.timer.seconds(run, self.device) / _CALLS
        return self.seconds[_MODULE_CALL] or 0.0

    def of(self, work: Work, shapes: Mapping[int, tuple[int, ...]]) -> float:
        """Seconds of ``work`` when tensors have the given shapes by id."""
        here = self._measured(work, shapes)
        if here is not None:
            return here
        before = self._measured(work, {})
        if before is None:
            return 0.0
        return before * elements_of(work.outputs, shapes) / max(1, elements_of(work.outputs, {}))

    def _measured(self, work: Work, shapes: Mapping[int, tuple[int, ...]]) -> float | None:
        key = key_of(work, shapes)
        if key not in self.seconds:
            self.seconds[key] = self._run(work, shapes)
        return self.seconds[key]

    def _run(self, work: Work, shapes: Mapping[int, tuple[int, ...]]) -> float | None:
        try:
            args, kwargs = arguments_of(work, shapes, self.device)
            return self.timer.seconds(lambda: work.func(*args, **kwargs), self.device)
        except (RuntimeError, TypeError, NotImplementedError, IndexError, ValueError):
            return None  # the arguments name sizes that belong to the traced shapes


@dataclass(frozen=True, eq=False)
class Pace:
    """One measurement of a model, and what it makes of a table: seconds of the model at any widths.

    ``whole`` is the measured latency of the model as it is, in seconds. The sum over its operators is brought to it by
    one ``factor``, so that what happens between operators is in it, or what a compiler makes of them; every prediction,
    every relative limit and every later step of the same call refers to this one measurement. ``quantity`` is what was
    measured, by its name in a target, and ``call`` runs the model so, while it is as it was.
    """

    table: LatencyTable
    whole: float
    factor: float
    quantity: str
    call: Callable[[], object]

    @classmethod
    def of(
        cls, model: nn.Module, structure: Structure, table: LatencyTable | None = None, quantity: str = "latency"
    ) -> Pace:
        """Times the model and its operators. Raises InputError where the table is for another device, and what the
        runner that ``quantity`` names raises."""
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        table = table or LatencyTable(device)
        if table.device != device:
            raise InputError(
                f"the latency table is for {table.device} and the model is on {device}",
                where="latency",
                hint="pass a table of the model's device",
            )
        if device.type == "meta":
            raise InputError("a model on the meta device has no latency", hint="limit macs, params or memory")
        call = RUNNERS[runner_of(quantity) or PLAIN].prepared(model, structure.inputs)
        times = [seconds_of_calls(call, model, table.timer) for _ in range(_TIMES)]
        operators = table.total(structure, {})  # between the two halves: what drifts, drifts through both
        times += [seconds_of_calls(call, model, table.timer) for _ in range(_TIMES)]
        whole = statistics.median(times)
        return cls(table, whole, whole / operators if operators else 0.0, quantity, call)

    @property
    def runner(self) -> str:
        """The name of what runs the model."""
        return runner_of(self.quantity) or PLAIN

    def prepared(self, model: nn.Module, inputs: Inputs) -> Callable[[], object]:
        """A call of ``model`` as it stands now, run as the original was. Raises what the runner raises."""
        return RUNNERS[self.runner].prepared(model, inputs)

    def seconds(self, structure: Structure, kept: Mapping[str, Tensor]) -> float:
        """Predicted seconds of a forward pass on the example inputs, when each named group keeps the given units."""
        return self.factor * self.table.total(structure, kept)

    def measured(self, model: nn.Module, inputs: Inputs) -> float:
        """Seconds of a forward pass of ``model`` as it stands, timed as the original was."""
        call = self.prepared(model, inputs)
        return statistics.median(seconds_of_calls(call, model, self.table.timer) for _ in range(2 * _TIMES))
