"""Seconds and bytes of a stage: how many passes it makes, of which models, and what each takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from prunekit.compensation.settings import as_compensation
from prunekit.options.measured import as_measured
from prunekit.quantities.pass_times import PassTimes
from prunekit.quantities.stopwatch import Glance, Timer
from prunekit.recipes.stages import Distil, Evaluate, Prune, Stage
from prunekit.runs.distillation.memory import need
from prunekit.runs.distillation.rate import steps_in
from prunekit.runs.distillation.teachers import cache_bytes
from prunekit.runs.forecasting.shaped import Kept, ShapedStep, Walk
from prunekit.runs.job import Job
from prunekit.runs.reporting import LAYERS
from prunekit.scorers.needs import BACKWARD, CURVATURE, FORWARD, LABELLED

_SMALL = 2**22  # weights that an optimiser step is timed on
_VARIANTS, _OF_A_PASS = 6, 0.5  # of a measured allocation, a site; see docs/allocation.md
_REFIT = 2  # passes a sample of a refit: what layers read before, and what they read after
_ROWS, _SOLVE = 4096, 10  # places that a layer is fitted on, and products of a decomposition a cubed width
# Passes of a sample that a criterion makes, by what it says it needs: (forward, backward)
PASSES = {BACKWARD: (1, 1), LABELLED: (1, 1), FORWARD: (1, 0), CURVATURE: (2, 3)}


@dataclass(frozen=True, eq=False)
class Durations:
    """What a job's stages take on so many ``samples``, by the times of its passes.

    ``optimiser`` are seconds of one optimiser step for one weight, ``rest`` the multiply-adds of the model around the
    part for one sample.
    """

    job: Job
    walk: Walk
    times: PassTimes
    samples: int
    optimiser: float
    rest: int

    def work(self, stage: Stage) -> tuple[str, int]:
        """In what unit the work of ``stage`` is counted, and how much of it there is."""
        sampling, training = self.job.settings.sampling, self.job.settings.training
        if isinstance(stage, Distil):
            return "steps", steps_in(self.samples, training, 1)
        if isinstance(stage, Prune):
            return "samples", min(sampling.images, self.samples)
        return "samples", sampling.val_images

    def seconds(self, step: ShapedStep) -> float:
        """Of one stage."""
        if isinstance(step.stage, Distil):
            return step.took + self._distil(step, step.stage)
        if isinstance(step.stage, Prune):
            return step.took + self._prune(step)
        return self._evaluate(step)

    def bytes_of(self, step: ShapedStep, weights: int) -> int:
        """What is held at once in one stage, of which ``weights`` are the original part's."""
        training = self.job.settings.training
        held = 2 * weights  # the original, and what is made of it
        if isinstance(step.stage, Evaluate) or step.needs is None:
            return held
        if isinstance(step.stage, Distil):
            teachers = {term.teacher for term in step.stage.terms}
            held += weights if "previous" in teachers else 0
            # counted for the original, whose weights a cut one has fewer of
            wanted = need(self._part, step.needs, training, self.samples, len(teachers))
            return held + wanted.total - int(wanted.optimiser * (1 - 4 * step.params / max(1, weights)))
        backward = self._passes()[1]
        return held + (weights + step.needs.kept + 3 * step.needs.largest if backward else 3 * step.needs.largest)

    def _evaluate(self, step: ShapedStep) -> float:
        entry, count = self.job.built.entry, self.work(step.stage)[1]
        own = self.times.forward(step.kept) + self.rest * self._second_per_mac
        if entry is None or not entry.evaluator:
            own += self.times.forward({})  # the original's outputs, beside which the model's are judged
        return count * own

    def _prune(self, step: ShapedStep) -> float:
        images = self.work(step.stage)[1]
        ahead, back = self._passes()
        one, graph = self.times.forward(step.kept), self.times.backward(step.kept)
        seconds = images * (ahead * one + back * graph)
        refit = as_compensation(self.job.settings.options.cutting.compensate)
        if refit is not None:
            seconds += _REFIT * min(refit.samples, self.samples) * one + solving_macs(self._part) * self._second_per_mac
        how = as_measured(self.job.settings.options.choice.allocation)
        if how is not None:
            passes = _VARIANTS * _OF_A_PASS * len(self.walk.structure.groups) + how.sets
            seconds += passes * min(how.samples, self.samples) * one
        return seconds

    def _passes(self) -> tuple[float, float]:
        """Forward and backward passes of one sample that the criterion makes; of one unknown, one each."""
        needs = getattr(self.job.settings.options.choice.scorer, "needs", BACKWARD)
        return PASSES.get(needs, (0, 0) if needs.data in ("weights", "nothing", "weights; batch norms") else (1, 1))

    @property
    def _part(self) -> nn.Module:
        return self.job.built.model.get_submodule(self.job.built.part)

    @property
    def _second_per_mac(self) -> float:
        return self.times.forward({}) / max(1, self.walk.structure.cost().macs)

    def _distil(self, step: ShapedStep, stage: Distil) -> float:
        training = self.job.settings.training
        steps = steps_in(self.samples, training, 1)
        seen = steps * training.batch
        again = 2 if training.checkpointing else 1
        seconds = seen * (again * self.times.forward(step.kept) + self.times.backward(step.kept))
        seconds += steps / training.accumulate * step.params * self.optimiser
        for name in dict.fromkeys(str(term.teacher) for term in stage.terms):
            at: Kept = {} if name == "original" else step.previous
            seconds += self._taught(step, stage, name, steps) * self.times.forward(at)
        return seconds

    def _taught(self, step: ShapedStep, stage: Distil, name: str, steps: int) -> float:
        """Passes of a teacher: once a sample where what it gives is kept, else once a sample and step that asks."""
        training, needs = self.job.settings.training, step.needs
        seen, alone = steps * training.batch, min(self.samples, steps * training.batch)
        if training.teacher_cache == "off" or needs is None:
            return seen
        limit = cache_bytes(training) * (2 if training.teacher_cache == "disk" else 1)
        features = any(term.roles for term in stage.terms if term.teacher == name)
        aligned = min(training.align_epochs, training.epochs)
        asked = seen * aligned / training.epochs if features else 0.0
        outputs = self.samples * needs.outputs <= limit
        if asked and aligned > 1 and self.samples * (needs.outputs + needs.features) <= limit:
            asked = min(asked, alone)
        later = min(seen - asked, alone) if outputs else seen - asked
        return asked + (0 if outputs and asked == alone else later)


def solving_macs(part: nn.Module) -> float:
    """Multiply-adds of a refit of every layer: sums of products of what it reads, and a decomposition of them."""
    weights = [module.get_parameter("weight") for module in part.modules() if isinstance(module, LAYERS)]
    reads = [weight.numel() // weight.shape[0] for weight in weights]
    return float(sum(_ROWS * d**2 + _SOLVE * d**3 for d in reads))


def step_of(device: torch.device, timer: Timer | None = None) -> float:
    """Seconds of one optimiser step, clipping among it, for one weight."""
    weight = torch.zeros(_SMALL, device=device, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    optimiser = torch.optim.Adam([weight], lr=0.0)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_([weight], math.inf)
        optimiser.step()

    return (timer or Glance()).seconds(run, device) / _SMALL
