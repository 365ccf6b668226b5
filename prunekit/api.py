"""The one call, and its steps: trace, plan, apply, prune."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from prunekit.apply import Undo, apply
from prunekit.collector import paused_collector
from prunekit.coupling.groups import Frozen, Group
from prunekit.coupling.structure import Structure, couple
from prunekit.errors import InputError, NothingToPruneError, PlanError, ScorerError, TraceError, VerificationError
from prunekit.fold import Note, with_folds
from prunekit.inputs import Sample, as_samples, generated, infer, normalise
from prunekit.plan import Plan
from prunekit.reconcile import reconcile
from prunekit.rehearse import rehearse
from prunekit.scorers import Magnitude, Scorer, Statistics
from prunekit.selection import filter_groups, select
from prunekit.selection.ratio import Align, Ratio, Rounding
from prunekit.solve import make_plan
from prunekit.trace.recorder import record
from prunekit.verify import Symmetry, symmetry
from prunekit.wrappers import eager, unwrap

logger = logging.getLogger(__name__)

Verify = Literal["auto", "full", "shapes"]
GENERATED_SAMPLES, GENERATED_SAMPLES_SLOW = 8, 2  # generated inputs say little: a large model is not run on many
SYMMETRY_MACS = 5e10  # verify="auto" checks symmetry up to this many multiply-adds a forward pass
_ATTEMPTS = 60  # rounds of excluding groups whose sizes the model's own code cannot follow


@dataclass(frozen=True)
class Report:
    """What pruning did. Counts before and after; ``verify`` says which checks ran and what they found."""

    params: dict[str, int]
    macs: dict[str, int]
    layer_macs: dict[str, int]
    verify: dict[str, Any]
    scorer: str
    ratio: Any
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Result:
    """A pruned model (the same object, changed in place), its plan and report; ``undo()`` restores it bit for bit."""

    model: nn.Module
    plan: Plan
    report: Report
    _undo: Undo

    def undo(self) -> None:
        self._undo()


@dataclass(frozen=True, eq=False)
class Draft:
    """A plan with what led to it: kept units by group, the structure, the symmetry check and remarks."""

    plan: Plan
    kept: dict[str, Tensor]
    structure: Structure
    symmetry: Symmetry | None
    notes: tuple[Note, ...]
    scorer: Scorer


def trace(model: nn.Module, example_inputs: Any = None) -> Structure:
    """The structure of ``model``: groups, frozen widths and their reasons, ties, costs and taps.

    Args:
        example_inputs: a tensor, a tuple of args, or a dict of kwargs; inferred from the model if None.

    Raises:
        InputError: if example inputs cannot be inferred.
        TraceError: if forward fails or cannot be followed; the model is as it was.
    """
    model = unwrap(model)
    inputs = infer(model) if example_inputs is None else normalise(example_inputs)
    with eager(model), paused_collector():
        return couple(record(model, inputs), inputs)


def plan(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    scorer: Scorer | None = None,
    ratio: Ratio = 0.5,
    data: Iterable[Any] | None = None,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    roles: Sequence[str] | str | None = None,
    align: Align = None,
    ranking: Literal["local", "global"] = "local",
    normaliser: str = "gaussian",
    rounding: Rounding = "nearest",
    verify: Verify = "auto",
    structure: Structure | None = None,
    seed: int = 0,
) -> Plan:
    """What ``prune`` would do, without doing it. Arguments and errors as for ``prune``.

    A model on the meta device, which has no weights, can be planned with a scorer that reads none.
    """
    model = unwrap(model)
    with eager(model):
        made = draft(
            model,
            example_inputs,
            scorer=scorer,
            ratio=ratio,
            data=data,
            include=include,
            exclude=exclude,
            roles=roles,
            align=align,
            ranking=ranking,
            normaliser=normaliser,
            rounding=rounding,
            verify=verify,
            structure=structure,
            seed=seed,
        )
    return made.plan


def draft(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    scorer: Scorer | None = None,
    ratio: Ratio = 0.5,
    data: Iterable[Any] | None = None,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    roles: Sequence[str] | str | None = None,
    align: Align = None,
    ranking: Literal["local", "global"] = "local",
    normaliser: str = "gaussian",
    rounding: Rounding = "nearest",
    pools: Sequence[Sequence[str]] | None = None,
    verify: Verify = "auto",
    structure: Structure | None = None,
    seed: int = 0,
    progress: Any = None,
) -> Draft:
    """A plan with everything that led to it."""
    if verify not in ("auto", "full", "shapes"):
        raise InputError(f"verify={verify!r} is unknown", hint="use 'auto', 'full' or 'shapes'")
    model = unwrap(model)
    structure = structure or trace(model, example_inputs)
    chosen = choose(structure, include=include, exclude=exclude, roles=roles)
    checked = _check_symmetry(model, structure, chosen, verify, seed)
    if checked is not None and checked.broken:
        logger.warning("symmetry does not hold for %s: these groups are left alone", ", ".join(checked.broken))
        chosen = tuple(g for g in chosen if g.name not in checked.broken)
    scorer = scorer or Magnitude()
    scores = _scores(model, structure, chosen, scorer, data, seed, progress)
    settle = partial(
        _settle,
        model,
        structure,
        scores=scores,
        ratio=ratio,
        ranking=ranking,
        align=align,
        normaliser=normaliser,
        pools=pools,
        rounding=rounding,
    )
    found, refused = _largest(chosen, settle)
    if found is None or not (found[0].cuts or _nothing_asked(ratio)):
        bound = "the ratio takes no unit here, or the model's own arithmetic binds it to widths that stay"
        whole = (
            []
            if found is None
            else [Frozen(g.name, g.size, bound) for g in chosen if len(found[1].get(g.name, ())) == g.size]
        )
        raise nothing_to_prune(structure, checked, [*refused, *whole])
    made, kept, notes = found
    for frozen in refused:
        logger.warning("%s is left alone: %s", frozen.name, frozen.reason)
    for note in notes:
        logger.warning("%s: a constant changes from %.6g to %.6g", note.where, note.before, note.after)
    made = replace(made, frozen=(*made.frozen, *refused))
    return Draft(made, kept, structure, checked, notes, scorer)


Settled = tuple[Plan, dict[str, Tensor], tuple[Note, ...]]


@paused_collector()
def _settle(
    model: nn.Module, structure: Structure, chosen: Sequence[Group], *, scores: Mapping[str, Tensor], **how: Any
) -> Settled:
    """Selects, solves and rehearses one set of groups; raises what stands in the way."""
    kept = select(chosen, structure.ties, scores, **how)
    kept = reconcile(structure, chosen, kept, scores)
    made = make_plan(model, structure, kept)
    made, notes = with_folds(made, structure, rehearse(model, structure, made, kept))
    return made, kept, notes


def _largest(
    chosen: Sequence[Group], settle: Callable[[Sequence[Group]], Settled]
) -> tuple[Settled | None, list[Frozen]]:
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

    grow(sorted(chosen, key=lambda g: (_ORDER.get(g.role, 3), g.role)))
    return best, refused


def _nothing_asked(ratio: Ratio) -> bool:
    return not any(ratio.values()) if isinstance(ratio, Mapping) else ratio == 0


# Embeddings reach farthest, so they are settled first and what does not fit them is refused, not the other way round.
_ORDER = {"embedding": 0, "mlp.hidden": 1, "channels": 2, "attention.head_dim": 4, "attention.heads": 5}


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
    order = {"attention.head_dim": 0, "embedding": 1, "mlp.hidden": 2, "channels": 3, "attention.heads": 4}
    ranked = sorted(found, key=lambda g: (order.get(g.role, 3), -g.size))
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
    return NothingToPruneError(text, hint="widen include, or add a rule for the operators that are named")


def _check_symmetry(
    model: nn.Module, structure: Structure, chosen: Sequence[Group], verify: Verify, seed: int
) -> Symmetry | None:
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


def prune(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    scorer: Scorer | None = None,
    ratio: Ratio = 0.5,
    data: Iterable[Any] | None = None,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    roles: Sequence[str] | str | None = None,
    align: Align = None,
    ranking: Literal["local", "global"] = "local",
    normaliser: str = "gaussian",
    rounding: Rounding = "nearest",
    pools: Sequence[Sequence[str]] | None = None,
    verify: Verify = "auto",
    structure: Structure | None = None,
    seed: int = 0,
    progress: Any = None,
) -> Result:
    """Prunes ``model`` in place: a smaller module of the same class, whose outputs keep their shapes.

    Of a compiled model (``torch.compile``) or a ``DataParallel`` the module inside is pruned and returned.

    Args:
        example_inputs: a tensor, a tuple of args, or a dict of kwargs; inferred from the model if None.
        scorer: which units matter; ``Magnitude()`` if None.
        ratio: share of the units of every group to remove, in [0, 1); or a mapping from roles to shares.
        data: calibration inputs for scorers that need them; generated if None, with a notice in the log.
        include, exclude: globs over parameters, modules, roles and group names; one that matches nothing is an error.
        roles: prune only groups of these roles.
        align: widths are kept at multiples of this.
        ranking: ``local`` removes the same share everywhere, ``global`` ranks the groups of a role together.
        verify: ``shapes`` rehearses the pruned model on the meta device; ``full`` also checks that units are
            interchangeable, on real numbers; ``auto`` does so where a forward pass takes at most 50 GMACs.

    Returns:
        the model, the plan, a report, and ``undo()``.

    Raises:
        PrunekitError: of the kind that errors.py lists. The model is then bit-identical to what came in.
    """
    start = time.perf_counter()
    model = unwrap(model)
    if _is_meta(model):
        raise PlanError("the model is on the meta device and has no weights to cut", hint="use prunekit.plan")
    with eager(model):
        made = draft(
            model,
            example_inputs,
            scorer=scorer,
            ratio=ratio,
            data=data,
            include=include,
            exclude=exclude,
            roles=roles,
            align=align,
            ranking=ranking,
            normaliser=normaliser,
            rounding=rounding,
            pools=pools,
            verify=verify,
            structure=structure,
            seed=seed,
            progress=progress,
        )
    before, after = made.structure.cost(), made.structure.cost(made.kept)
    undo = apply(model, made.plan)
    report = Report(
        params={"before": before.params, "after": after.params},
        macs={"before": before.macs, "after": after.macs},
        layer_macs={"before": before.layer_macs, "after": after.layer_macs},
        verify=_verify_report(made.symmetry),
        scorer=repr(made.scorer),
        ratio=dict(ratio) if isinstance(ratio, Mapping) else ratio,
        notes=tuple(f"{n.where}: a constant changes from {n.before:.6g} to {n.after:.6g}" for n in made.notes),
        seconds=round(time.perf_counter() - start, 3),
    )
    return Result(model, made.plan, report, undo)


def _verify_report(checked: Symmetry | None) -> dict[str, Any]:
    if checked is None:
        return {"shapes": "passed", "symmetry": "not run", "hint": "pass verify='full' to run it at any size"}
    state = "passed" if checked.passed else "broken groups left alone"
    return {
        "shapes": "passed",
        "symmetry": state,
        "symmetry_error": checked.error,
        "symmetry_broken": list(checked.broken),
    }
