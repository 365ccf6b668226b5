"""A search over subnets by a score of the user's own: nothing is trained, subnets share the model's weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunekit.api import trace
from prunekit.coupling.cost import Cost
from prunekit.coupling.structure import Structure
from prunekit.errors import PlanError, ScorerError, TraceError, VerificationError, as_plain, expect
from prunekit.exploration.samplers import Ask, asked_in_turn
from prunekit.inputs.per_rank import Alone, meeting_over
from prunekit.modules.wrappers import eager, unwrap
from prunekit.options import Options
from prunekit.options.keywords import takes_options
from prunekit.planning.candidates import choose, nothing_to_prune
from prunekit.planning.liked_widths import with_liked_widths
from prunekit.planning.naming import by_name
from prunekit.planning.scoring import scored_by
from prunekit.planning.settling import planned
from prunekit.planning.symmetry_check import check_symmetry
from prunekit.planning.targeted import unreachable
from prunekit.planning.variants import Attainable
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Allowance, Gauge
from prunekit.quantities.limits import Target
from prunekit.registry.homes import words_of
from prunekit.scorers import Scorer
from prunekit.selection import Conditions
from prunekit.selection.budget import filled
from prunekit.selection.ranking import counts_of
from prunekit.selection.ratio import nearest
from prunekit.surgery.cutting import applied

NOT_SEARCHED = (
    *("ratio", "target", "allocation", "uniform", "ranking", "pools", "rounding", "free_outputs"),
    *("steps", "schedule", "on_step", "compensate"),
)
_HALVINGS, _LOWER = 20, 12
Score = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Subnet:
    """Widths by group, the plan that makes them, what they cost, and their score; the higher, the better."""

    widths: Mapping[str, int]
    plan: Plan
    cost: Cost
    score: float


@dataclass(frozen=True)
class Found:
    """The best subnet, the one that keeps the same share everywhere, and every score in the order of trials.

    A trial whose widths the model's own code does not follow has the score -inf.
    """

    best: Subnet
    uniform: Subnet | None
    scores: tuple[float, ...]


@takes_options(without=NOT_SEARCHED)
def search(
    model: nn.Module,
    score: Score,
    budgets: Target,
    example_inputs: Any = None,
    *,
    trials: int = 200,
    sampler: str = "nsga2",
    data: Iterable[Any] | None = None,
    store: str | Path | None = None,
    structure: Structure | None = None,
    listen: Callable[[int, int, float], object] | None = None,
    over_ranks: bool = False,
    options: Options | None = None,
    **keywords: Any,
) -> Found:
    """The subnet within ``budgets`` that ``score`` likes best; ``model`` stays as it is, bit for bit.

    A trial is a share for every site; all shares are scaled by one number, the largest within the budgets, and what
    alignment leaves over goes to single steps. So every trial is within them, and none wastes them. The first one has
    the same share everywhere.

    Args:
        score: the cut model, which is ``model`` itself -> a number, the higher, the better. It must not change it.
        budgets: limits as ``target`` of ``prunekit.prune``.
        trials: subnets that are tried, those in ``store`` counted.
        sampler: of optuna: ``nsga2`` (evolutionary; Deb et al. 2002), ``cmaes``, ``tpe``, or ``random``, the control.
        store: a file that trials are kept in; a later call with the same model, budgets and options goes on from it.
        listen: called as ``listen(done, trials, best score so far)`` after each.
        over_ranks: the ranks of torch.distributed score as many trials at a time as there are ranks; all call with the
            same arguments and get the same result. The first one keeps ``store`` and calls ``listen``.
        {options}

    Raises:
        InputError: an unknown sampler, or optuna is missing. BudgetError: no widths are within ``budgets``.
        ScorerError: ``score`` gave no finite number.
    """
    expect("score", score, "a function (model) -> number", fits=callable(score))
    trials = as_plain(trials)
    expect("trials", trials, "a whole number >= 1", fits=type(trials) is int and trials >= 1)
    options = (options or Options()).replaced(**keywords)
    options.refuse("prunekit.search", NOT_SEARCHED)
    model = unwrap(model)
    options = by_name(options, model)
    with eager(), meeting_over(over_ranks) as ranks:
        structure = structure or trace(model, example_inputs)
        space = _Space.of(model, structure, budgets, options, data)
        identity = space.identity(options.choice.seed)
        ranks.same("what is searched", (identity, trials, sampler))
        ask = Ask(len(space.widths.allocations), trials, sampler, options.choice.seed, store, identity)
        return _found(_Tried(space, score), ask, listen, ranks)


def _found(tried: _Tried, ask: Ask, listen: Callable[[int, int, float], object] | None, ranks: Alone) -> Found:
    made = asked_in_turn(ask, tried.score_of, listen, ranks)
    best = max(made, key=lambda pair: pair[1])
    if not math.isfinite(best[1]):
        raise PlanError("the model's own code follows none of the subnets that were tried", hint="exclude a role")
    uniform = tried.subnet([1.0] * ask.sites, made)
    found = tried.subnet(best[0], made)
    assert found is not None
    ranks.end("what was found", found.widths)
    return Found(found, uniform, tuple(value for _, value in made))


@dataclass(frozen=True, eq=False)
class _Space:
    """What is searched: sites by shares of their widths, within limits."""

    model: nn.Module
    structure: Structure
    widths: Attainable
    gauge: Gauge

    @classmethod
    def of(
        cls, model: nn.Module, structure: Structure, budgets: Target, options: Options, data: Iterable[Any] | None
    ) -> _Space:
        chosen = choose(structure, options.scope)
        checked = check_symmetry(model, structure, chosen, options)
        broken = () if checked is None else checked.broken
        chosen = tuple(group for group in chosen if group.name not in broken)
        if not chosen:
            raise nothing_to_prune(structure, checked)
        choice = options.choice
        found: tuple[Scorer, dict[str, Tensor]] = scored_by(choice.scorer, model, structure, chosen, data, choice.seed)
        options, _ = with_liked_widths(model, chosen, options)
        widths = Attainable.of(structure, chosen, found[1], Conditions(options, kinds=structure.kinds))
        return cls(model, structure, widths, Gauge.of(model, structure, budgets))

    def identity(self, seed: int) -> str:
        """What trials are kept by: the sites, the limits and the units that each width keeps."""
        digest = hashlib.sha256(repr((seed, sorted(self.gauge.limits.items()))).encode())
        for a in self.widths.allocations:
            digest.update(
                repr((a.groups, a.allowed, [self.widths.values[name].tolist() for name in a.groups])).encode()
            )
        return digest.hexdigest()[:16]

    def kept(self, shares: Sequence[float]) -> dict[str, Tensor]:
        """Units within the limits, the widths in the proportions of ``shares``. Raises BudgetError."""
        allocations, limits = self.widths.allocations, dict(self.gauge.limits)
        for _ in range(_LOWER):
            allowance = Allowance(self.gauge, limits)

            def at(scale: float) -> list[int]:
                wanted = [min(1.0, share * scale) * a.size for share, a in zip(shares, allocations, strict=True)]
                return [nearest(a.allowed, Fraction(w), "down") for a, w in zip(allocations, wanted, strict=True)]

            low, high = 0.0, 1.0 / max(min(shares), 1e-3)
            best = at(low)
            if not allowance.takes(counts_of(allocations, best)):
                narrowest = self.widths.agreed(self.widths.at(allocations, best))
                usage = self.gauge.exactly(narrowest)
                if not self.gauge.met(usage):
                    raise unreachable(self.structure, self.widths.groups, usage, self.gauge, narrowest)
                return narrowest
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                if allowance.takes(counts_of(allocations, at(middle))):
                    low, best = middle, at(middle)
                else:
                    high = middle
            best = filled(allocations, best, allowance.takes)
            kept = self.widths.agreed(self.widths.at(allocations, best))
            usage = self.gauge.exactly(kept)
            if self.gauge.met(usage):
                return kept
            limits = {q: limits[q] * min(1.0, 0.999 * most / usage[q]) for q, most in self.gauge.limits.items()}
        narrowest = self.widths.agreed(self.widths.at(allocations, [a.allowed[0] for a in allocations]))
        return narrowest


@dataclass(eq=False)
class _Tried:
    """Scores by widths: what was tried is not tried again."""

    space: _Space
    score: Score
    known: dict[tuple[int, ...], float] = field(default_factory=dict)

    def planned(self, shares: Sequence[float]) -> tuple[dict[str, Tensor], Plan | None]:
        space = self.space
        kept = space.kept(shares)
        try:
            return kept, planned(space.model, space.structure, kept, words_of(space.model))[0]
        except (PlanError, TraceError, VerificationError):
            return kept, None

    def score_of(self, shares: Sequence[float]) -> float:
        """The score of a trial; -inf where the model's own code does not follow."""
        kept, plan = self.planned(shares)
        widths = tuple(len(units) for units in kept.values())
        if widths not in self.known:
            self.known[widths] = -math.inf if plan is None else self._scored(plan)
        return self.known[widths]

    def _scored(self, plan: Plan) -> float:
        with applied(self.space.model, plan):
            value = float(self.score(self.space.model))
        if not math.isfinite(value):
            raise ScorerError(f"the score of a subnet is {value}", where="score", hint="give a finite number")
        return value

    def subnet(self, shares: Sequence[float], made: Sequence[tuple[Sequence[float], float]]) -> Subnet | None:
        """A trial as a value, scored where it is none of those that were ``made``."""
        kept, plan = self.planned(shares)
        if plan is None:
            return None
        widths = {name: len(units) for name, units in kept.items()}
        score = next((value for known, value in made if list(known) == list(shares)), None)
        return Subnet(widths, plan, self.space.structure.cost(kept), self.score_of(shares) if score is None else score)
