"""Widths that the model's own arithmetic joins, such as ``head_dim = width // num_heads``, are brought to agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.graph.provenance import leaves
from prunekit.labels.labelling import Equation
from prunekit.labels.vectors import Axis
from prunekit.planning.solving import violated

_ROUNDS = 200


def reconcile(
    structure: Structure, chosen: Sequence[Group], kept: Mapping[str, Tensor], scores: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``kept`` with counts changed as little as it takes for every size expression to hold.

    An equation that speaks of one group alone is settled first (the embedding becomes divisible by the heads), then
    those that follow from it. What cannot be settled is left for the plan to refuse.
    """
    result = dict(kept)
    tried: set[tuple[int, tuple[int, ...]]] = set()
    for _ in range(_ROUNDS):
        wrong = violated(structure, structure.alive(result))
        if not wrong:
            return result
        names = {id(e): _groups_of(structure, e, chosen) for e in wrong}
        wrong.sort(key=lambda e: len(names[id(e)]))
        for e in wrong:
            candidates = _on(structure, e.axis, chosen) or names[id(e)]
            state = (id(e), tuple(len(result[g.name]) for g in candidates))
            if state in tried:
                continue
            tried.add(state)
            if _settle(structure, e, candidates, result, scores):
                break
        else:
            return result
    return result


def _settle(
    structure: Structure, e: Equation, groups: Sequence[Group], kept: dict[str, Tensor], scores: Mapping[str, Tensor]
) -> bool:
    """Finds the nearest count of one of ``groups`` with which ``e`` holds, and keeps its best units."""
    for group in sorted(groups, key=lambda g: (g.role.stream, g.size)):
        now = len(kept[group.name])
        order = torch.argsort(scores[group.name].detach().cpu().double(), descending=True, stable=True)
        before = kept[group.name]
        for count in sorted(range(1, group.size + 1), key=lambda n: (abs(n - now), n)):
            if count == now:
                continue
            kept[group.name] = order[:count].sort().values
            if not any(w is e for w in violated(structure, structure.alive(kept), only=e)):
                return True
        kept[group.name] = before
    return False


def _groups_of(structure: Structure, e: Equation, chosen: Sequence[Group]) -> list[Group]:
    found = {g.name: g for g in _on(structure, e.axis, chosen)}
    for leaf in leaves(e.expression):
        if leaf[0] == "size":
            axes = structure.coupler.axes.get(leaf[1])
            if axes is not None:
                found.update({g.name: g for g in _on(structure, axes[leaf[2]], chosen)})
    return list(found.values())


def _on(structure: Structure, axis: Axis, chosen: Sequence[Group]) -> list[Group]:
    """The chosen groups that own coordinates of an axis."""
    if axis is None:
        return []
    units = np.unique(structure.fates.owners[structure.fates.fate[axis]])
    numbers = {int(n) for n in np.unique(structure.assembly.group_of[units[units >= 0]])}
    names = {structure.groups[n].name for n in numbers if n >= 0}
    return [g for g in chosen if g.name in names]
