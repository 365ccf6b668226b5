"""Criteria against each other and against chance: one budget, the same data, several seeds, ``random`` as the control.

What a seed changes: which samples are drawn out of the data, what a scorer draws itself (Random's scores, the noise of
DisturbedTaylor, the probes of OBD). A criterion that reads neither samples nor a seed is cut once: more runs would give
the same figure again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from typing import Any

from torch import nn

from prunekit.api import trace
from prunekit.comparison.draws import Drawn, pool_of
from prunekit.comparison.trials import Comparison, Line, Trial
from prunekit.compensation.settings import Compensation, as_compensation, name_of_compensation
from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, PrunekitError, ScorerError, as_plain
from prunekit.modules.wrappers import eager, unwrap
from prunekit.options import Options
from prunekit.options.keywords import takes_options
from prunekit.planning.candidates import choose, nothing_to_prune
from prunekit.planning.drafting import draft
from prunekit.planning.naming import by_name
from prunekit.planning.parting import parted
from prunekit.planning.symmetry_check import check_symmetry
from prunekit.planning.width_drafts import Draft
from prunekit.quantities.plan_cost import cost_after
from prunekit.registry.criteria import known_scorers, scorer
from prunekit.removal.ranking import scores_depth
from prunekit.scorers import Scored, Scorer, Statistics
from prunekit.surgery.cutting import Undo, apply

CONTROL = "random"
SEEDS = (0, 1, 2)
IMAGES = 64
NO_USE = ("scorer", "seed", "steps", "schedule", "on_step")  # seeds and scorers are its own; one step is compared

Maker = Callable[[int], Scorer]
Evaluate = Callable[[nn.Module], Mapping[str, float]]
Listen = Callable[[int, int, str], object]

logger = logging.getLogger(__name__)


@takes_options(without=NO_USE)
def compare(
    model: nn.Module,
    scorers: Sequence[str] | Mapping[str, Maker],
    evaluate: Evaluate,
    example_inputs: Any = None,
    *,
    data: Iterable[Any] | None = None,
    seeds: Sequence[int] = SEEDS,
    images: int = IMAGES,
    structure: Structure | None = None,
    listen: Listen | None = None,
    options: Options | None = None,
    **keywords: Any,
) -> Comparison:
    """Cuts ``model`` with every scorer and seed to the same budget, judges it, and puts it back bit for bit.

    The model is traced once, and every seed has one set of statistics that all scorers share.

    Args:
        scorers: names as in ``prunekit list scorers``, or name -> a function from a seed to a scorer. ``random`` is
            always added.
        evaluate: the cut model, which is ``model`` itself -> metrics, higher is better; the first one is ranked by. It
            must not keep or change the model.
        data: calibration samples to draw from, as for ``prunekit.prune``; a sequence of Sample is read where it is
            drawn only. Generated if None, with a notice in the log.
        seeds: of the draws; at least two give a spread.
        images: samples a seed draws; at most half of ``data`` where there are several seeds, so that draws differ.
        listen: called as ``listen(done, total, scorer)`` before every cut and at the end.
        {options}

    Raises:
        InputError: seeds or images that cannot be used. RegistryError: a scorer of that name is not known.
        ScorerError: none of ``scorers`` can score this model; each one's reason is in the message. One that fails
            while another does not is a line with the reason.
        PrunekitError: what stops the control stops the comparison: no trace, nothing to prune, a target out of reach.
    """
    seeds, images = as_plain(seeds), as_plain(images)
    _check_seeds(seeds, images)
    makers = _makers(scorers)
    options = (options or Options()).replaced(**keywords)
    options.refuse("prunekit.compare", NO_USE)
    model = unwrap(model)
    options = by_name(options, model)
    with eager():
        structure = structure or trace(model, example_inputs, free_outputs=options.scope.free_outputs)
        deep = _of_blocks(options)
        options = options.replaced(seed=seeds[0])
        settled, groups = (options, structure.depth.groups) if deep else _groups_settled(model, structure, options)
        refit = as_compensation(options.cutting.compensate)
        contest = _Contest(model, structure, settled, groups, refit, evaluate, listen or (lambda *_: None), deep)
        pool = pool_of(model, data, structure.inputs, images * len(seeds), seeds[0])
        count = min(images, len(pool) if len(seeds) == 1 else max(1, len(pool) // 2))
        original = dict(evaluate(model))
        lines = contest.run(makers, [Drawn.of(pool, count, seed) for seed in seeds], seeds)
    _check_any(lines)
    cost = structure.cost()
    drawn = {"seeds": list(seeds), "images": count, "of_images": len(pool)}
    return Comparison.of(lines, CONTROL, original, cost.params, cost.macs, _told(options) | drawn)


def _of_blocks(options: Options) -> bool:
    """Whether criteria of blocks are compared, and not of widths. Raises InputError where both are asked for."""
    parts = parted(options)
    if parts.depth is not None and parts.widths is not None:
        raise InputError(
            "criteria of blocks and of widths are compared apart", where="depth.block", hint="name one of both"
        )
    return parts.depth is not None


def _told(options: Options) -> dict[str, Any]:
    """What the figures say of how they came about."""
    scope = options.scope
    return {
        "ratio": None if scope.target is not None else scope.share,
        "target": scope.target,
        "ranking": options.choice.ranking,
        "compensate": name_of_compensation(as_compensation(options.cutting.compensate)),
    }


def _check_seeds(seeds: Sequence[int], images: int) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or images < 1:
        raise InputError(
            f"seeds {tuple(seeds)} with {images} images compare nothing", hint="different seeds, one image at least"
        )


def _makers(scorers: Sequence[str] | Mapping[str, Maker]) -> dict[str, Maker]:
    """A function from a seed to a scorer by name, the control first."""
    if isinstance(scorers, Mapping):
        given = dict(scorers)
    else:
        given = {name.strip().lower().replace("-", "_"): _named(name) for name in scorers}
    return {CONTROL: given.get(CONTROL, _named(CONTROL)), **given}


def _named(name: str) -> Maker:
    scorer(name)  # an unknown one is refused before anything is run
    return lambda seed: scorer(name, seed=seed)


def needs_no_labels() -> list[str]:
    """The names of all known scorers that can score without a loss and targets."""
    return [
        name
        for name, make in known_scorers().items()
        if not getattr(getattr(getattr(make, "func", make), "needs", None), "labels", False)
    ]


def _groups_settled(model: nn.Module, structure: Structure, options: Options) -> tuple[Options, tuple[Group, ...]]:
    """The groups to prune, whose symmetry is checked once, and options for exactly these."""
    chosen = choose(structure, options.scope)
    checked = check_symmetry(model, structure, chosen, options)
    broken = () if checked is None else checked.broken
    if broken:
        logger.warning("symmetry does not hold for %s: these groups are left alone", ", ".join(broken))
        chosen = tuple(g for g in chosen if g.name not in broken)
    if not chosen:
        raise nothing_to_prune(structure, checked)
    return options.replaced(include=[escape(g.name) for g in chosen], verify="shapes"), chosen


@dataclass(frozen=True, eq=False)
class _Contest:
    """What stays the same for every scorer and seed."""

    model: nn.Module
    structure: Structure
    options: Options
    groups: tuple[Group, ...]
    refit: Compensation | None
    evaluate: Evaluate
    listen: Listen
    deep: bool = False

    def run(self, makers: Mapping[str, Maker], draws: Sequence[Drawn], seeds: Sequence[int]) -> list[Line]:
        """A line for each scorer. Seeds are the outer loop: one set of statistics is held at a time."""
        trials: dict[str, list[Trial]] = {name: [] for name in makers}
        why: dict[str, str] = {}
        fixed: set[str] = set()
        total = len(makers) * len(seeds)
        names = sorted({m.tensor for g in self.groups for m in g.parameters})
        for number, (seed, drawn) in enumerate(zip(seeds, draws, strict=True)):
            statistics = Statistics(self.model, drawn, parameters=names, groups=self.groups)
            for place, (name, make) in enumerate(makers.items()):
                self.listen(number * len(makers) + place, total, name)
                if name in why or name in fixed:
                    continue
                asked = statistics.asked
                try:
                    made = make(seed)
                    found, undo = self._cut(made, drawn, statistics, seed)
                except PrunekitError as error:
                    if name == CONTROL:
                        raise
                    why[name] = error.what
                    continue
                trials[name].append(self._judged(found, undo, seed))
                again = len(seeds) > 1 and make(seeds[1]) == make(seeds[0])
                if again and self.refit is None and not self.deep and statistics.asked == asked:
                    fixed.add(name)
        self.listen(total, total, "")
        return [Line(n, () if n in why else tuple(trials[n]), n in fixed, why.get(n, "")) for n in makers]

    def _cut(self, made: Scorer, drawn: Drawn, statistics: Statistics, seed: int) -> tuple[Draft, Undo]:
        if self.deep:  # every block that goes is passed by in the model itself: there are no statistics to share
            depth = parted(self.options).depth
            if depth is None or not scores_depth(made, depth.scope.roles or ()):
                raise ScorerError(f"{type(made).__name__} says nothing of whole blocks", where="scorer")
            inputs = [sample.inputs for sample in drawn]
            whole = draft(self.model, self.structure, self.options.replaced(scorer=made, seed=seed), data=inputs)
            return whole, apply(self.model, whole.plan, data=inputs)
        scored = Scored.of(made, self.groups, statistics)
        found = draft(self.model, self.structure, self.options.replaced(scorer=scored, seed=seed))
        data = None if self.refit is None else [sample.inputs for sample in drawn]
        return found, apply(self.model, found.plan, compensate=self.refit, data=data)

    def _judged(self, found: Draft, undo: Undo, seed: int) -> Trial:
        has_maps = any(absence.has_map for absence in found.plan.absences)
        cost = cost_after(self.structure, found.plan) if has_maps else self.structure.cost(found.kept)
        try:
            metrics = {name: float(value) for name, value in self.evaluate(self.model).items()}
        finally:
            undo()
        return Trial(seed, metrics, cost.params, cost.macs)


def _check_any(lines: Sequence[Line]) -> None:
    asked = [line for line in lines if line.scorer != CONTROL]
    if asked and not any(line.trials for line in asked):
        reasons = "; ".join(f"{line.scorer}: {line.why}" for line in asked)
        raise ScorerError(
            f"no scorer can score this model: {reasons}",
            hint="compare scorers that read weights only, such as magnitude",
        )
