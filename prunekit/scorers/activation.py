"""Activation: how large, or how often on, what a unit puts out is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from prunekit.coupling.groups import Group, Member
from prunekit.errors import InputError, ScorerError
from prunekit.scorers.feature_statistics import Activations, Moments
from prunekit.scorers.needs import FORWARD, Needs
from prunekit.scorers.reducers import Reducer, reducer, rows
from prunekit.scorers.statistics import Statistics


@dataclass(frozen=True)
class Activation:
    """The mean of |x| over samples and places, or 1 - APoZ, the share of places where x > 0 (Hu et al. 2016, Eq. 1).

    x is what the parameters of the group that read the unit get: the activation behind the nonlinearity. Where none
    reads it (queries and keys), x is what the parameters that write it put out.

    Args:
        measure: ``mean`` or ``apoz``.
        across: a reducer over several readers.
        images: use the first so many samples; None means all.
    """

    needs: ClassVar[Needs] = FORWARD

    measure: Literal["mean", "apoz"] = "mean"
    across: str | Reducer = "mean"
    images: int | None = None

    def __post_init__(self) -> None:
        if self.measure not in ("mean", "apoz"):
            raise InputError(f"{self.measure!r} is not a measure of activation", hint="choose 'mean' or 'apoz'")
        reducer(self.across)

    def score(self, group: Group, statistics: Statistics) -> Tensor:
        """Importance (group.size,), float64. Raises ScorerError where no product with data reads or writes a unit."""
        seen = statistics.activations(self.images)
        members, moments = readers(group, seen)
        if not members:
            raise ScorerError(
                f"group {group.name} is neither read nor written by a product with data",
                where=group.name,
                hint=f"exclude={[group.name]!r} leaves it as it is; Magnitude and DisturbedTaylor can score it",
            )

        def values(name: str) -> Tensor:
            found = moments[name]
            taken = found.mean_abs if self.measure == "mean" else found.positive
            return taken.expand(statistics.weight(name).shape)

        return reducer(self.across)(rows(replace(group, members=members), values))


def readers(group: Group, seen: Activations) -> tuple[tuple[Member, ...], dict[str, Moments]]:
    """The parameters that read the group with what they read, else those that write it with what they write."""
    for moments in (seen.inputs, seen.outputs):
        found = tuple(m for m in group.parameters if m.tensor in moments and moments[m.tensor].axis == m.axis)
        if found:
            return found, {m.tensor: moments[m.tensor] for m in found}
    return (), {}
