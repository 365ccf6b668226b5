"""What scorers may ask for, computed on first use and once."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.inputs import Sample, is_number, reals
from prunekit.inputs.per_rank import ALONE, Alone
from prunekit.modules.moments import bias_of
from prunekit.modules.observing import Product
from prunekit.modules.setting_aside import Passage
from prunekit.offloading import relieve
from prunekit.scorers.accumulate import accumulation as accumulation_named
from prunekit.scorers.calibrate import Progress, finite, parts_added, products
from prunekit.scorers.contributions import Contributions, added_by_experts
from prunekit.scorers.curvature import hessian_diagonal
from prunekit.scorers.feature_statistics import Activations, activations
from prunekit.scorers.needs import Objective
from prunekit.scorers.over_ranks import mean_of_numbers, mean_of_tensors, sum_of_contributions, sums_of_reads
from prunekit.scorers.passed_by import damages, influences
from prunekit.scorers.read_places import asked_within, places_within, read_axes
from prunekit.scorers.second_moments import Reads, swept


class Passing(Protocol):
    """How blocks are passed by, and on how many samples."""

    @property
    def distance(self) -> str: ...

    @property
    def samples(self) -> int | None: ...


class Statistics:
    """Weights of a model, and products weight x gradient over calibration samples.

    Args:
        model: is read and run, and left as it was.
        samples: calibration samples of batch size 1; may be empty for scorers that read weights only.
        parameters: names whose products will be asked for; None means all. Fewer cost less memory.
        groups: groups that will be scored; experts among them are then measured in one sweep.
        progress: called as ``progress(done, total)`` after each sample.
        ranks: those that have as many samples each; ``samples`` are this one's.

    Attributes:
        names: the parameters that products may be asked for.
        asked: how often something was asked for that depends on the samples, computed anew or not.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Sequence[Sample] = (),
        *,
        parameters: Collection[str] | None = None,
        progress: Progress | None = None,
        groups: Sequence[Group] = (),
        ranks: Alone = ALONE,
    ) -> None:
        self.asked = 0
        self._ranks = ranks
        self._model = model
        self._samples = samples
        self._weights = dict(model.named_parameters())
        self._progress = progress
        self._finite: set[str] = set()
        self._lines: dict[Hashable, dict[tuple[str, int], Tensor]] = {}
        self._products: dict[tuple[Objective, str, int], Mapping[str, Tensor]] = {}
        self._curvature: dict[tuple[Objective, int, int, int], Mapping[str, Tensor]] = {}
        self._damages: dict[tuple[str, int, frozenset[Passage]], float] = {}
        self._activations: dict[int, Activations] = {}
        self._contributions: dict[tuple[int, str], Contributions] = {}
        self._groups = tuple(groups)
        self._reads: dict[tuple[int, str, int], list[Reads]] = {}
        self._experts = [group for group in groups if group.stacks or group.routes]
        self.names = tuple(self._weights if parameters is None else parameters)
        weights = {n: self.weight(n) for n in self.names}
        self._scored = {n: w for n, w in weights.items() if is_number(w)}

    def weight(self, name: str) -> nn.Parameter:
        """The parameter itself. Raises ScorerError on an unknown name."""
        if name not in self._weights:
            near = get_close_matches(name, self._weights, n=3)
            raise ScorerError(f"the model has no parameter {name}", hint=f"near: {', '.join(near)}" if near else "")
        relieve()
        return self._weights[name]

    def parameter(self, name: str) -> Tensor:
        """The weight, detached. Raises ScorerError where it is unknown or not finite."""
        weight = self.weight(name).detach()
        if name not in self._finite:
            finite(weight, f"the weight {name} is not finite", name)
            self._finite.add(name)
        return weight

    def is_sound(self, name: str) -> None:
        """Notes that every element of a weight has been seen, and is finite."""
        self._finite.add(name)

    def lines(self, owner: Hashable) -> dict[tuple[str, int], Tensor]:
        """Where a scorer keeps what it summed for (parameter, axis): groups that share an axis ask for it again."""
        return self._lines.setdefault(owner, {})

    def products(self, objective: Objective, accumulation: str, limit: int | None = None) -> Mapping[str, Tensor]:
        """Accumulated products of each parameter, in its shape and float32 at least, over the first ``limit`` samples.

        Raises ScorerError without samples and where a weight, loss or gradient is not finite, RegistryError on an
        unknown accumulation.
        """
        count = self._count(limit)
        key = (objective, accumulation, count)
        if key not in self._products:
            how = accumulation_named(accumulation)
            found = products(
                self._model, self._first(count), objective, how, self._scored, self._progress, self._ranks, count
            )
            self._products[key] = MappingProxyType(found)
        return self._products[key]

    def curvature(self, objective: Objective, probes: int, seed: int, limit: int | None = None) -> Mapping[str, Tensor]:
        """|h| w^2 of each parameter in its shape, h the Hessian's diagonal over the first ``limit`` samples.

        Raises ScorerError without samples and where the objective cannot be differentiated twice.
        """
        key = (objective, probes, seed, self._count(limit))
        if key not in self._curvature:
            samples = self._first(key[3])
            none = {name: torch.zeros_like(reals(weight.detach())) for name, weight in self._scored.items()}
            found = (
                hessian_diagonal(self._model, samples, objective, self._scored, probes, seed, self._progress)
                if samples
                else none
            )
            found = mean_of_tensors(found, len(samples), key[3], self._ranks)
            self._curvature[key] = MappingProxyType(
                {
                    name: parts_added(h.abs() * reals(self._scored[name].detach()).square(), self._scored[name])
                    for name, h in found.items()
                }
            )
        return self._curvature[key]

    def activations(self, limit: int | None = None) -> Activations:
        """Moments of what products with parameters read and write, over the first ``limit`` samples.

        Raises ScorerError without samples and where an activation is not finite.
        """
        count = self._count(limit)
        if count not in self._activations:
            self._activations[count] = activations(self._model, self._first(count), self._progress, self._ranks)
        return self._activations[count]

    def second_moments(self, group: Group, limit: int | None = None, memory: int = 4 << 30) -> list[Reads]:
        """Sums of x x^T and x of what reads the units of ``group``, over the first ``limit`` samples.

        Kept for as many of the groups that will be scored as have room in ``memory`` bytes; the next one begins a
        sweep of its own. Raises ScorerError without samples, where what is read is not finite, and where the sums of
        one parameter have no room.
        """
        count = self._count(limit)
        axes = [(count, *place) for place in read_axes(group, self._weights)]
        if any(key not in self._reads for key in axes):
            others = [other for other in self._groups if not other.stacks and not other.routes]
            wanted = places_within(memory, [group, *others], self._weights)
            first = self._ranks.rank * len(self._samples)
            samples = [sample.inputs for sample in self._first(count)]
            found = swept(self._model, asked_within(memory, wanted, self._weights), samples, first=first, of=count)
            self._reads = {(count, *place): [] for place in wanted}
            for reads in sums_of_reads(found, self._ranks):
                self._reads[count, reads.like.name, reads.like.feature_axis].append(reads)
        return [reads for key in axes for reads in self._reads[key]]

    def has_bias(self, product: Product) -> bool:
        """Whether a bias is added to the outputs of ``product``."""
        return bias_of(product, self._weights) is not None

    def contributions(self, group: Group, limit: int | None = None) -> Contributions:
        """What the experts of ``group`` add to their layer's output, over the first ``limit`` samples.

        Raises ScorerError without samples and where an output is not finite.
        """
        count = self._count(limit)
        if (count, group.name) not in self._contributions:
            wanted = [group, *(g for g in self._experts if g.name != group.name)]
            samples = self._first(count)
            none = {g.name: Contributions.none(g.size) for g in wanted}
            found = added_by_experts(self._model, samples, wanted, self._progress) if samples else none
            found = sum_of_contributions(found, self._ranks)
            self._contributions |= {(count, name): value for name, value in found.items()}
        return self._contributions[count, group.name]

    def damages(self, sets: Sequence[tuple[Passage, ...]], how: Passing) -> list[float]:
        """How far the outputs move with each set of blocks passed by, over the first ``how.samples`` samples.

        Raises ScorerError without samples and where outputs are not finite.
        """
        count = self._count(how.samples)
        keys = [(how.distance, count, frozenset(gone)) for gone in sets]
        missing = {key: gone for key, gone in zip(keys, sets, strict=True) if key not in self._damages}
        if missing:
            samples = self._first(count)
            none = [0.0] * len(missing)
            how_far = (self._model, samples, list(missing.values()), how.distance, self._progress)
            found = mean_of_numbers(damages(*how_far) if samples else none, len(samples), count, self._ranks)
            self._damages.update(zip(missing, found, strict=True))
        return [self._damages[key] for key in keys]

    def influences(self, places: Sequence[Passage], limit: int | None = None) -> Mapping[Passage, float]:
        """How far each block or branch turns the stream that passes it, over the first ``limit`` samples."""
        count = self._count(limit)
        samples = self._first(count)
        found = influences(self._model, samples, places) if samples else dict.fromkeys(places, 0.0)
        return dict(zip(found, mean_of_numbers(list(found.values()), len(samples), count, self._ranks), strict=True))

    def module(self, path: str) -> nn.Module:
        """The module at ``path``."""
        return self._model.get_submodule(path)

    def _count(self, limit: int | None) -> int:
        self.asked += 1
        every = len(self._samples) * self._ranks.size
        count = every if limit is None else min(limit, every)
        if count < 1:
            raise ScorerError("there is no calibration sample", hint="pass data, or let prunekit generate inputs")
        return count

    def _first(self, count: int) -> list[Sample]:
        """Of the first ``count`` over all ranks those that this one has."""
        mine = len(self._samples)
        return [self._samples[i] for i in range(min(mine, max(0, count - self._ranks.rank * mine)))]
