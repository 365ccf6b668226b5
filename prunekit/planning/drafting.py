"""A plan in the making: groups are chosen, scored and selected; the model's own code is asked whether it follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, NothingToPruneError, PlanError, ScorerError, TraceError, VerificationError
from prunekit.inputs import Sample, as_samples, generated
from prunekit.planning.folds import Note, with_folds
from prunekit.planning.reconciling import reconcile
from prunekit.planning.rehearsal import rehearse
from prunekit.planning.solving import make_plan
from prunekit.planning.symmetry_check import Symmetry, symmetry
from prunekit.planning.targeted import select_for_target
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Baseline, Gauge
from prunekit.quantities.latency_table import LatencyTable
from prunekit.quantities.limits import Target
from prunekit.scorers import Magnitude, Scorer, Statistics
from prunekit.selection import How, filter_groups, parse_target, select
from prunekit.selection.ratio import Ratio, exact_ratio, narrowed
from prunekit.tracing.collector import paused_collector

logger = logging.getLogger(__name__)

Verify = Literal["auto", "full", "shapes"]
GENERATED_SAMPLES, GENERATED_SAMPLES_SLOW = 8, 2  # generated inputs say little: a large model is not run on many
SYMMETRY_MACS = 5e10  # verify="auto" checks symmetry up to this many multiply-adds a forward pass
_ATTEMPTS = 60  # rounds of excluding groups whose sizes the model's own code cannot follow
DEFAULT_RATIO = 0.5


@dataclass(frozen=True)
class Request:
    """What to prune and how much; the arguments of ``prunekit.prune`` by the same names."""

    scorer: Scorer | None = None
    ratio: Ratio | None = None
    target: Target | None = None
    include: Sequence[str] | str | None = None
    exclude: Sequence[str] | str | None = None
    roles: Sequence[str] | str | None = None
    how: How = field(default_factory=How)
    verify: Verify = "auto"
    seed: int = 0
    latency: LatencyTable | None = None

    def __post_init__(self) -> None:
        if self.verify not in ("auto", "full", "shapes"):
            raise InputError(f"verify={self.verify!r} is unknown", hint="use 'auto', 'full' or 'shapes'")
        if self.ratio is not None and self.target is not None:
            raise InputError("ratio and target both say how much goes", where="target", hint="give one of them")
        if self.target is not None:
            parse_target(self.target)
        for share in self.share.values() if isinstance(self.share, Mapping) else [self.share]:
            exact_ratio(share)

    @property
    def share(self) -> Ratio:
        """The ratio, where no target is given."""
        return DEFAULT_RATIO if self.ratio is None else self.ratio


@dataclass(frozen=True, eq=False)
class Draft:
    """A plan with what led to it: kept units by group, the structure, the symmetry check and remarks."""

    plan: Plan
    kept: dict[str, Tensor]
    structure: Structure
    symmetry: Symmetry | None
    notes: tuple[Note, ...]
    scorer: Scorer


def draft(
    model: nn.Module,
    structure: Structure,
    request: Request,
    *,
    data: Iterable[Any] | None = None,
    progress: Any = None,
    baseline: Baseline | None = None,
) -> Draft:
    """A plan with everything that led to it. ``baseline`` is what a relative target refers to, if not ``structure``."""
    chosen = choose(structure, include=request.include, exclude=request.exclude, roles=request.roles)
    candidates = len(chosen)
    checked = check_symmetry(model, structure, chosen, request.verify, request.seed)
    if checked is not None and checked.broken:
        logger.warning("symmetry does not hold for %s: these groups are left alone", ", ".join(checked.broken))
        chosen = tuple(g for g in chosen if g.name not in checked.broken)
    if request.target is not None and not chosen:
        raise nothing_to_prune(structure, checked)
    scorer = request.scorer or Magnitude()
    scores = _scores(model, structure, chosen, scorer, data, request.seed, progress)
    how = replace(request.how, kinds=structure.kinds)
    if request.target is None:
        asked: dict[str, Any] = {"scores": scores, "ratio": request.share, "how": how, "candidates": candidates}
        settle = partial(_settle, model, structure, **asked)
        found, refused = _largest(chosen, settle)
        nothing = found is None or not (found[0].cuts or _nothing_asked(request.share))
    else:
        baseline = baseline or Baseline.of(model, structure, request.target, request.latency)
        gauge = Gauge.of(model, structure, request.target, baseline)

        def aim(groups: Sequence[Group]) -> dict[str, Tensor]:
            about = how if len(groups) == candidates else how.about(groups)
            return select_for_target(structure, groups, scores=scores, gauge=gauge, how=about)

        found, refused = _for_target(model, structure, chosen, aim, scores)
        nothing = found is None
    if found is None or nothing:
        bound = "the ratio takes no unit here, or the model's own arithmetic binds it to widths that stay"
        kept_whole = () if found is None else [g for g in chosen if len(found[1].get(g.name, ())) == g.size]
        stay = [Frozen(g.name, g.size, bound) for g in kept_whole]
        raise nothing_to_prune(structure, checked, [*refused, *stay])
    made, kept, notes = found
    for frozen in refused:
        logger.warning("%s is left alone: %s", frozen.name, frozen.reason)
    for note in notes:
        logger.warning("%s: a constant changes from %.6g to %.6g", note.where, note.before, note.after)
    made = replace(made, frozen=(*made.frozen, *refused))
    return Draft(made, kept, structure, checked, notes, scorer)


Settled = tuple[Plan, dict[str, Tensor], tuple[Note, ...]]
Settle = Callable[[Sequence[Group]], Settled]


@paused_collector()
def _settle(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    *,
    scores: Mapping[str, Tensor],
    ratio: Ratio,
    how: How,
    candidates: int,
) -> Settled:
    """Selects, solves and rehearses one set of groups, out of so many ``candidates``, at a ratio.

    Raises what stands in the way.
    """
    if len(chosen) < candidates:  # what was asked may speak of groups that have been left out since
        ratio, how = narrowed(ratio, chosen), how.about(chosen)
    kept = select(chosen, structure.ties, scores, ratio=ratio, **how.given())
    return _planned(model, structure, reconcile(structure, chosen, kept, scores))


@paused_collector()
def _planned(model: nn.Module, structure: Structure, kept: dict[str, Tensor]) -> Settled:
    made = make_plan(model, structure, kept)
    made, notes = with_folds(made, structure, rehearse(model, structure, made, kept))
    return made, kept, notes


def _for_target(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    aim: Callable[[Sequence[Group]], dict[str, Tensor]],
    scores: Mapping[str, Tensor],
) -> tuple[Settled | None, list[Frozen]]:
    """The target over all groups; without those that the model's own code does not follow at the widths it takes."""
    refused: list[Frozen] = []
    groups = tuple(chosen)
    while groups:
        kept = aim(groups)
        try:
            return _planned(model, structure, kept), refused
        except (PlanError, TraceError, VerificationError) as error:
            logger.info("the target is aimed at again without the groups that the model cannot follow: %s", error.what)
            failed: Exception = error

        def settle(some: Sequence[Group], kept: Mapping[str, Tensor] = kept) -> Settled:
            agreed = reconcile(structure, some, {g.name: kept[g.name] for g in some}, scores)
            return _planned(model, structure, agreed)

        _, left_out = _largest(groups, settle)
        if not left_out:
            raise failed
        refused += left_out
        names = {frozen.name for frozen in left_out}
        groups = tuple(group for group in groups if group.name not in names)
    return None, refused


def _largest(chosen: Sequence[Group], settle: Settle) -> tuple[Settled | None, list[Frozen]]:
    """The largest set of groups that the model's own code can follow, grown by halves, and who was refused and why."""
    refused: list[Frozen] = []
    accepted: list[Group] = []
    best: Settled | None = None
    budget = _ATTEMPTS

    def grow(candidates: Sequence[Group]) -> None:
        nonlocal best, budget
        if not candidates:
            return
        budget -= 1
        names = {g.name for g in (*accepted, *candidates)}
        try:
            best = settle([g for g in chosen if g.name in names])
            accepted.extend(candidates)
            return
        except (PlanError, TraceError, VerificationError) as error:
            if len(candidates) == 1 or budget <= 0:
                refused.extend(Frozen(g.name, g.size, error.what, error.where) for g in candidates)
                return
        half = len(candidates) // 2
        grow(candidates[:half])
        grow(candidates[half:])

    grow(sorted(chosen, key=lambda g: (g.role.settled, g.role)))
    return best, refused


def _nothing_asked(ratio: Ratio) -> bool:
    return not any(ratio.values()) if isinstance(ratio, Mapping) else ratio == 0


def choose(
    structure: Structure,
    *,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    roles: Sequence[str] | str | None = None,
) -> tuple[Group, ...]:
    """The groups to prune. Of two groups that share coordinates (heads and positions within a head) only one is
    taken unless ``roles`` or ``include`` names both: positions within a head, else the one with more units."""
    found = filter_groups(structure.groups, include, exclude, roles)
    if roles is not None:
        return found
    ranked = sorted(found, key=lambda g: (g.role.preferred, -g.size))
    overlap = structure.overlaps()
    taken: set[str] = set()
    for g in ranked:
        if not overlap.get(g.name, set()) & taken:
            taken.add(g.name)
    return tuple(g for g in found if g.name in taken)


def nothing_to_prune(
    structure: Structure, checked: Symmetry | None = None, refused: Sequence[Frozen] = ()
) -> NothingToPruneError:
    """An error that lists each frozen width with its reason."""
    rows = [*structure.frozen, *refused]
    lines = [f"{f.name} ({f.size}): {f.reason}" + (f" [{f.where}]" if f.where else "") for f in rows[:40]]
    if checked is not None and checked.broken:
        lines += [f"{name}: symmetry does not hold" for name in checked.broken]
    text = "nothing can be pruned:\n    " + "\n    ".join(lines or ["the model has no prunable width"])
    return NothingToPruneError(text, hint=_way_out(structure))


def _way_out(structure: Structure) -> str:
    if not structure.unknown:
        return "widen include"
    names = "".join(f"{name!r}, " for name in structure.unknown)
    entry = f"prunekit.operators.Operator(({names[:-1]}), rule)"
    return (
        f"say how it couples: structure=prunekit.trace(model, operators=[{entry}]), or Plugin(operators=...) for "
        "everyone; docs/operators.md shows a rule"
    )


def check_symmetry(
    model: nn.Module, structure: Structure, chosen: Sequence[Group], verify: Verify, seed: int
) -> Symmetry | None:
    """What the check finds on the original weights; None where ``verify`` or the size of the model leaves it out."""
    if verify == "shapes" or not chosen:
        return None
    if _is_meta(model):
        return None
    if verify == "auto" and structure.cost().macs > SYMMETRY_MACS:
        return None
    return symmetry(model, chosen, structure.inputs, seed=seed)


def _scores(
    model: nn.Module,
    structure: Structure,
    chosen: Sequence[Group],
    scorer: Scorer,
    data: Iterable[Any] | None,
    seed: int,
    progress: Any = None,
) -> dict[str, Tensor]:
    samples: Sequence[Sample] = ()
    if data is not None:
        samples = list(as_samples(data, structure.inputs))
    elif getattr(scorer, "needs_samples", True):
        samples = _Generated(structure, seed)
    names = sorted({m.tensor for g in chosen for m in g.parameters})
    statistics = Statistics(model, samples, parameters=names, progress=progress)
    if not _is_meta(model):
        for name in names:  # a scorer that reads no weights would not notice one that is NaN
            statistics.parameter(name)
    try:
        return {g.name: scorer.score(g, statistics) for g in chosen}
    except (RuntimeError, NotImplementedError) as error:
        if _is_meta(model):
            raise ScorerError(
                f"{scorer!r} reads weights, and the model is on the meta device and has none",
                hint="pass a scorer that reads none, such as prunekit.Random(seed=0), or build the model on a device",
            ) from error
        raise


def _is_meta(model: nn.Module) -> bool:
    return any(t.is_meta for t in model.parameters())


class _Generated(Sequence[Sample]):
    """Calibration samples that are made when a scorer first reads one; a notice says so."""

    def __init__(self, structure: Structure, seed: int) -> None:
        self._structure, self._seed = structure, seed
        self._count = GENERATED_SAMPLES if structure.cost().macs <= SYMMETRY_MACS else GENERATED_SAMPLES_SLOW
        self._made: list[Sample] | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if self._made is None:
            logger.warning("no data given: scoring on %d generated inputs; pass data= for better scores", len(self))
            made = generated(self._structure.inputs, self._count, self._seed)
            self._made = [Sample(i) for i in made]
        return self._made[index]
