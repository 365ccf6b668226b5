"""Every error that prunekit raises on purpose.

PrunekitError
├── InputError          example inputs, ratio, patterns or settings that cannot be used
├── TraceError          the forward pass cannot be recorded
├── NothingToPruneError every group is frozen; lists each group and its reason
├── SelectionError      the requested widths cannot be chosen
├── PlanError           a plan does not fit the model that it is given
├── VerificationError   the pruned model is not what was predicted
├── ScorerError         a scorer lacks something it needs
├── DataError           a data folder, image or annotation cannot be used
├── CheckpointError     weights cannot be read or do not fit
├── ExportError         a pruned model cannot be written in the format asked for
├── RecipeError         a recipe or one of its settings cannot be used
└── RegistryError       an unknown name; says the nearest known ones
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


class PrunekitError(Exception):
    """What went wrong, where, and what to do next, as one readable message."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        text = what
        if where:
            text += f" [at {where}]"
        if hint:
            text += f"\n  next: {hint}"
        super().__init__(text)


class InputError(PrunekitError):
    """Example inputs, a ratio, a pattern or a setting that cannot be used."""


class TraceError(PrunekitError):
    """The forward pass cannot be recorded."""


class NothingToPruneError(PrunekitError):
    """Every group is frozen."""


class SelectionError(PrunekitError):
    """The requested widths cannot be chosen."""


class BudgetError(SelectionError):
    """No widths meet a target: ``reached`` is the least of each quantity, ``kept`` the units by group that reach it.

    ``prunekit.plan`` with a target of what is reached gives the plan.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        hint: str = "",
        reached: Mapping[str, float] | None = None,
        kept: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.reached, self.kept = dict(reached or {}), dict(kept or {})


class PlanError(PrunekitError):
    """A plan does not fit the model that it is given."""


class ConfigError(PlanError):
    """A model's own configuration cannot say the widths that were asked for."""


class VerificationError(PrunekitError):
    """The pruned model is not what was predicted."""


class ScorerError(PrunekitError):
    """A scorer lacks something that it needs."""


class DataError(PrunekitError):
    """A data folder, an image or an annotation cannot be used."""


class CheckpointError(PrunekitError):
    """Weights cannot be read or do not fit the model."""


class ExportError(PrunekitError):
    """A pruned model cannot be written in the format asked for; the hint names what would make it possible."""


class RecipeError(PrunekitError):
    """A recipe or one of its settings cannot be used."""


class RegistryError(PrunekitError):
    """An unknown name; the message lists the nearest known ones."""

    @classmethod
    def unknown(cls, kind: str, name: str, known: Iterable[str]) -> RegistryError:
        names = sorted(known)
        near = get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
        return cls(f"unknown {kind} {name!r}", hint=hint)


def expect(name: str, value: object, accepted: str, *, fits: bool) -> None:
    """Raises InputError where an argument is of another kind than it must be: its name, what came, what is accepted."""
    if not fits:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else type(value).__name__
        raise InputError(f"{name}={shown} cannot be used", where=name, hint=f"pass {accepted}")


def as_plain(value: Any) -> Any:
    """Numbers of numpy and the like as Python's own, in mappings, lists and tuples too; anything else as it is.

    A number is taken as the decimal that is written: 0.3 in 32 bits is 0.3, which JSON can hold and checks compare.
    """
    if type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        pairs = {key: as_plain(each) for key, each in value.items()}
        return pairs if any(pairs[key] is not value[key] for key in pairs) else value
    if type(value) in (list, tuple):
        items = [as_plain(each) for each in value]
        return type(value)(items) if any(a is not b for a, b in zip(items, value, strict=True)) else value
    if str(getattr(value, "dtype", "")) == "bool" and not getattr(value, "ndim", 1):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(str(value)) if hasattr(value, "dtype") else float(value)
    return value


def with_plain_fields(record: Any) -> None:
    """``as_plain`` of every field of a frozen dataclass that is being made: the first thing of ``__post_init__``."""
    for each in fields(record):
        given = getattr(record, each.name)
        if (plain := as_plain(given)) is not given:
            object.__setattr__(record, each.name, plain)
