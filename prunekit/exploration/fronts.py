"""Damage over cost: one measurement, many budgets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from prunekit.api import trace
from prunekit.coupling.cost import Cost
from prunekit.coupling.structure import Structure
from prunekit.errors import BudgetError, InputError
from prunekit.modules.wrappers import eager, unwrap
from prunekit.options import Options
from prunekit.options.keywords import takes_options
from prunekit.options.measured import Measured, as_measured
from prunekit.planning.candidates import choose
from prunekit.planning.drafting import draft
from prunekit.planning.naming import by_name
from prunekit.planning.scoring import scored_by
from prunekit.planning.width_drafts import Draft, traced_again
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline, fields_of
from prunekit.quantities.limits import Target
from prunekit.scorers import Scored
from prunekit.surgery.cutting import apply_unfitted

_NO_USE = ("ratio", "target", "uniform", "steps", "schedule", "on_step", "compensate")


@dataclass(frozen=True)
class FrontPoint:
    """A budget, the plan that was found within it, and what that costs and damages; without a plan, why."""

    target: Target
    plan: Plan | None
    cost: Cost | None
    damage: float | None
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Front:
    """The points in the order in which budgets were given, and what the original costs."""

    points: tuple[FrontPoint, ...]
    original: Cost

    def plot(self, file: str | Path, quantity: str = "macs") -> None:
        """A picture of damage over one quantity, which the file's ending says the format of.

        Raises InputError for another quantity, and where matplotlib is not installed.
        """
        if quantity not in (known := tuple(fields_of(self.original))):
            raise InputError(f"{quantity!r} cannot be drawn", where="quantity", hint=f"one of {known}")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise InputError(
                "matplotlib is not installed", where="plot", hint="pip install 'prunekit[plots]'"
            ) from error
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        ax = figure.subplots()
        whole = fields_of(self.original)[quantity]
        drawn = sorted(
            (fields_of(p.cost)[quantity] / whole, p.damage)
            for p in self.points
            if p.cost is not None and p.damage is not None
        )
        ax.plot([100 * x for x, _ in drawn], [y for _, y in drawn], marker="o", linewidth=1.2)
        ax.set_xlabel(f"{quantity} left, %")
        ax.set_ylabel("damage")
        figure.savefig(file, dpi=120)


@takes_options(without=_NO_USE)
def pareto(
    model: nn.Module,
    targets: Sequence[Target],
    example_inputs: Any = None,
    *,
    data: Iterable[Any] | None = None,
    structure: Structure | None = None,
    progress: Any = None,
    options: Options | None = None,
    **keywords: Any,
) -> Front:
    """The best set of widths within each of several targets, by one measurement; ``model`` stays as it is.

    Variants are measured once; of every target only whole sets are. ``prunekit.apply(model, point.plan)`` cuts.

    Args:
        targets: limits as for ``prunekit.prune``. One that no widths meet is a point without a plan.
        {options}

    Raises:
        InputError: without targets. What ``prunekit.plan`` raises, but BudgetError.
    """
    if isinstance(targets, str) or not targets:
        raise InputError("the targets are not a list of some", where="targets", hint='pass ["macs<=80%", "macs<=60%"]')
    options = (options or Options()).replaced(**keywords)
    options.refuse("prunekit.pareto", _NO_USE)
    model = unwrap(model)
    options = by_name(options, model)
    how = as_measured(options.choice.allocation) or Measured()
    held = None if data is None else list(data)
    with eager(), tempfile.TemporaryDirectory() as folder:
        structure = structure or trace(model, example_inputs)
        choice = options.choice
        groups = choose(structure, options.scope)
        scorer, scores = scored_by(choice.scorer, model, structure, groups, held, choice.seed, progress)
        how = how if how.store is not None else replace(how, store=Path(folder) / "damages.json")
        options = options.replaced(scorer=Scored(scores, scorer), allocation=how)
        points = []
        for number, target in enumerate(targets):
            asked = options.replaced(target=target, **({"verify": "shapes"} if number else {}))
            baseline = Baseline.of(model, structure, target, options.cutting.latency)
            try:
                made = draft(model, structure, asked, data=held, progress=progress, baseline=baseline)
            except BudgetError as error:
                points.append(FrontPoint(target, None, None, None, (str(error),)))
            else:
                cost = _cost_left(model, structure, made)
                points.append(FrontPoint(target, made.plan, cost, made.damage, made.remarks))
        return Front(tuple(points), structure.cost())


def _cost_left(model: nn.Module, structure: Structure, made: Draft) -> Cost:
    """The cost of what a draft leaves: counted in what is there where anything went whole, maps included."""
    if not (made.plan.removals or made.plan.absences):
        return structure.cost(made.kept)
    undo = apply_unfitted(model, made.plan)
    try:
        return traced_again(model, structure).cost()
    finally:
        undo()
