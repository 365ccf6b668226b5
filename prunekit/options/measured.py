"""How damage is measured and spent, where widths are shared out by measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from prunekit.errors import InputError, with_plain_fields

Damages = Literal["auto", "kl", "mse"]
Allocations = Literal["ranked", "measured"]


@dataclass(frozen=True)
class Measured:
    """What a measured allocation tries, on what, and how it is judged.

    Attributes:
        widths: shares of a width that are tried, each in (0, 1), beside the whole; brought to the alignment.
        samples: inputs that damage is measured on, at most.
        batch: of them that go through the model at once, where they can be joined.
        damage: ``kl`` is the Kullback-Leibler divergence from the original's softmax over the last axis, a place;
            ``mse`` the squared error of the outputs over their squared size; ``auto`` takes ``kl`` where the model
            returns ``logits`` or one matrix (batch, classes). Or a function (outputs, original outputs) -> number >= 0
            on lists of tensors, summed over batches.
        sets: how many whole sets of widths are measured before one is taken.
        rounds: how often the damage of neighbouring widths is measured anew around the set that is best so far.
        solutions: a bound on what is searched for a set: nodes of the branch and bound.
        memory: bytes that kept activations may take; past it a pass begins at the start.
        store: a file where damages are kept, so that a later call with the same model and data need not measure them.
    """

    widths: Sequence[float] = (0.875, 0.75, 0.625, 0.5, 0.25)
    samples: int = 32
    batch: int = 8
    damage: str | Callable[[list[Any], list[Any]], float] = "auto"
    sets: int = 6
    rounds: int = 1
    solutions: int = 200
    memory: int = 2 << 30
    store: str | Path | None = field(default=None)

    def __post_init__(self) -> None:
        with_plain_fields(self)
        shares = tuple(self.widths)
        if not shares or not all(type(w) in (int, float) and 0 < w < 1 for w in shares):
            raise InputError(f"widths={self.widths!r} cannot be tried", where="widths", hint="pass shares in (0, 1)")
        for name in ("samples", "batch", "sets", "solutions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value!r} cannot be used", where=name, hint="pass a whole number >= 1")
        for name in ("rounds", "memory"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"{name}={value!r} cannot be used", where=name, hint="pass a whole number >= 0")
        if not callable(self.damage) and self.damage not in get_args(Damages):
            raise InputError(
                f"{self.damage!r} is not a damage",
                where="damage",
                hint=f"one of {', '.join(get_args(Damages))}, or a function (outputs, original outputs) -> number",
            )


def as_measured(value: str | Measured) -> Measured | None:
    """None for ``"ranked"``, the defaults for ``"measured"``, or what was given. Raises InputError on another name."""
    if isinstance(value, Measured):
        return value
    if value not in get_args(Allocations):
        raise InputError(
            f"{value!r} is not an allocation",
            where="allocation",
            hint=f"one of {', '.join(get_args(Allocations))}, or prunekit.Measured(...)",
        )
    return Measured() if value == "measured" else None
