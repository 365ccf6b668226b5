"""OBS: what the going of a unit costs those that read it, once they are refitted to the units that are left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunekit.coupling.groups import Group, Member
from prunekit.errors import InputError, ScorerError
from prunekit.modules.moments import about, added
from prunekit.modules.observing import as_matrix
from prunekit.scorers.elimination import Reader, eliminated
from prunekit.scorers.needs import FORWARD, Needs
from prunekit.scorers.second_moments import Reads
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class OBS:
    """I = the squared error that a unit's going leaves in its readers, once other units make up for it (ZipLM, Eq. 2).

    As a share of the square of what the readers give (Hassibi and Stork 1993, Optimal Brain Surgeon; of whole columns
    Kurtic et al. 2023, ZipLM, arXiv 2302.04089).

    Units go one after the other, the cheapest first, so of two that say the same only one is dear. Made for a cut that
    is refitted, ``compensate="ridge"``, and for as many samples as the refit has: with fewer rows than a layer has
    features lambda decides. Where nothing reads a unit (queries and keys), I is its share of the square of what is
    written.

    Args:
        strength: lambda of the refit, as a share of the mean square of a feature; > 0.
        images: use the first so many samples; None means all.
        memory: bytes that the second moments of one sweep over the samples may take; groups that would take more are
            scored in further sweeps.
    """

    needs: ClassVar[Needs] = FORWARD

    strength: float = 1e-3
    images: int | None = None
    memory: int = 4 << 30

    def __post_init__(self) -> None:
        if not 0 < self.strength < math.inf or self.memory < 1:
            raise InputError(f"{self} cannot be solved", hint="choose strength > 0 and memory >= 1")

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError where no product with data reads or writes a unit."""
        members = {(m.tensor, m.axis): m for m in group.parameters}
        readers = []
        for reads in statistics.second_moments(group, self.images, self.memory):
            member = members[reads.like.name, reads.like.feature_axis]
            reader = _reader(reads, member, statistics, self.strength)
            if reader is not None:
                readers.append(reader)
        return eliminated(readers, group.size) if readers else _share_written(group, statistics, self.images)


def _reader(reads: Reads, member: Member, statistics: Statistics, strength: float) -> Reader | None:
    """A reader of which the square of what it gives is 1; None where it gives nothing."""
    product, sums = reads.like, added(reads.split.tried, reads.split.held)
    if sums.xx is None or sums.x is None:
        return None
    weight = statistics.parameter(product.name)
    matrix = as_matrix(product, weight).double()  # (G, O, K)
    shifts = statistics.has_bias(product) or (reads.mean_of is not None and reads.ends == reads.calls)
    means = sums.x / sums.rows if shifts else torch.zeros_like(sums.x)
    moments = torch.stack([about(sums, g, mean) for g, mean in enumerate(means)]) / sums.rows
    square = float(((matrix @ moments) * matrix).sum())
    if square <= 0:
        return None
    ridge = strength * moments.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    moments = moments + ridge[:, None, None] * torch.eye(moments.shape[1], dtype=moments.dtype, device=moments.device)
    owner = member.unit_of.to(weight.device)
    if product.settings is not None:
        owner = owner.repeat_interleave(weight[0, 0].numel())
    return Reader(matrix / math.sqrt(square), torch.cholesky_inverse(torch.linalg.cholesky(moments)), owner)


def _share_written(group: Group, statistics: Statistics, images: int | None) -> Tensor:
    """(group.size,): the share of each unit in the square of what its parameters write, summed over these."""
    found = torch.zeros(group.size, dtype=torch.float64, device="cpu")
    outputs, writers = statistics.activations(images).outputs, 0
    for member in group.parameters:
        moments = outputs.get(member.tensor)
        if moments is None or moments.axis != member.axis:
            continue
        writers += 1
        squares, here = moments.mean_square.flatten().to("cpu", torch.float64), member.unit_of >= 0
        found.index_add_(0, member.unit_of[here].cpu(), squares[here.cpu()] / squares.sum().clamp(min=1e-300))
    if not writers:
        raise ScorerError(
            f"group {group.name} is neither read nor written by a product with data",
            where=group.name,
            hint=f"exclude={[group.name]!r} leaves it as it is; Magnitude and DisturbedTaylor can score it",
        )
    return found
