"""What a distillation stage will need, before its first step: counted from a pass on meta tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.inputs import tensors_in
from prunekit.inputs.batching import Batch, device_of, moved, taken_rows, run_on
from prunekit.runs.distillation.checkpointing import blocks_of
from prunekit.recipes.records import Training
from prunekit.recipes.stages import Distil
from prunekit.runs.distillation.teachers import cache_bytes
from prunekit.runs.features import tapped
from prunekit.tracing.standin import swapped

GIB = 2**30
_PASSING = 3  # tensors of the largest size that an operator and its neighbours hold at once
_HALF = 0.6  # of the bytes that are kept in float32, kept under bf16 or fp16: norms and sums stay in float32


@dataclass(frozen=True)
class Counted:
    """Bytes for one sample of a student.

    Attributes:
        kept: for its backward pass, of which ``blocks`` inside repeated blocks and ``block`` inside the largest one.
        inputs: of these blocks.
        features: that are compared; ``outputs`` likewise.
        largest: of one tensor.
    """

    kept: int
    blocks: int
    block: int
    inputs: int
    features: int
    outputs: int
    largest: int


@dataclass(frozen=True)
class Need:
    """Bytes beyond the models themselves, which are there already."""

    optimiser: int
    activations: int
    features: int
    cache: int

    @property
    def total(self) -> int:
        return self.optimiser + self.activations + self.features + self.cache

    def __str__(self) -> str:
        parts = (f"{name} {getattr(self, name) / GIB:.2g}" for name in self.__dataclass_fields__)
        return f"about {self.total / GIB:.2g} GiB ({', '.join(parts)})"


def counted(student: nn.Module, batch: Batch, taps: Mapping[str, Sequence[Tap]]) -> Counted | None:
    """One pass of ``student`` on meta tensors, for the first sample of ``batch``; None where it cannot run there."""
    stored: dict[int, int] = {}
    fixed: set[int] = set()
    held: list[Tensor] = []  # so that no address is used twice
    at_start: dict[nn.Module, int] = {}
    inside: dict[nn.Module, int] = {}
    inputs = features = 0

    def total() -> int:
        return sum(stored.values())

    def pack(tensor: Tensor) -> Tensor:
        address = id(tensor.untyped_storage()) if not tensor.is_meta else tensor.untyped_storage()._cdata
        if address not in fixed:
            stored[address] = tensor.untyped_storage().nbytes()
            held.append(tensor)
        return tensor

    def enter(block: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal inputs
        at_start[block] = total()
        inputs += sum(a.nbytes for a in args if isinstance(a, Tensor))

    def leave(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        inside[block] = total() - at_start[block]

    def feature(tap: Tap, value: Tensor) -> None:
        nonlocal features
        features += sum(value.nbytes for chosen in taps.values() if tap in chosen)

    def on_meta(_: str, tensor: Tensor) -> Tensor:
        made = torch.empty_like(tensor, device="meta")
        fixed.add(made.untyped_storage()._cdata)
        return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made

    wanted = dict.fromkeys(tap for chosen in taps.values() for tap in chosen)
    try:
        with swapped(student, on_meta), tapped(student, wanted, feature), torch.enable_grad():
            for block in blocks_of(student):  # ``swapped`` takes the hooks away again
                block.register_forward_pre_hook(enter)
                block.register_forward_hook(leave)
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                given = run_on(student, moved(taken_rows(batch, 0, 1), "meta"))
                outputs = sum(t.nbytes for t in tensors_in(given) if t.is_floating_point())
    except (
        Exception
    ):  # the model's own code, on tensors without values: it may raise anything, and still run on real ones
        return None
    largest, widest = (max(values, default=0) for values in (stored.values(), inside.values()))
    return Counted(total(), sum(inside.values()), widest, inputs, features, outputs, largest)


def need(student: nn.Module, one: Counted, settings: Training, count: int, teachers: int, shards: int = 1) -> Need:
    """What training on ``count`` samples under ``settings`` takes, when one costs ``one``, with so many teachers.

    A student in ``shards`` parts is one more copy of it, all of it divided.
    """
    trained = sum(p.numel() * p.element_size() for p in student.parameters() if p.requires_grad)
    kept = one.kept - one.blocks + one.block + one.inputs if settings.checkpointing else one.kept
    half = 1.0 if settings.precision == "fp32" else _HALF
    features = one.features * (2 if settings.checkpointing else 1)
    return Need(
        # gradients and two moments
        optimiser=3 * trained if shards == 1 else 4 * trained // shards,
        activations=int(settings.batch * half * (kept + _PASSING * one.largest)),
        features=int(settings.batch * half * features) if settings.align_epochs else 0,
        cache=teachers * _remembered(one, settings, count),
    )


def _remembered(one: Counted, settings: Training, count: int) -> int:
    """Bytes of what a teacher gives that stay in memory; see ``Teacher``."""
    if settings.teacher_cache != "memory":
        return 0
    both, outputs = count * (one.features + one.outputs), count * one.outputs
    return next((size for size in (both, outputs) if size <= cache_bytes(settings)), 0)


def preflight(
    student: nn.Module,
    stage: Distil,
    batch: Batch,
    taps: Mapping[str, Sequence[Tap]],
    settings: Training,
    count: int,
    shards: int = 1,
) -> Need | None:
    """What the stage needs on ``count`` samples like ``batch``; None where it cannot be counted.

    Raises RecipeError where that is more than there is; the message says which setting would fit.
    """
    one, teachers = counted(student, batch, taps), len({term.teacher for term in stage.terms})
    if one is None:
        return None
    wanted, free = need(student, one, settings, count, teachers, shards), available(device_of(batch))
    if wanted.total <= free:
        return wanted
    hint = "no setting would fit; use smaller inputs or a device with more memory"
    for change in _CHANGES:
        other = replace(settings, **change)
        smaller = need(student, one, other, count, teachers, shards)
        if other != settings and smaller.total <= free:
            said = " ".join(f"--set {name}={str(value).lower()}" for name, value in change.items())
            hint = f"{said} needs {smaller}"
            break
    raise RecipeError(f"a step needs {wanted}, {free / GIB:.2g} GiB are free", where=stage.title, hint=hint)


_CHANGES: tuple[dict[str, Any], ...] = (
    {"teacher_cache": "off"},
    {"batch": 1},
    {"checkpointing": True},
    {"precision": "bf16"},
    {"batch": 1, "checkpointing": True},
    {"batch": 1, "checkpointing": True, "precision": "bf16"},
    {"batch": 1, "checkpointing": True, "precision": "bf16", "teacher_cache": "off"},
)


def available(device: torch.device) -> int:
    """Bytes that can still be had on ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
