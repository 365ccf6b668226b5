"""What several processes share, such as calibration samples, and the meetings at which they agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prunekit.errors import InputError, PrunekitError

_FAILED = "failed"


@dataclass(frozen=True, eq=False)
class PerRank:
    """``data=prunekit.PerRank(mine)``: the samples of this rank, out of those that all ranks of torch.distributed have.

    Every rank calls ``prunekit.prune`` or ``prunekit.plan`` with the same model, inputs and options, and with as many
    samples of its own. What a criterion asks for is summed over the ranks in their order, in float64, as if one rank
    had all samples, the first rank's first; what a refit, a map or a measured allocation sees, the ranks give to each
    other. Every rank makes the same plan, or all end with an error.

    Attributes:
        samples: what ``data`` may be anywhere else: a DataLoader, a dataset, an iterable of items.
    """

    samples: Any

    def __iter__(self) -> Iterator[Any]:
        raise InputError(
            "samples that several ranks share are for prunekit.prune and prunekit.plan, and for nothing else",
            where="data",
            hint="pass this rank's samples themselves, and run on one rank",
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

    def same(self, step: str, value: Any) -> None:
        """Raises PrunekitError unless every rank brings the same."""

    def end(self, step: str, made: Any) -> None:
        """``same``, and the last one: nobody waits for anybody from here on."""


ALONE = Alone()


class Meeting(Alone):
    """Ranks that exchange plain values, one step after the other: who failed says so at the next, wherever they stand.

    ``samples`` are this rank's own; to iterate over it gives those of all ranks, the first one's first.
    """

    def __init__(self, samples: Any) -> None:
        self._given = samples
        self._everybodys: list[Any] | None = None
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._over = False

    @cached_property
    def samples(self) -> list[Any]:
        """This rank's own, read once."""
        return list(self._given)

    def __iter__(self) -> Iterator[Any]:
        if self._everybodys is None:
            self.same("the number of samples", len(self.samples))
            self._everybodys = [sample for part in self.all("the samples", self.samples) for sample in part]
        return iter(self._everybodys)

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
        told = self.all(step, value)
        if any(other != told[0] for other in told):
            self._over = True  # all of them see it
            raise PrunekitError(
                f"the ranks differ in {step}",
                where=f"rank {self.rank}",
                hint="give every rank the same weights, inputs, options and number of samples",
            )

    def end(self, step: str, made: Any) -> None:
        self.same(step, made)
        self._over = True

    def tell(self, error: Exception) -> None:
        """Says at the next step that this rank has failed, where the others may still wait for it."""
        if self._over:
            return
        told = error.what if isinstance(error, PrunekitError) else f"{type(error).__name__}: {error}"
        with suppress(PrunekitError):  # by which all of them know
            self.all(_FAILED, told)


def kept_to_read_again(data: Any) -> Any:
    """``data`` as what may be read more than once: a list, or what ranks share as it is."""
    return data if isinstance(data, Meeting) else list(data)


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
    _check_group("PerRank shares samples", "data", "or pass the samples themselves")
    with _met(Meeting(data.samples)) as here:
        yield here


@contextmanager
def meeting_over(ranks: bool) -> Iterator[Alone]:
    """The meeting of all ranks where ``ranks`` says so, else of this one. Raises InputError as ``meeting_of``."""
    if not ranks:
        yield ALONE
        return
    _check_group("over_ranks shares trials", "over_ranks", "or leave it out")
    with _met(Meeting(())) as here:
        yield here


def _check_group(what: str, where: str, otherwise: str) -> None:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        raise InputError(
            f"{what} among the processes of torch.distributed, and there is no process group",
            where=where,
            hint=f"launch with torchrun and call torch.distributed.init_process_group, {otherwise}",
        )


@contextmanager
def _met(here: Meeting) -> Iterator[Meeting]:
    """``here``; what one rank raises inside is an error of all."""
    try:
        yield here
    except Exception as error:
        here.tell(error)
        raise
