"""Sums over what the parameters of one model read, swept once and kept: many cuts of it are refitted from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.compensation.ridge import Fit, refitted
from prunekit.compensation.settings import Compensation
from prunekit.errors import InputError, PlanError
from prunekit.inputs import Inputs, normalise
from prunekit.modules.observing import Product
from prunekit.scorers.read_places import Place, bytes_of_sums
from prunekit.scorers.second_moments import Reads, swept


@dataclass(eq=False)
class Sums:
    """What a refit asks of a model that is not cut yet.

    Attributes:
        how: the refit.
        samples: what the model reads.
        remembers: whether solutions are kept, for cuts that have most of their widths in common.
        sweeps: how often the model went through all samples.
    """

    how: Compensation
    samples: Sequence[Inputs]
    remembers: bool = False
    sweeps: int = 0
    _reads: dict[Place, list[Reads]] = field(default_factory=dict)
    _fits: dict[tuple[Any, ...], Fit] = field(default_factory=dict)
    _taken: int = 0  # bytes of solutions

    @classmethod
    def over(cls, data: Iterable[Any], how: Compensation, *, remembers: bool = False) -> Sums:
        """On the first ``how.samples`` of ``data``. Raises InputError where there is none."""
        samples = [normalise(item) for item in islice(data, how.samples)]
        if not samples:
            raise InputError("there is nothing to compensate with", where="data", hint="pass calibration inputs")
        return cls(how, samples, remembers)

    def of(self, model: nn.Module, places: Sequence[Place]) -> Iterator[Reads]:
        """What ``places`` read, in as many sweeps as ``how.memory`` asks for; what was swept last is kept.

        Raises PlanError where what is read is not finite.
        """
        known = [place for place in places if place in self._reads]
        yield from (reads for place in known for reads in self._reads[place])
        for more in self._batches(model, [place for place in places if place not in self._reads]):
            self._sweep(model, more)
            yield from (reads for place in more for reads in self._reads[place])

    def fetch(self, model: nn.Module, places: Sequence[Place]) -> None:
        """Sweeps ``places`` together where they have room, so that cuts of a few of them at a time find them there."""
        missing = [place for place in dict.fromkeys(places) if place not in self._reads]
        batches = list(self._batches(model, missing))
        if batches:
            self._sweep(model, batches[0])

    def fitted(
        self, reads: Reads, number: int, rows: Tensor, outputs: Tensor, features: Tensor, *, centred: bool
    ) -> Fit:
        """The fit of product ``number``: of ``outputs`` of ``rows`` (O, K), when ``features`` are left.

        Raises PlanError where it is not finite.
        """
        product = reads.like
        key: tuple[Any, ...] = (product.name, product.start, product.feature_axis, product.groups, number, centred)
        key += tuple(part.cpu().numpy().tobytes() for part in (outputs, features)) if self.remembers else ()
        if key in self._fits:
            return self._fits[key]
        fit = refitted(reads.split, number, rows[outputs], features, centred, self.how.strength)
        if not bool(torch.isfinite(fit.change).all()):
            raise PlanError(
                f"the refit of {product.name} is not finite",
                where=product.name,
                hint="check the data, or raise strength",
            )
        if self.remembers:
            self._taken += fit.change.nbytes
            if self._taken > self.how.memory // 4:
                self._fits, self._taken = {}, fit.change.nbytes
            self._fits[key] = fit
        return fit

    def _batches(self, model: nn.Module, places: Sequence[Place]) -> Iterator[list[Place]]:
        """As many at a time as their sums have room."""
        weights = dict(model.named_parameters())
        now: list[Place] = []
        taken = 0
        for name, axis in places:
            size = bytes_of_sums(weights[name], axis)
            if now and taken + size > self.how.memory:
                yield now
                now, taken = [], 0
            now.append((name, axis))
            taken += size
        if now:
            yield now

    def _sweep(self, model: nn.Module, places: Sequence[Place]) -> None:
        weights = dict(model.named_parameters())
        kept = [place for place, reads in self._reads.items() if reads]  # what reads nothing takes nothing
        if sum(bytes_of_sums(weights[name], axis) for name, axis in [*kept, *places]) > self.how.memory:
            self._reads = {place: reads for place, reads in self._reads.items() if not reads}
        found: dict[Place, list[Reads]] = {place: [] for place in places}
        how = self.how
        for reads in swept(model, _at_places(found), self.samples, rows=how.rows, seed=how.seed, refuse=PlanError):
            found[reads.like.name, reads.like.feature_axis].append(reads)
        self._reads |= found
        self.sweeps += 1


def _at_places(places: Collection[Place]) -> Callable[[Product], bool]:
    return lambda product: (product.name, product.feature_axis) in places
