"""The prune stage: score, select, plan, verify, apply."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from prunekit.api import trace
from prunekit.surgery.cutting import apply
from prunekit.surgery.mapping import MAP_SAMPLES
from prunekit.compensation.settings import as_compensation
from prunekit.coupling.groups import Group
from prunekit.coupling.structure import Structure
from prunekit.errors import NothingToPruneError
from prunekit.inputs import Sample, normalise
from prunekit.inputs.batching import moved
from prunekit.plans.contents import Plan
from prunekit.options import Options
from prunekit.options.measured import as_measured
from prunekit.options.together import from_settings
from prunekit.options.types import Align
from prunekit.planning.candidates import choose
from prunekit.planning.depth_criteria import for_blocks, for_widths
from prunekit.planning.depth_options import beside_widths
from prunekit.planning.parting import parted, scopes_of
from prunekit.planning.drafting import draft
from prunekit.planning.width_drafts import Draft
from prunekit.quantities.gauge import Baseline
from prunekit.samples.tasks import Samples
from prunekit.registry import criterion
from prunekit.roles import DEPTH, HEADS
from prunekit.runs.fitting import lacking
from prunekit.recipes.records import Sampling
from prunekit.recipes.stages import Prune
from prunekit.scorers import Scored, Statistics
from prunekit.selection import filter_groups

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batches(Sequence[Sample]):
    """The first ``limit`` samples, each encoded when it is asked for: a thousand large images do not fit in memory."""

    samples: Samples
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.samples))

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Sample(normalise(self.samples.batch([index])))


def structure_of(part: nn.Module, samples: Samples) -> Structure:
    """The structure of ``part`` as it stands, traced with one sample's input. Raises TraceError."""
    device = next((p.device for p in part.parameters()), torch.device("cpu"))
    return trace(part, moved(samples.batch([0]), device))


@dataclass(frozen=True)
class Asked:
    """What a prune stage is to do.

    Attributes:
        options: the user's, and those among the recipe's settings; the stage has a word in them too.
        images: samples that scores are taken from.
        baseline, sizes, gone: what relative targets and partial ratios refer to; see ``runs/goals.py``.
        lean: what the model is scored in; see ``ModelEntry.lean``.
        reinitialise: whether weights are drawn anew after the cut.
    """

    options: Options
    images: int
    baseline: Baseline | None = None
    sizes: Mapping[str, int] | None = None
    gone: Mapping[str, int] | None = None
    lean: Callable[[nn.Module], AbstractContextManager[object]] = nullcontext
    reinitialise: bool = False

    @classmethod
    def of(cls, settings: Mapping[str, Any], **keywords: Any) -> Asked:
        """By a recipe's settings and the keywords of ``prunekit.prune``, for one stage alone."""
        options = Options.of(**keywords).replaced(**from_settings(settings))
        return cls(options, Sampling.of(settings).images)


Progress = Callable[[int, int], None]


def drafted(
    part: nn.Module, stage: Prune, structure: Structure, samples: Samples, asked: Asked, progress: Progress
) -> Draft:
    """The plan of ``stage`` for ``part``, which stays as it is.

    Widths of a stage that names its roles are rounded down to a multiple of their alignment. Where the model's own code
    does not follow, the roles that the stage is bound to are cut along, with a notice. Raises RecipeError where a role
    has no group, and what ``prunekit.plan`` raises.
    """
    reach = [role for role in stage.bound if any(group.role == role for group in structure.groups)]
    try:
        made = _drafted(part, stage, structure, samples, asked, progress)
        if not reach or not {frozen.name for frozen in made.plan.frozen} & {group.name for group in structure.groups}:
            return made
    except NothingToPruneError:
        if not reach:
            raise
    wider = replace(stage, pools=(*stage.pools, *((role,) for role in reach)), bound=())
    made = _drafted(part, wider, structure, samples, asked, progress)
    names = ", ".join(role for pool in stage.pools for role in pool)
    logger.warning("the model's own code binds %s to %s: both are cut in one stage", names, ", ".join(reach))
    return made


def _drafted(
    part: nn.Module, stage: Prune, structure: Structure, samples: Samples, asked: Asked, progress: Progress
) -> Draft:
    if stage.deep or parted(asked.options).depth is not None:
        options = of_blocks(asked.options, stage) if stage.deep else asked.options
        data = [sample.inputs for sample in Batches(samples, asked.images)]
        known: dict[str, Any] = {"baseline": asked.baseline, "sizes": asked.sizes, "gone": asked.gone}
        return draft(part, structure, options, data=data, progress=progress, **known)
    roles = reached(structure, stage)
    options = asked.options if roles is None else asked.options.replaced(roles=roles)
    scope = options.scope
    readers = structure.readers if scope.exclude else None
    # uniform widths are looked for among all groups that are reached, also those that share units with others
    groups = (
        filter_groups(structure.groups, scope.include, scope.exclude, scope.roles, readers)
        if options.choice.uniform
        else choose(structure, scope)
    )
    statistics = Statistics(
        part,
        Batches(samples, asked.images),
        parameters={member.tensor for group in groups for member in group.parameters},
        progress=progress,
        groups=groups,
    )
    aligned: Align = steps_of(structure, groups, stage.align)
    with asked.lean(part):
        scored = Scored.of(criterion(options.choice.scorer), groups, statistics)
    options = options.replaced(scorer=scored, align=aligned or options.choice.align)
    if stage.pools:
        options = options.replaced(pools=stage.pools, rounding="down")
    how = as_measured(options.choice.allocation)
    measured = None if how is None else Batches(samples, how.samples)  # the scores are there; damage is measured
    base, sizes = asked.baseline, asked.sizes
    return draft(part, structure, options, data=measured, progress=progress, baseline=base, sizes=sizes)


def of_blocks(options: Options, stage: Prune) -> Options:
    """Options for a stage that cuts depth alone: by ``Damage`` where the criterion is one of widths."""
    roles = [role for pool in stage.pools for role in pool]
    depth = parted(options.replaced(roles=roles, include=None)).depth
    assert depth is not None
    return for_blocks(beside_widths(depth))


def of_widths(options: Options) -> Options:
    """Options for a stage that cuts widths where blocks had one of their own."""
    widths = scopes_of(options.scope)[1]
    return for_widths(options if widths is None else replace(options, scope=widths))


def cut(
    part: nn.Module, stage: Prune, structure: Structure, samples: Samples, asked: Asked, progress: Progress
) -> tuple[Plan, dict[str, Any]]:
    """Prune ``part`` in place as ``stage`` says; the plan that did it, and what its verification found.

    Raises what ``drafted`` raises.
    """
    made = drafted(part, stage, structure, samples, asked, progress)
    carry_out(part, made.plan, samples, asked)
    return made.plan, verified_by(made, asked.options.cutting.verify)


def carry_out(part: nn.Module, plan: Plan, samples: Samples, asked: Asked) -> None:
    """Cuts ``part`` by ``plan``, and refits what is left where the settings say so."""
    refit = as_compensation(asked.options.cutting.compensate)
    has_maps = any(absence.has_map for absence in plan.absences)
    count = refit.samples if refit is not None else MAP_SAMPLES if has_maps else 0
    data = [sample.inputs for sample in Batches(samples, count)] if count else None
    apply(part, plan, compensate=refit, data=data)
    if asked.reinitialise:
        redraw(part, asked.options.choice.seed)


def verified_by(made: Draft, verify: str) -> dict[str, Any]:
    """What the checks before a cut found, and what a measured allocation says of itself; ``verify`` is what was asked."""
    found: dict[str, Any] = {"shapes": "passed"}
    told = {"allocation": list(made.remarks)} if made.remarks else {}
    if made.certificate is not None:
        found |= {"depth": "passed", "depth_error": made.certificate.error}
    if not made.plan.cuts:
        return (found if made.certificate is not None else {**found, "symmetry": "passed"}) | told
    if made.symmetry is None:
        why = "not asked for" if verify == "shapes" else "too large, --set verify=full asks for it"
        return {**found, "symmetry": f"not run: {why}", **told}
    state = "passed" if made.symmetry.passed else "broken groups left alone"
    return {**found, "symmetry": state, "symmetry_error": made.symmetry.error, **told}


@torch.no_grad()
def redraw(part: nn.Module, seed: int) -> None:
    """Every floating parameter anew, from a normal distribution with its own mean and standard deviation.

    What was learned is gone and the scale of every layer stays: training from scratch, for any model.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    for parameter in part.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1:
            noise = torch.randn(parameter.shape, generator=generator, device="cpu").to(parameter)
            parameter.copy_(parameter.mean() + parameter.std() * noise)


def reached(structure: Structure, stage: Prune) -> list[str] | None:
    """The roles that the stage prunes; None leaves the choice to the toolkit. Raises RecipeError for one without."""
    if not stage.pools:
        return None
    roles = {group.role for group in structure.groups}
    wanted = [role for pool in stage.pools for role in pool]
    if missing := [role for role in wanted if role not in roles]:
        raise lacking(missing, structure, stage.title)
    return wanted


def steps_of(
    structure: Structure, groups: Sequence[Group], align: Mapping[str, int | Literal["heads"]]
) -> dict[str, int]:
    """What the widths of ``groups`` are multiples of, by name, where ``align`` says something about their role.

    ``"heads"`` is the head count of the attention that reads or writes the group, or that its neighbours belong to, as
    an MLP belongs to the attention of its stage; the least common multiple of several. Where no attention is near it
    is what all head counts of the model are multiples of, and if that is 1, nothing is said.
    """
    heads = _heads_near(structure)
    common = math.gcd(*(group.size for group in structure.groups if group.role == HEADS)) or 1
    found = {}
    for group in groups:
        step = align.get(group.role)
        if step == "heads":
            step = heads.get(group.name, common)
            step = None if step == 1 else step
        if step is not None:
            found[group.name] = int(step)
    return found


def _heads_near(structure: Structure) -> dict[str, int]:
    """Head count by group name: of attention that shares a parameter with the group, else with a neighbour of it."""
    counts = {m.tensor: group.size for group in structure.groups if group.role == HEADS for m in group.parameters}
    near = {g.name: {counts[m.tensor] for m in g.parameters if m.tensor in counts} for g in structure.groups}
    by_tensor: dict[str, set[int]] = {}
    for group in structure.groups:
        for member in group.parameters:
            by_tensor.setdefault(member.tensor, set()).update(near[group.name])
    around = {g.name: set().union(*(by_tensor[m.tensor] for m in g.parameters)) for g in structure.groups}
    both = {name: near[name] or around[name] for name in near}
    return {name: math.lcm(*sizes) for name, sizes in both.items() if sizes}
