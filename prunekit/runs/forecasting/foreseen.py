"""The stages of a run gone through by shapes alone, with the seconds and bytes that each would take."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from prunekit.coupling.cost import Cost
from prunekit.plans.contents import Plan
from prunekit.quantities.pass_times import PassTimes
from prunekit.quantities.stopwatch import Timer
from prunekit.runs.forecasting.durations import Durations, step_of
from prunekit.runs.forecasting.shaped import Walk, on_meta, one_sample, walked
from prunekit.runs.job import Job
from prunekit.runs.prune_stage import structure_of
from prunekit.runs.reporting import LATENCY, LATENCY_SLOW, SLOW_MACS, count_rest


@dataclass(frozen=True)
class StageForecast:
    """One stage: ``count`` pieces of work in ``unit``, and how long they would take, in seconds."""

    title: str
    unit: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a run would do and take.

    Attributes:
        plan: all cuts as one, by equal scores: which units go is for the data to say.
        before, after: of the part; ``rest``: of the model around it.
        stages: in order, those that are left out not among them; the last is measuring latency, where that is done.
        weights, peak: bytes of the part's weights, and of everything that is held at once at most.
        left_out: what the recipe asks for and the model has not.
    """

    plan: Plan
    before: Cost
    after: Cost
    rest: Cost
    stages: tuple[StageForecast, ...]
    weights: int
    peak: int
    left_out: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(stage.seconds for stage in self.stages)


def forecast(job: Job, samples: int, timer: Timer | None = None) -> Forecast:
    """What ``job`` would take on so many samples; its model may be on the meta device, and only its shapes are read.

    Cuts are planned with random scores, so that widths are those of the ratio or target but not those that data would
    choose; a measured allocation and a refit are planned as without, and their time is counted. Operators run on
    ``job.device``, each once, and ``timer`` tells how long.

    Raises InputError for a target on latency, which shapes do not tell, and what planning the cuts raises.
    """
    walk = walked(job)
    times = PassTimes.of(walk.structure, job.device, timer)
    part = job.built.model.get_submodule(job.built.part)
    rest = rest_of(job, part)
    durations = Durations(job, walk, times, samples, step_of(job.device, timer), rest.macs)
    stages = [
        StageForecast(each.stage.title, *durations.work(each.stage), durations.seconds(each)) for each in walk.steps
    ]
    kept = {width.group: torch.tensor(width.kept, device="cpu") for width in walk.plan.widths}
    if job.settings.reporting.latency:
        stages.append(_timing(walk, times, kept))
    weights = sum(value.nbytes for value in part.state_dict().values())
    peak = max((durations.bytes_of(each, weights) for each in walk.steps), default=2 * weights)
    before, after = walk.structure.cost(), walk.structure.cost(kept)
    return Forecast(walk.plan, before, after, rest, tuple(stages), weights, peak, walk.left_out)


def weighed(job: Job) -> int:
    """Multiply-adds of one pass of the part on one sample; its shapes alone are read."""
    part = job.built.model.get_submodule(job.built.part)
    return structure_of(on_meta(part).to("meta"), one_sample(job)).cost().macs


def rest_of(job: Job, part: nn.Module) -> Cost:
    """Counts of the model around the part; parameters alone where it cannot run on the meta device."""
    try:
        with next(part.parameters()).device, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return count_rest(job.built, part)
    except Exception:  # the model's own code, on tensors without values: it may raise anything
        return Cost(sum(p.numel() for p in job.built.model.parameters()) - sum(p.numel() for p in part.parameters()), 0, 0)


def _timing(walk: Walk, times: PassTimes, kept: Mapping[str, Tensor]) -> StageForecast:
    """Passes of both parts, as a report times them."""
    passes = sum(LATENCY if walk.structure.cost().macs < SLOW_MACS else LATENCY_SLOW)
    seconds = passes * (times.forward({}) + times.forward(kept))
    return StageForecast("measure latency", "passes", 2 * passes, seconds)

