"""Cutting the part: rank 0 decides, every rank cuts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from prunekit.coupling.structure import Structure
from prunekit.errors import NothingToPruneError
from prunekit.offloading.copies import copied_in_files
from prunekit.options.measured import as_measured
from prunekit.planning.depth_amount import gone_so_far
from prunekit.planning.parting import scopes_of
from prunekit.plans.contents import Plan
from prunekit.recipes.stages import Distil, Prune
from prunekit.runs.job import Job
from prunekit.runs.keeping import DAMAGES
from prunekit.runs.prune_stage import Asked, carry_out, drafted, of_widths, structure_of, verified_by
from prunekit.runs.telling import score_curves
from prunekit.runs.under_way import UnderWay, counter, lean, sizes_of


def cut_part(job: Job, run: UnderWay, number: int, stage: Prune) -> dict[str, Any]:
    """Plans the cut of the part as it stands, and cuts it. What it was before becomes the previous teacher."""
    structure = structure_of(run.part, run.train)
    if job.settings.training.distill and any(isinstance(later, Distil) for later in run.fit.stages[number:]):
        run.teachers["previous"] = copied_in_files(run.part)
    run.sizes["previous"] = sizes_of(structure)
    progress, asked = counter(job, number, stage.title, "samples"), asked_of(job, run, stage, structure)

    def decide() -> tuple[str, dict[str, Any], dict[str, Any]]:
        made = drafted(run.part, stage, structure, run.train, asked, progress)
        return made.plan.to_json(), verified_by(made, job.settings.options.cutting.verify), score_curves(made, stage.title)

    try:
        text, verified, curves = job.ranks.decided(decide)
    except NothingToPruneError:
        if not _passes_by(job, run, stage):
            raise
        return {"groups": 0}
    run.position.told.scores |= curves
    plan = Plan.from_json(text)
    carry_out(run.part, plan, run.train, asked)
    job.ranks.same(run.part)
    run.position.plans.append(plan)
    run.position.verified.append(verified)
    told = {"allocation": verified["allocation"]} if "allocation" in verified else {}
    return {"groups": len(plan.widths), **told}


def asked_of(job: Job, run: UnderWay, stage: Prune, structure: Structure) -> Asked:
    """What ``stage`` is to do with the part as it stands."""
    ratio, target = run.shares.asked(stage, structure)
    options = job.settings.options.replaced(ratio=ratio, target=target)
    if run.shares.apart and not stage.deep:
        options = of_widths(options)
    elif any(isinstance(each, Prune) and not each.deep for each in job.stages):
        options = options.replaced(allocation="ranked") if stage.deep else options  # the measured one is of widths
    how = as_measured(options.choice.allocation)
    if how is not None and how.store is None and run.kept is not None and job.ranks.first:
        options = options.replaced(allocation=replace(how, store=run.kept.path / DAMAGES))
    return Asked(
        options=options,
        images=job.settings.sampling.images,
        baseline=run.shares.baseline,
        sizes=_sizes_known(run, structure),
        gone=gone_so_far(run.position.plans),
        lean=partial(lean, job),
        reinitialise=stage.reinitialise,
    )


def _sizes_known(run: UnderWay, structure: Structure) -> dict[str, int]:
    """The original's units by group name; once blocks went, of depth alone: widths bear the numbers of blocks."""
    if not any(plan.removals for plan in run.position.plans):
        return dict(run.shares.sizes)
    widths = {group.name for group in structure.groups}
    return {name: size for name, size in run.shares.sizes.items() if name not in widths}


def _passes_by(job: Job, run: UnderWay, stage: Prune) -> bool:
    """Whether a step may take nothing: a share of few blocks is none of them, and another step takes or took one."""
    deep = stage.deep or scopes_of(job.scope)[0] is not None
    return deep and (stage.part < 1 or any(plan.removals for plan in run.position.plans))
