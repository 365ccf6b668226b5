"""The processes of a run: alone, or several that share every batch (torchrun, ``accelerate launch``)."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prunekit import errors
from prunekit.errors import InputError, PrunekitError

T = TypeVar("T")
_PATIENCE = timedelta(hours=24)  # what rank 0 does alone (scoring, evaluation) may take long


@dataclass(frozen=True, eq=False)
class Ranks:
    """``count`` processes, of which this is number ``index``; ``accelerator`` joins them where there are several."""

    count: int = 1
    index: int = 0
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the one that decides, talks and writes."""
        return self.index == 0

    def decided(self, make: Callable[[], T]) -> T:
        """What ``make`` gives on rank 0, on every rank; its errors too. The value must be plain data."""
        if self.count == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [None]
        if self.first:
            try:
                told = [("value", make())]
            except PrunekitError as error:
                told = [("error", (type(error).__name__, error.what, error.where, error.hint))]
            except Exception as error:
                told = [("error", ("PrunekitError", f"{type(error).__name__}: {error}", "rank 0", ""))]
            except BaseException as error:  # interrupted, or asked to end: the others are not left waiting
                broadcast_object_list([("error", ("PrunekitError", f"rank 0 ended: {type(error).__name__}", "", ""))])
                raise
        kind, value = broadcast_object_list(told)[0]
        if kind == "error":
            name, what, where, hint = value
            raise getattr(errors, name)(what, where=where, hint=hint)
        result: T = value
        return result

    def agreed(self, yes: bool) -> bool:
        """What rank 0 says."""
        return bool(self.decided(lambda: yes))

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.count == 1:
            return values
        joined: Tensor = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return joined

    def gathered(self, values: list[T]) -> list[T]:
        """The values of all ranks, in the order of the ranks, on every rank. They must be plain data."""
        if self.count == 1:
            return values
        from accelerate.utils import gather_object

        return list(gather_object(values))

    def same(self, model: nn.Module) -> None:
        """Gives every rank the parameters and buffers of rank 0."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    torch.distributed.broadcast(tensor, 0)

    def shards(self, wanted: bool) -> int:
        """The parts that a model is divided into while it is trained; 1 where each rank has all of it."""
        if self.count == 1:
            return 1
        from accelerate.utils import DistributedType

        return self.count if wanted or self.accelerator.distributed_type == DistributedType.FSDP else 1

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within the block the end of another rank is a PrunekitError that says so."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _peer_gone(error):
                raise
            raise PrunekitError(
                "another rank has ended, and the others cannot go on without it",
                where=f"rank {self.index} of {self.count}",
                hint="its own message says why; a run with a folder is gone on with by --resume, on as many ranks or others",
            ) from error

    @contextmanager
    def wrapped(self, model: nn.Module) -> Iterator[nn.Module]:
        """Yields what runs ``model`` so that gradients are means over the ranks; the wrapper goes with the block."""
        try:
            yield self.accelerator.prepare_model(model, device_placement=False)
        finally:
            self.accelerator.free_memory()


def _peer_gone(error: RuntimeError) -> bool:
    """Whether a collective failed since a process of the group is gone: gloo says so in its message alone."""
    return isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)


ALONE = Ranks()


def ranks_of(device: torch.device) -> Ranks:
    """The ranks that this process was launched among. Raises InputError where accelerate is needed and missing."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return ALONE
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
    except ImportError as error:
        raise InputError("several ranks need accelerate", hint="pip install 'prunekit[distributed]'") from error
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        device_placement=False,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=_PATIENCE),
            # at weight zero a term is not computed, and what only it reaches gets no gradient
            DistributedDataParallelKwargs(find_unused_parameters=True),
        ],
    )
    return Ranks(accelerator.num_processes, accelerator.process_index, accelerator)


def leave() -> None:
    """Leaves the process group, where there is one: a process that ends inside may be aborted by its threads.

    What still holds a part of the group is let go of first, while its threads can be joined.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
        gc.collect()
