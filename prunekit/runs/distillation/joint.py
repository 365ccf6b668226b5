"""A student whose gradients the ranks join: run by a wrapper (DDP), or divided among them (FSDP)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from prunekit.errors import RecipeError
from prunekit.runs.distillation.checkpointing import blocks_of
from prunekit.recipes.records import Training
from prunekit.runs.ranks import Ranks


@dataclass(frozen=True, eq=False)
class Joint:
    """What is trained in the place of a student.

    Attributes:
        model: has the student's modules and parameter names; its parameters are trained.
        call: runs it, so that gradients are means over the ranks.
        apart: a context in which gradients are gathered on each rank alone, between two optimiser steps.
        publish: writes the weights into the student, on all ranks at once.
    """

    model: nn.Module
    call: Callable[..., Any]
    apart: Callable[[], AbstractContextManager[Any]] = nullcontext
    publish: Callable[[], None] = lambda: None


@contextmanager
def joined(student: nn.Module, ranks: Ranks, settings: Training, *, penalised: bool = False) -> Iterator[Joint]:
    """The student, alone or joined to those of the other ranks until the end of the block.

    Raises RecipeError for what cannot be divided.
    """
    if ranks.count == 1:
        yield Joint(student, student)
    elif ranks.shards(settings.sharded) > 1:
        yield _divided(student, ranks, settings, penalised=penalised)
    else:
        with ranks.wrapped(student) as wrapper:
            yield Joint(student, wrapper, lambda: ranks.accelerator.no_sync(wrapper))


def _divided(student: nn.Module, ranks: Ranks, settings: Training, *, penalised: bool) -> Joint:
    """A copy whose weights, gradients and moments are divided among the ranks, block by block.

    A copy, since torch has no way back: its modules keep the hooks and class that ``fully_shard`` gives them.
    """
    if penalised:
        raise RecipeError("a penalty reads whole weights, and these are divided", hint="--set sharded=false")
    if settings.precision == "fp16":
        raise RecipeError("fp16 scales its loss by what each rank sees", hint="--set precision=bf16")
    if scalars := [name for name, p in student.named_parameters() if not p.ndim]:
        raise RecipeError("a single number cannot be divided", where=scalars[0], hint="--set sharded=false")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = copy.deepcopy(student)
    mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.count,))
    tied = len(list(model.named_parameters(remove_duplicate=False))) > len(list(model.parameters()))
    for block in () if tied else blocks_of(model):
        fully_shard(block, mesh=mesh)
    root = cast(Any, fully_shard(model, mesh=mesh))

    @contextmanager
    def apart() -> Iterator[None]:
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    @torch.no_grad()
    def publish() -> None:
        for mine, own in zip(student.parameters(), model.parameters(), strict=True):
            mine.copy_(whole(own))

    return Joint(model, model, apart, publish)


def whole(tensor: Tensor) -> Tensor:
    """``tensor``, put together where it is divided among ranks; all of them must ask."""
    if not hasattr(tensor, "full_tensor"):
        return tensor
    joined_: Tensor = tensor.full_tensor()
    return joined_


def divided_like(tensor: Tensor, other: Tensor) -> Tensor:
    """This rank's part of ``tensor``, divided as ``other`` is."""
    if not hasattr(other, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like = cast(Any, other)
    part: Tensor = distribute_tensor(tensor, like.device_mesh, like.placements)
    return part
