"""A recipe gone through on the meta device: every cut planned and made, nothing scored, trained or judged."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.structure import Structure
from prunekit.errors import InputError
from prunekit.planning.parting import scopes_of
from prunekit.plans.composition import compose
from prunekit.plans.contents import Plan
from prunekit.quantities.limits import parse_target
from prunekit.recipes.stages import Distil, Evaluate, Prune, Stage
from prunekit.runs.distillation.memory import Counted, counted
from prunekit.runs.fitting import comparable, fitted
from prunekit.runs.goals import Shares
from prunekit.runs.image_data import dataset_for, parts
from prunekit.runs.job import Job
from prunekit.runs.prune_stage import Asked, drafted, structure_of
from prunekit.runs.under_way import sizes_of
from prunekit.samples.tasks import Samples
from prunekit.scorers import Random
from prunekit.surgery.cutting import apply

Kept = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class ShapedStep:
    """One stage as shapes tell it.

    Attributes:
        stage: with the terms that can be compared.
        kept: units of the original's groups when it begins; ``previous``: before the last cut, {} being the original.
        params: of the part then.
        needs: bytes of one sample's pass with a graph; None where there is none or it cannot be counted.
        took: seconds that tracing and planning it by shapes took here, as the run's own will.
    """

    stage: Stage
    kept: Kept
    previous: Kept
    params: int
    needs: Counted | None
    took: float


@dataclass(frozen=True, eq=False)
class Walk:
    """The steps of a run, its original's structure, and all of its cuts as one plan."""

    structure: Structure
    steps: tuple[ShapedStep, ...]
    plan: Plan
    left_out: tuple[str, ...]


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without its parameters' values; buffers are small, and code may read them."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, memo)


def walked(job: Job) -> Walk:
    """Raises InputError for a target on latency, and what the run would raise for its cuts."""
    if any(isinstance(stage, Prune) and stage.deep for stage in job.stages) or scopes_of(job.scope)[0] is not None:
        raise InputError("shapes do not tell which blocks can go", where="depth.block", hint="the run itself finds out")
    target = job.scope.target
    if target is not None and any(limit.runner is not None for limit in parse_target(target)):
        raise InputError("shapes do not tell latency", where="target", hint="the run itself measures it")
    samples = one_sample(job)
    part = on_meta(job.built.model.get_submodule(job.built.part)).to("meta")
    structure = structure_of(part, samples)
    fit = fitted(job.stages, job.recipe.optional, structure, job.scope)
    shares = Shares.of(job.scope, fit.present, part, structure)
    training = job.settings.training.distill
    wanted = [stage for stage in fit.present if training or not isinstance(stage, Distil)]
    plans: list[Plan] = []
    sizes = {"original": sizes_of(structure)}
    steps = []
    for stage in wanted:
        began = time.perf_counter()
        at, before = _left_by(plans), _left_by(plans[:-1])
        params = sum(p.numel() for p in part.parameters())
        needs = None
        if not isinstance(stage, Evaluate):
            now = structure if not plans else structure_of(part, samples)
            if isinstance(stage, Prune):
                sizes["previous"] = sizes_of(now)
                needs = counted(part, samples.batch([0]), {})
                plans.append(shaped_plan(job, part, stage, now, samples, shares))
                apply(part, plans[-1])
            else:
                stage = comparable(_aligned(stage, job), now, sizes)
                taps = {t.name: now.taps(t.roles, where=t.where) if t.roles else () for t in stage.terms}
                needs = counted(part, samples.batch([0]), taps)
        steps.append(ShapedStep(stage, at, before, params, needs, time.perf_counter() - began))
    return Walk(structure, tuple(steps), reduce(compose, plans), fit.left_out)


def shaped_plan(
    job: Job, part: nn.Module, stage: Prune, structure: Structure, samples: Samples, shares: Shares
) -> Plan:
    """The plan of ``stage`` by random scores: widths as asked for, units by chance.

    Whether a library can load such widths is found out by building its class with them, which takes values.
    """
    ratio, target = shares.asked(stage, structure)
    options = job.settings.options.replaced(
        ratio=ratio, target=target, scorer=Random(0), verify="shapes", compensate=None, allocation="ranked", uniform=False
    )
    asked = Asked(options, 1, shares.baseline, shares.sizes)
    return drafted(part, stage, structure, samples, asked, lambda done, total: None).plan


def one_sample(job: Job) -> Samples:
    """The first sample of the data that the run would train on."""
    sampling, seed = job.settings.sampling, job.settings.options.choice.seed
    split = parts(job.data, job.val, split=sampling.split)[0]
    return dataset_for(job.built)(job.built.model, job.data, "train", 1, seed, split)


def _aligned(stage: Distil, job: Job) -> Distil:
    if job.settings.training.align_epochs:
        return stage
    return replace(stage, terms=tuple(term for term in stage.terms if not term.aligning) or stage.terms)


def _left_by(plans: list[Plan]) -> Kept:
    """Units of the original's groups after ``plans``, one upon another."""
    if not plans:
        return {}
    return {width.group: torch.tensor(width.kept, device="cpu") for width in reduce(compose, plans).widths}
