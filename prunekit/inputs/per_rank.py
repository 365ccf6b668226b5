"""Calibration samples of which each of several processes has a share, and the meetings at which they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunekit.errors import InputError, PrunekitError

_FAILED = "failed"


@dataclass(frozen=True, eq=False)
class PerRank:
    """``data=prunekit.PerRank(mine)``: the samples of this rank, out of those that all ranks of torch.distributed have.

    Every rank calls ``prunekit.prune`` or ``prunekit.plan`` with the same model, inputs and options, and with as many
    samples of its own. Statistics are summed over the ranks in their order, in float64, as if one rank had all samples,
    the first rank's first; every rank makes the same plan, or all end with an error.

    Attributes:
        samples: what ``data`` may be anywhere else: a DataLoader, a dataset, an iterable of items.
    """

    samples: Any

    def __iter__(self) -> Iterator[Any]:
        raise _only_scores()


def _only_scores() -> InputError:
    return InputError(
        "samples that several ranks share are summed for scores of widths in one step, and for nothing else",
        where="data",
        hint="pass PerRank to prunekit.prune or prunekit.plan, without a refit, steps, a measured allocation or depth",
    )


class Alone:
    """The one rank that has all samples: what every rank would bring is what it brings."""

    size, rank = 1, 0

    def all(self, step: str, value: Any) -> list[Any]:
        """``value`` of every rank at ``step``, in their order."""
        return [value]

    def total(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over the ranks."""
        return list(values)


ALONE = Alone()


class Meeting(Alone):
    """Ranks that exchange plain values, one step after the other: who failed says so at the next, wherever they stand.

    ``samples`` are this rank's own.
    """

    def __init__(self, samples: Any) -> None:
        self.samples = samples
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._over = False

    def __iter__(self) -> Iterator[Any]:
        raise _only_scores()

    def all(self, step: str, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        try:
            torch.distributed.all_gather_object(found, (step, value))
        except RuntimeError as error:
            self._over = True
            raise PrunekitError(
                "another rank has ended, or has not come in time",
                where=f"rank {self.rank}, at {step}",
                hint="its own message says why; every rank has to call with PerRank",
            ) from error
        failed = [f"rank {number}: {told}" for number, (name, told) in enumerate(found) if name == _FAILED]
        names = sorted({name for name, _ in found})
        if failed or len(names) > 1:
            self._over = True  # all have been told
            raise PrunekitError(
                "; ".join(failed) or f"the ranks are at different steps: {', '.join(names)}",
                where=f"rank {self.rank}, at {step}",
                hint="every rank calls with the same model, inputs and options",
            )
        return [told for _, told in found]

    def total(self, values: Sequence[Tensor]) -> list[Tensor]:
        self.same("a sum over the ranks", [(tuple(value.shape), str(value.dtype)) for value in values])
        return [_added_by_rank(value, self.size) for value in values]

    def same(self, step: str, value: Any) -> None:
        """Raises PrunekitError unless every rank brings the same."""
        told = self.all(step, value)
        if any(other != told[0] for other in told):
            self._over = True  # all of them see it
            raise PrunekitError(
                f"the ranks differ in {step}",
                where=f"rank {self.rank}",
                hint="give every rank the same weights, inputs, options and number of samples",
            )

    def end(self, made: str) -> None:
        """The last one: all have made the same, and nobody waits for anybody from here on."""
        self.same("what was planned", made)
        self._over = True

    def tell(self, error: Exception) -> None:
        """Says at the next step that this rank has failed, where the others may still wait for it."""
        if self._over:
            return
        told = error.what if isinstance(error, PrunekitError) else f"{type(error).__name__}: {error}"
        with suppress(PrunekitError):  # by which all of them know
            self.all(_FAILED, told)


def _added_by_rank(value: Tensor, size: int) -> Tensor:
    """The sum over the ranks in float64, the first one's first, in the type and on the device of ``value``."""
    mine = value.detach().to("cuda" if torch.distributed.get_backend() == "nccl" else "cpu").contiguous()
    parts = [torch.empty_like(mine) for _ in range(size)]
    torch.distributed.all_gather(parts, mine)
    total = parts[0].double()
    for part in parts[1:]:
        total = total + part
    return total.to(value)


@contextmanager
def meeting_of(data: Any) -> Iterator[Any]:
    """``data``, or the meeting of the ranks that share it: what one of them raises inside is an error of all.

    Raises InputError where there is no process group.
    """
    if not isinstance(data, PerRank):
        yield data
        return
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        raise InputError(
            "PerRank shares samples among the processes of torch.distributed, and there is no process group",
            where="data",
            hint="launch with torchrun and call torch.distributed.init_process_group, or pass the samples themselves",
        )
    here = Meeting(data.samples)
    try:
        yield here
    except Exception as error:
        here.tell(error)
        raise
