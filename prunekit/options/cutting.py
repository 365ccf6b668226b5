"""How it is cut and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from prunekit.errors import with_plain_fields
from prunekit.options.checks import check_call, check_word, refuse
from prunekit.options.fields import said
from prunekit.options.schedules import Schedule, portions
from prunekit.options.types import OnStep, Verify

if TYPE_CHECKING:  # the command's help shows these fields and must not wait for torch
    from prunekit.compensation.settings import Compensation
    from prunekit.quantities.latency_table import LatencyTable


@dataclass(frozen=True)
class Cutting:
    """How it is cut and checked. Raises InputError for a number of steps, a schedule or a name that does not exist."""

    steps: int = field(default=1, metadata=said("remove in so many steps, each scored on what the last one left."))
    schedule: Schedule = field(
        default="cubic",
        metadata=said(
            "how much is gone after step k of n, of all that goes: ``linear`` k/n, ``cubic`` 1 - (1 - k/n)^3, or a "
            "function (k, n)."
        ),
    )
    on_step: OnStep | None = field(
        default=None,
        metadata=said("called as ``on_step(model, k, n)`` after every step, e.g. to train in between."),
    )
    compensate: str | Compensation | None = field(
        default=None,
        metadata=said(
            '``"ridge"`` refits what reads removed units by least squares on ``data``, without training; '
            '``"ridge-in-order"`` refits every layer to what those before it give after the cut, in one batch.',
            flag="ridge or ridge-in-order: refit by least squares after every cut.",
            setting="",
            choices=("", "ridge", "ridge-in-order"),
        ),
    )
    replace: str | None = field(
        default=None,
        metadata=said(
            '``"affine"`` puts the affine map of least squares, fitted on ``data``, in the place of every block or '
            "residual branch that goes (roles ``depth.*``); nothing stands there by default. Within a target "
            "by measured damage, of those where that damages less for what it costs.",
            flag="affine: what a block or branch that goes did to its stream, as one linear layer.",
            setting="",
            choices=("", "affine"),
        ),
    )
    verify: Verify = field(
        default="auto",
        metadata=said(
            "``shapes`` rehearses the pruned model on the meta device; ``full`` also checks that units are "
            "interchangeable, on real numbers; ``auto`` does so where a forward pass takes at most 50 GMACs and, "
            "within ``offloaded``, the weights fit its memory.",
            setting="auto",
            choices=("auto", "full", "shapes"),
        ),
    )
    latency: LatencyTable | None = field(
        default=None,
        metadata=said("a table of operator times for targets on latency, kept over several calls; a new one if None."),
    )

    def __post_init__(self) -> None:
        with_plain_fields(self)
        check_word("verify", self.verify, get_args(Verify))
        check_call("on_step", self.on_step, "(model, step, steps)")
        if self.latency is not None and not hasattr(self.latency, "total"):
            refuse("latency", self.latency, "a prunekit.LatencyTable")
        portions(self.steps, self.schedule)
        if self.replace is not None:
            check_word("replace", self.replace, ("affine",))
        if self.compensate is not None:
            from prunekit.compensation.settings import as_compensation

            as_compensation(self.compensate)
