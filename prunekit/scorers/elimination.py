"""Units go one after the other, each time the one whose going costs least after a refit of all that are left.

A reader gives W x. Without the features S, and with the others refitted, the squared error of what it gives grows by

    tr(W_S (C_SS)^-1 W_S^T),   C = (E[x x^T] + lambda 1)^-1

and the refitted reader is W - W_S (C_SS)^-1 C_S:, with C - C_:S (C_SS)^-1 C_S: in the place of C (Hassibi and Stork
1993, Eq. 5; of whole columns Kurtic et al. 2023, ZipLM, Eq. 2 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

WIDE = 128  # units up to which every one is compared again after each that goes
AT_ONCE = 32  # that go of more, among twice as many that cost least, before the others are brought up to date
PART = 16  # of all that are left, that many parts, go at once at most


@dataclass(frozen=True, eq=False)
class Reader:
    """What reads units: ``weight`` (G, O, K) and ``inverse`` (G, K, K) of G products, float64.

    ``owner`` (K,) is the unit of each feature, -1 for one that stays.
    """

    weight: Tensor
    inverse: Tensor
    owner: Tensor

    def errors(self, units: Tensor) -> Tensor:
        """(len(units),): what each unit alone adds to the error, now."""
        index = _features_of_units(self.owner, units)
        if not index.shape[1]:
            return self.weight.new_zeros(len(units))
        there, at = index >= 0, index.clamp(min=0)
        if index.shape[1] == 1:
            first = at[:, 0]
            alone: Tensor = self.weight[:, :, first].square().sum(1) / self.inverse.diagonal(dim1=1, dim2=2)[:, first]
            return torch.where(there.any(1), alone.sum(0), 0)
        block = self.inverse[:, at.unsqueeze(2), at.unsqueeze(1)]  # (G, U, b, b)
        both = there.unsqueeze(2) & there.unsqueeze(1)
        block = torch.where(both, block, torch.eye(at.shape[1], dtype=block.dtype, device=block.device))
        columns = (self.weight[:, :, at] * there).permute(0, 2, 3, 1)  # (G, U, b, O)
        costs: Tensor = (columns * torch.linalg.solve(block, columns)).sum((0, 2, 3))
        return costs

    def without(self, units: Tensor) -> Reader:
        """The reader that is left, refitted."""
        goes = torch.isin(self.owner, units)
        if not bool(goes.any()):
            return self
        gone, left = goes.nonzero().flatten(), (~goes).nonzero().flatten()
        across = self.inverse[:, gone][:, :, left]
        change = torch.linalg.solve(self.inverse[:, gone][:, :, gone], across)
        weight = self.weight[:, :, left] - self.weight[:, :, gone] @ change
        inverse = self.inverse[:, left][:, :, left] - across.transpose(1, 2) @ change
        return Reader(weight, inverse, self.owner[left])

    def part(self, units: Tensor) -> Reader:
        """Of the features those of ``units``, as long as no other goes."""
        here = torch.isin(self.owner, units).nonzero().flatten()
        return replace(
            self, weight=self.weight[:, :, here], inverse=self.inverse[:, here][:, :, here], owner=self.owner[here]
        )


def eliminated(readers: Sequence[Reader], size: int, wide: int = WIDE, at_once: int = AT_ONCE) -> Tensor:
    """(size,), float64, on the CPU: what the going of each unit adds to the error of all ``readers``, in their order.

    Who goes later has more, also where its own error is less than that of who went before it.
    """
    found = torch.zeros(size, dtype=torch.float64, device="cpu")
    left = torch.arange(size, device=readers[0].owner.device)
    least = 0.0
    while len(left):
        among, count = left, len(left)
        if len(left) > wide:
            errors = torch.stack([reader.errors(left) for reader in readers]).sum(0)
            count = min(at_once, len(left) // PART)
            among = left[errors.argsort(stable=True)[: 2 * count]]
        gone = []
        parts = [reader.part(among) for reader in readers]
        for _ in range(count):
            errors = torch.stack([part.errors(among) for part in parts]).sum(0)
            unit = among[errors.argmin()]
            least = max(float(errors.min()), math.nextafter(least, math.inf))
            found[int(unit)] = least
            gone.append(unit)
            among = among[among != unit]
            parts = [part.without(unit) for part in parts]
        together = torch.stack(gone)
        left = left[~torch.isin(left, together)]
        if len(left):
            readers = [reader.without(together) for reader in readers]
    return found


def _features_of_units(owner: Tensor, units: Tensor) -> Tensor:
    """(len(units), most features of a unit): which features each unit owns, -1 where it has fewer."""
    place = torch.full((int(torch.cat([owner, units]).max()) + 2,), -1, device=owner.device)
    place[units] = torch.arange(len(units), device=owner.device)
    at = place[owner]  # of -1 the last one, which no unit has
    features = (at >= 0).nonzero().flatten()
    features = features[at[features].argsort(stable=True)]
    counts = torch.bincount(at[features], minlength=len(units))
    rank = torch.arange(len(features), device=owner.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    found = torch.full((len(units), int(counts.max()) if len(features) else 0), -1, device=owner.device)
    found[at[features], rank] = features
    return found
