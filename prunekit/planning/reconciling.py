"""Widths that the model's own arithmetic joins, such as ``head_dim = width // num_heads``, are brought to agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.planning.arithmetic import Arithmetic

_ROUNDS, _ROUNDS_EACH = 200, 4  # settlements at most: in all, or so many an equation where there are many


def reconcile(
    structure: Structure, chosen: Sequence[Group], kept: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``kept`` with counts changed as little as it takes for every size expression to hold.

    An equation that speaks of one group alone is settled first (the embedding becomes divisible by the heads), then
    those that follow from it. What cannot be settled is left for the plan to refuse.
    """
    result = dict(kept)
    arithmetic = Arithmetic(structure, result)
    by_number = {structure.numbers[group.name]: group for group in chosen}

    def about(place: int) -> list[Group]:
        return [by_number[n] for n in structure.systems.groups[place] if n in by_number]

    tried: set[tuple[int, tuple[int, ...]]] = set()
    for _ in range(max(_ROUNDS, _ROUNDS_EACH * len(structure.equations))):
        for place in sorted(arithmetic.violated(), key=lambda place: len(about(place))):
            candidates = _on_its_axis(structure, place, about(place)) or about(place)
            state = (place, tuple(len(result[g.name]) for g in candidates))
            if state in tried:
                continue
            tried.add(state)
            if _settle(arithmetic, place, candidates, result, scores):
                break
        else:
            return result
    return result


def _settle(
    arithmetic: Arithmetic, place: int, groups: Sequence[Group], kept: dict[str, Tensor], scores: Mapping[str, Tensor]
) -> bool:
    """Finds the nearest count of one of ``groups`` with which an equation holds, and keeps its best units."""
    for group in sorted(groups, key=lambda g: (g.role.stream, g.size)):
        order = torch.argsort(scores[group.name].detach().cpu().double(), descending=True, stable=True)
        for count in _nearest_first(len(kept[group.name]), group.size):
            arithmetic.keep({group.name: order[:count]})
            if not arithmetic.fails(place):
                kept[group.name] = order[:count].sort().values
                return True
        arithmetic.keep({group.name: kept[group.name]})
    return False


def _nearest_first(now: int, most: int) -> Iterator[int]:
    """Counts from 1 to ``most`` without ``now``, the nearest to it first."""
    for step in range(1, most + 1):
        if now - step >= 1:
            yield now - step
        if now + step <= most:
            yield now + step


def _on_its_axis(structure: Structure, place: int, groups: Sequence[Group]) -> list[Group]:
    """Those of ``groups`` that own coordinates of the axis that an equation sizes."""
    axis = structure.equations[place].axis
    owners = () if axis is None else structure.rows.all[structure.rows.number(axis)].groups
    return [g for g in groups if structure.numbers[g.name] in owners]
