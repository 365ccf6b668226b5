"""Seconds of a forward and a backward pass out of its operators, each timed once: without weights or a whole pass.

A transformer of thirty blocks repeats what one of them does: an operator is timed the first time that it comes with its
shapes and counted every time. What is left of it after a cut is taken from what it does: products by their
multiply-adds, everything else by the elements of its result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.structure import Structure
from prunekit.graph.nodes import Ref
from prunekit.quantities.stopwatch import Glance, Timer
from prunekit.quantities.work import FUSED, Shapes, Work, arguments_of, elements_of, key_of, works

LARGE = 2**25  # elements of one operator's tensors; beyond, a part of its leading axis is timed in their place
_CALLS, _PRODUCT, _OTHER = 64, 2.0, 1.0  # backward over forward where it cannot be timed: two products for each
# what operators raise where their arguments do not go together
_CANNOT = (RuntimeError, TypeError, NotImplementedError, IndexError, ValueError)


@dataclass(frozen=True)
class Both:
    """Seconds of one operator, forward and backward."""

    forward: float
    backward: float


@dataclass(frozen=True, eq=False)
class PassTimes:
    """Seconds of passes of one traced model at any widths; ``call`` is what Python takes for an empty module."""

    structure: Structure
    each: Mapping[str, Both]
    call: float

    @classmethod
    def of(cls, structure: Structure, device: torch.device, timer: Timer | None = None) -> PassTimes:
        """Times the operators of ``structure`` on ``device``."""
        timer, found = timer or Glance(), dict[str, Both]()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for work in works(structure.trace):
                key = key_of(work, {})
                if key not in found:
                    found[key] = both_of(work, device, timer)
        return cls(structure, found, _empty_call(device, timer))

    def forward(self, kept: Mapping[str, Tensor]) -> float:
        """Of a forward pass on the example inputs, when each named group keeps the given units."""
        gone = self.structure.gone(kept)
        calls = sum(not is_inside(module.module, gone) for module in self.structure.trace.modules)
        return self._total(kept, "forward") + calls * self.call

    def backward(self, kept: Mapping[str, Tensor]) -> float:
        """Of the backward pass that belongs to it, to the weights and through the whole model."""
        return self._total(kept, "backward")

    def _total(self, kept: Mapping[str, Tensor], which: str) -> float:
        shapes = self.structure.shapes(kept) if kept else {}
        left = works(self.structure.trace, self.structure.gone(kept))
        return math.fsum(getattr(self.each[key_of(work, {})], which) * share_left(work, shapes) for work in left)


def both_of(work: Work, device: torch.device, timer: Timer) -> Both:
    """Seconds of ``work`` at its traced shapes; zero where it cannot be run alone."""
    shapes, scale = _cut_short(work)
    forward = _time_forward(work, shapes, device, timer)
    if forward is None and shapes:
        shapes, scale = {}, 1.0
        forward = _time_forward(work, shapes, device, timer)
    if forward is None:
        return Both(0.0, 0.0)
    backward = _time_backward(work, shapes, device, timer)
    if backward is None:
        backward = forward * (_PRODUCT if is_product(work) else _OTHER)
    return Both(forward * scale, backward * scale)


def is_product(work: Work) -> bool:
    """Whether its time follows multiply-adds."""
    return work.name in FUSED or getattr(work.func, "overloadpacket", None) in flop_registry


def share_left(work: Work, shapes: Shapes) -> float:
    """What part of the time of ``work`` is left when tensors have these shapes by id, in (0, 1].

    A product of A (m, k) and B (k, n) takes m k n, the root of the elements of A, B and the result; so does a
    convolution as widths shrink.
    """
    if not shapes:
        return 1.0
    result = _ratio(work.outputs[:1], shapes)
    if not is_product(work):
        return result
    factors = [ref for ref in work.operands if len(ref.shape) > 1]  # a bias is added, and no factor
    largest = sorted(factors, key=lambda ref: -math.prod(ref.shape))[:2]
    return math.sqrt(result * math.prod(_ratio([ref], shapes) for ref in largest))


def _ratio(refs: Sequence[Ref], shapes: Shapes) -> float:
    return elements_of(refs, shapes) / max(1, elements_of(refs, {}))


def _cut_short(work: Work) -> tuple[dict[int, tuple[int, ...]], float]:
    """Shapes of a part of a large operator along its leading axis, and how often that goes into the whole."""
    refs = {ref.id: ref for ref in (*work.operands, *work.outputs)}
    total, lead = elements_of([*refs.values()], {}), (work.outputs[0].shape or (1,))[0]
    if total <= LARGE or lead < 2:
        return {}, 1.0
    part = max(1, lead * LARGE // total)
    return {i: (part, *ref.shape[1:]) for i, ref in refs.items() if ref.shape[:1] == (lead,)}, lead / part


def _time_forward(work: Work, shapes: Shapes, device: torch.device, timer: Timer) -> float | None:
    try:
        args, kwargs = arguments_of(work, shapes, device)
        with torch.no_grad():
            return timer.seconds(lambda: work.func(*args, **kwargs), device)
    except _CANNOT:
        return None  # its arguments name sizes of the whole


def _time_backward(work: Work, shapes: Shapes, device: torch.device, timer: Timer) -> float | None:
    """None where it cannot be timed, such as for operators that write into what they are given."""
    try:
        args, kwargs = arguments_of(work, shapes, device)
        leaves = [t.requires_grad_() for t in _all_tensors((args, *kwargs.values())) if t.is_floating_point()]
        with torch.enable_grad():
            made = [t for t in _all_tensors(work.func(*args, **kwargs)) if t.requires_grad][:1]
        if not made or not leaves:
            return 0.0
        given = [torch.ones_like(t) for t in made]
        return timer.seconds(
            lambda: torch.autograd.grad(made, leaves, given, retain_graph=True, allow_unused=True), device
        )
    except _CANNOT:
        return None


def _all_tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for each in value for t in _all_tensors(each)] if isinstance(value, (list, tuple)) else []


def _empty_call(device: torch.device, timer: Timer) -> float:
    empty, nothing = nn.Identity(), torch.empty(0, device=device)

    def run() -> None:
        for _ in range(_CALLS):
            empty(nothing)

    return timer.seconds(run, device) / _CALLS
