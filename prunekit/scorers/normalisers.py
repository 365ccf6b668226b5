"""Make scores of different groups comparable before they are ranked together.

The first six are those that the reference code of SlimSAM (arXiv 2312.05284) offers; gaussian is the one of the
published models. All of them are monotone: the order inside a group stays. A group whose scores do not differ carries
no order: where a normaliser would divide by zero it divides by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prunekit.errors import InputError, RegistryError

Normaliser = Callable[[Tensor], Tensor]


def unchanged(scores: Tensor) -> Tensor:
    """x"""
    return scores


def by_sum(scores: Tensor) -> Tensor:
    """x / sum(x)"""
    return scores / _divisor(scores.sum())


def by_mean(scores: Tensor) -> Tensor:
    """x / mean(x)"""
    return scores / _divisor(scores.mean())


def by_max(scores: Tensor) -> Tensor:
    """x / max(x)"""
    return scores / _divisor(scores.max())


def gaussian(scores: Tensor) -> Tensor:
    """(x - mean(x)) / std(x)"""
    spread = scores.std() if scores.numel() > 1 else torch.zeros_like(scores[0])
    return (scores - scores.mean()) / _divisor(spread)


def standardised(scores: Tensor) -> Tensor:
    """(x - min(x)) / (max(x) - min(x))"""
    return (scores - scores.min()) / _divisor(scores.max() - scores.min())


def lamp_scores(scores: Tensor) -> Tensor:
    """x_u^2 / sum of x_v^2 over all v that are no smaller, u included (Lee et al. 2021, Eq. 4)

    Scores are not negative; where a custom criterion has negative ones, the smallest is moved to zero first.
    """
    shifted = scores - scores.min().clamp(max=0)
    values, place, count = torch.unique(shifted.square(), return_inverse=True, return_counts=True)
    no_smaller = (values * count).flip(0).cumsum(0).flip(0)
    shares: Tensor = values / torch.where(no_smaller == 0, torch.ones_like(no_smaller), no_smaller)
    return shares[place]


def _divisor(value: Tensor) -> Tensor:
    # A negative divisor would turn the order round; scores of a custom criterion may have a negative sum.
    return torch.where(value == 0, torch.ones_like(value), value.abs())


NORMALISERS: dict[str, Normaliser] = {
    "none": unchanged,
    "sum": by_sum,
    "mean": by_mean,
    "max": by_max,
    "gaussian": gaussian,
    "standardisation": standardised,
    "lamp": lamp_scores,
}


def normaliser(which: str | Normaliser) -> Normaliser:
    """The normaliser of that name, or what was given. Raises RegistryError on another name.

    A normaliser of your own turns scores (units,) into (units,) and keeps their order.
    """
    if not isinstance(which, str):
        return _watched_over(which)
    if which not in NORMALISERS:
        raise RegistryError.unknown("normaliser", which, NORMALISERS)
    return NORMALISERS[which]


_WANTED = "it takes scores (units,), float64, and gives as many"


def _watched_over(own: Normaliser) -> Normaliser:
    """A function of one's own, whose answer is looked at before units are ranked by it."""

    def run(scores: Tensor) -> Tensor:
        try:
            found: object = own(scores)
        except Exception as error:
            raise InputError(
                f"the normaliser failed: {type(error).__name__}: {error}", where="normaliser", hint=_WANTED
            ) from error
        if not isinstance(found, Tensor) or found.shape != scores.shape:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"the normaliser gave {what}", where="normaliser", hint=_WANTED)
        return found

    return run
