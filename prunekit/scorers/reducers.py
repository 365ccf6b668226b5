"""From a number per weight to a number per unit.

A unit owns coordinates of several parameters. Inside each parameter the values of a unit's elements are averaged (or
summed), which gives one row per parameter; across parameters the rows are reduced to the score. The mean across
parameters is the group reduction of SlimSAM (arXiv 2312.05284, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import RegistryError, ScorerError

Within = Literal["mean", "sum"]
Reducer = Callable[[Tensor], Tensor]


def mean(rows: Tensor) -> Tensor:
    """(parameters, units) -> (units,): the mean over the parameters that reach a unit."""
    return rows.nanmean(0)


def total(rows: Tensor) -> Tensor:
    """(parameters, units) -> (units,): the sum over parameters."""
    return rows.nansum(0)


def largest(rows: Tensor) -> Tensor:
    """(parameters, units) -> (units,): the largest over parameters; rows are not negative."""
    return rows.nan_to_num(0.0).amax(0)


def product(rows: Tensor) -> Tensor:
    """(parameters, units) -> (units,): the product over parameters; rows are not negative."""
    return rows.nan_to_num(1.0).prod(0)


def euclidean(rows: Tensor) -> Tensor:
    """(parameters, units) -> (units,): the root of the sum of squares over parameters."""
    return rows.square().nansum(0).sqrt()


REDUCERS: dict[str, Reducer] = {"mean": mean, "sum": total, "max": largest, "prod": product, "l2": euclidean}


def reducer(which: str | Reducer) -> Reducer:
    """The reducer across parameters of that name, or what was given. Raises RegistryError on another name.

    A reducer of your own turns (parameters, units), float64 with NaN where a parameter does not reach a unit, into
    (units,).
    """
    if not isinstance(which, str):
        return which
    if which not in REDUCERS:
        raise RegistryError.unknown("reducer", which, REDUCERS)
    return REDUCERS[which]


def absolute(tensor: Tensor, axis: int) -> Tensor:
    """(length of axis,), float64: the sum of |tensor| over all other axes."""
    return tensor.abs().movedim(axis, 0).reshape(tensor.shape[axis], -1).sum(1, dtype=torch.float64)


def rows(
    group: Group,
    values: Callable[[str], Tensor],
    within: Within = "mean",
    lines: Callable[[str, Tensor, int], Tensor] | None = None,
    known: MutableMapping[tuple[str, int], Tensor] | None = None,
) -> Tensor:
    """(parameters, units), float64 on the CPU: each member parameter's |values| gathered per unit.

    ``values(name)`` is a tensor in the shape of the parameter; ``lines(name, values, axis)`` sums what counts in it
    over all other axes, by default the absolute values; what it finds is kept in ``known`` and not computed again. NaN
    marks a unit that a parameter does not reach. Raises ScorerError where the group has no parameter, a unit none, or
    a shape does not fit.
    """
    if within not in ("mean", "sum"):
        raise RegistryError.unknown("reduction within a parameter", within, ("mean", "sum"))
    if not group.parameters:
        raise ScorerError(f"group {group.name} owns no parameter", where=group.name, hint="score it by other means")
    gathered: list[NDArray[np.float64]] = []
    shared: dict[int, _Units] = {}
    for member in group.parameters:
        tensor = values(member.tensor)
        if member.axis >= tensor.ndim or tensor.shape[member.axis] != len(member.unit_of):
            raise ScorerError(
                f"{member.tensor} has shape {tuple(tensor.shape)}, group {group.name} expects "
                f"{len(member.unit_of)} coordinates on axis {member.axis}",
                where=member.tensor,
                hint="trace the model again",
            )
        key = (member.tensor, member.axis)
        per_coordinate = known.get(key) if known is not None else None
        if per_coordinate is None:
            found = absolute(tensor, member.axis) if lines is None else lines(member.tensor, tensor, member.axis)
            per_coordinate = found.to("cpu", torch.float64)
            if known is not None:
                known[key] = per_coordinate
        # Summed on the CPU: atomic adds on a GPU would make equal runs differ.
        if id(member.unit_of) not in shared:
            shared[id(member.unit_of)] = _Units.of(member.unit_of, group.size)
        units = shared[id(member.unit_of)]
        held = per_coordinate.numpy() if units.whole else per_coordinate.numpy()[units.owned]
        sums = np.bincount(units.of_owned, weights=held, minlength=group.size)
        elements = units.count * (tensor.numel() // len(member.unit_of))
        over = elements if within == "mean" else 1
        gathered.append(np.divide(sums, over, out=np.full(group.size, np.nan), where=elements > 0))
    stacked = np.stack(gathered)
    if np.isnan(stacked).all(0).any():
        raise ScorerError(f"a unit of group {group.name} owns no parameter element", where=group.name)
    return torch.from_numpy(stacked)


@dataclass(frozen=True, eq=False)
class _Units:
    """What several members of a group have in common: the units of their coordinates, and how many each owns."""

    owned: NDArray[np.bool_]
    whole: bool
    of_owned: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, unit_of: Tensor, size: int) -> _Units:
        numbers = unit_of.cpu().numpy()
        owned = numbers >= 0
        whole = bool(owned.all())
        of_owned = numbers if whole else numbers[owned]
        return cls(owned, whole, of_owned, np.bincount(of_owned, minlength=size))
