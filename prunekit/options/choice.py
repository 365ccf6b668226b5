"""How what goes is chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast, get_args

from prunekit.errors import InputError, as_plain, with_plain_fields
from prunekit.options.checks import (
    check_align,
    check_bool,
    check_call,
    check_pools,
    check_scorer,
    check_seed,
    check_word,
    refuse,
)
from prunekit.options.fields import said
from prunekit.options.measured import Measured, as_measured
from prunekit.options.types import Align, Ranking, Rounding

if TYPE_CHECKING:  # the command's help shows these fields and must not wait for torch
    from prunekit.scorers import Scorer
    from prunekit.scorers.normalisers import Normaliser


def _normalisers() -> tuple[str, ...]:
    from prunekit.scorers.normalisers import NORMALISERS

    return tuple(NORMALISERS)


@dataclass(frozen=True)
class Choice:
    """How what goes is chosen."""

    scorer: Scorer | str | None = field(
        default=None,
        metadata=said(
            "the criterion, or its name: which units matter; ``DisturbedTaylor()`` if None, as for the command, and "
            "``Magnitude()`` of a model that cannot be differentiated."
        ),
    )
    ranking: Ranking = field(
        default="local",
        metadata=said(
            "``local`` removes the same share everywhere; ``global`` ranks all units together, ``role`` those of a "
            "role, ``isomorphic`` those of groups with the same structure.",
            flag="local, global, role or isomorphic.",
            setting="local",
            choices=("local", "global", "role", "isomorphic"),
        ),
    )
    allocation: str | Measured = field(
        default="ranked",
        metadata=said(
            "``ranked`` shares a target out by the ranking; ``measured`` by what every width damages in the model's "
            "outputs, measured one at a time, and the best set of widths within the target, or of blocks and branches "
            "where these are asked for; ``prunekit.Measured(...)`` says how. It needs a target.",
            flag="ranked, or measured: widths by what each damages in the outputs.",
            setting="ranked",
            choices=("ranked", "measured"),
        ),
    )
    normaliser: str | Normaliser = field(
        default="gaussian",
        metadata=said(
            "makes scores of groups comparable before they are ranked together: a name out of "
            "``scorers/normalisers.py``, or a function (units,) -> (units,).",
            setting="gaussian",
            choices=_normalisers,
        ),
    )
    align: Align = field(
        default=None,
        metadata=said(
            "widths are kept at multiples of this; 8 from 64 units on if None, and 1 inside attention; ``auto`` takes "
            "what the device's kernels want (docs/kernels.md).",
            setting=0,
        ),
    )
    granularity: int | Mapping[str, int] | None = field(
        default=None,
        metadata=said(
            "units are kept and removed in blocks of so many neighbours, by the mean of their scores; a number, or a "
            "mapping as for ``align``; 1 if None. A width that it does not divide takes the largest block that does.",
            setting=0,
        ),
    )
    rounding: Rounding = field(
        default="nearest", metadata=said("to the ``nearest`` width that alignment allows, or ``down`` to the next one.")
    )
    pools: Sequence[Collection[str]] | None = field(
        default=None,
        metadata=said(
            "roles, modules or globs over them that ``global`` ranks together; all by default. A width that one pool "
            "names by its own module or role and another by a layer that reads it is in the first."
        ),
    )
    uniform: bool = field(
        default=False,
        metadata=said(
            "whether every role takes one width over all layers, and only widths that the model's own configuration "
            "can say, so that its library loads the pruned model as its own; needs a plug-in that knows the library.",
            flag="One width a role over all layers, such that the model's own library can load the result.",
        ),
    )
    seed: int = field(default=0, metadata=said("of generated inputs and of the symmetry check.", setting=0))

    def __post_init__(self) -> None:
        with_plain_fields(self)
        check_scorer("scorer", self.scorer)
        _with_plain_numbers(self)
        check_word("ranking", self.ranking, get_args(Ranking))
        check_word("rounding", self.rounding, get_args(Rounding))
        if not isinstance(self.align, str) or self.align != "auto":
            check_align("align", self.align)
        check_align("granularity", self.granularity)
        check_pools("pools", self.pools)
        check_seed("seed", self.seed)
        check_bool("uniform", self.uniform)
        if as_measured(self.allocation) is not None and self.uniform:
            raise InputError(
                "uniform widths leave nothing to allocate",
                where="allocation",
                hint="leave allocation at 'ranked', or uniform at False",
            )
        if self.uniform and self.ranking != "local":
            raise InputError(
                f"ranking={self.ranking!r} gives every layer a width of its own",
                where="uniform",
                hint="leave ranking at 'local', or uniform at False",
            )
        if self.normaliser is None:
            refuse("normaliser", None, "the name of one, or a function (units,) -> (units,)")
        if not isinstance(self.normaliser, str):
            check_call("normaliser", self.normaliser, "(units,) -> (units,), or a name")


def _with_plain_numbers(choice: Choice) -> None:
    """A criterion's own numbers are taken as the options' are."""
    scorer: Any = choice.scorer
    if not is_dataclass(scorer):
        return
    given = {each.name: getattr(scorer, each.name) for each in fields(scorer) if each.init}
    changed = {name: plain for name, value in given.items() if (plain := as_plain(value)) is not value}
    if changed:
        object.__setattr__(choice, "scorer", replace(cast("Any", scorer), **changed))
