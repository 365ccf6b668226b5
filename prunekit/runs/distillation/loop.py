"""The loop: batches in an order that the seed decides, losses of the terms, optimiser steps, states to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from prunekit.inputs.batching import run_on
from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.samples.tasks import Samples
from prunekit.runs.caches import remade
from prunekit.runs.distillation.adapters import Adapted, adapted
from prunekit.runs.distillation.checkpointing import recomputed
from prunekit.runs.distillation.disk_store import Disk
from prunekit.runs.distillation.encoded import Encoded, with_next
from prunekit.runs.distillation.joint import Joint, joined, whole
from prunekit.runs.distillation.losses import Rest, term_losses, weight
from prunekit.runs.distillation.memory import GIB, preflight
from prunekit.runs.distillation.rate import Rate, batches, own_share, steps_in
from prunekit.recipes.records import Training
from prunekit.runs.distillation.state import State, restored, state_of
from prunekit.runs.distillation.teachers import Memory, Store, Teacher, cache_bytes, dtype_of, mixed
from prunekit.runs.ranks import ALONE, Ranks
from prunekit.runs.stopping import Asked, Stopped
from prunekit.recipes.stages import Distil, Term

Progress = Callable[[int, int, Mapping[str, float]], None]


class TapsOf(Protocol):
    """Where features that carry roles are compared: ``Structure.taps``."""

    def __call__(self, roles: Sequence[str], /, *, where: Literal["written", "read"]) -> Sequence[Tap]: ...


class Keeper(Protocol):
    """Keeps a state so that a later process can go on from it."""

    def __call__(self, state: State) -> None: ...


@dataclass
class Epoch:
    """Sums of the current epoch's losses by name: what the plateau schedule follows and the report shows."""

    number: int = 0
    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Mapping[str, float]) -> None:
        self.steps += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.means = {name: total / self.steps for name, total in self.sums.items()}


def distil(
    student: nn.Module,
    teachers: Mapping[str, nn.Module],
    stage: Distil,
    samples: Samples,
    taps_of: TapsOf,
    settings: Training,
    progress: Progress,
    penalty: Callable[[float], Tensor] | None = None,
    *,
    ranks: Ranks = ALONE,
    start: State | None = None,
    keep: Keeper | None = None,
    folder: Path | None = None,
    stop: Asked = lambda: False,
    rest: Rest | None = None,
) -> dict[str, float]:
    """Train ``student`` in place on ``samples`` and return the last epoch's mean of every term and of the total.

    Everything runs in evaluation mode: dropout would disturb the comparison, and the running statistics of norms are
    those of the original on the original's data. The learning rate follows the training loss, never validation images.

    Args:
        teachers: by the names that the terms use; never trained, their parameters get no gradient.
        taps_of: where the features that carry roles are compared.
        penalty: from how far the stage has come, in (0, 1], to what is added to the loss, times ``settings.penalty``.
        ranks: the processes that share each batch; the student must be the same on all of them.
        start: a state that ``keep`` was given, with the student's weights of that time already in place.
        keep, stop: between two steps, given a state every ``settings.save_minutes`` minutes; asked whether to end (Stopped).
        folder: where ``teacher_cache=disk`` keeps what teachers give.
        rest: what follows the student in its model, for terms that read it; it is not trained.

    Raises RecipeError where features differ in shape, and before the step where a loss or gradient is not finite.
    """
    taps = _taps(stage, taps_of)
    student.eval()
    total = steps_in(len(samples), settings, ranks.count)
    frozen = _frozen_teachers(teachers, settings, len(samples), folder)
    adapters = adapted(student, settings, penalised=penalty is not None) if settings.lora_rank else None
    trained = student if adapters is None else adapters.model
    with Encoded(samples, next(student.parameters()).device) as reader, ExitStack() as stack:
        needs = preflight(trained, stage, reader([0]), taps, settings, len(samples), ranks.shards(settings.sharded))
        joint = stack.enter_context(joined(trained, ranks, settings, penalised=penalty is not None))
        course = _Course(joint.model, stage, settings, total, ranks, adapters)
        progress(first := course.restore(start), total, {} if needs is None else {"needs_gib": needs.total / GIB})
        passes = _Passes(joint, frozen, stage.terms, taps, settings, reader, rest)
        with recomputed(joint.model, settings.checkpointing):
            for step, mine, share in _shares(reader, settings, first, total, ranks):
                aligning, ends = course.aligning(step), (step + 1) % settings.accumulate == 0 or step + 1 == total
                with joint.apart() if not ends else nullcontext():
                    losses, loss = passes.losses(mine, aligning, lambda found: course.total_loss(found, penalty))
                    course.learn(loss, losses, share, ends=ends)
                progress(step + 1, total, {"loss": course.epoch.means["loss"], "lr": course.rate(step)})
                if ends and step + 1 < total:
                    _kept_or_stopped(course, joint, keep, stop)
        passes.forget()
        joint.publish()
        if adapters is not None:
            adapters.merge()
    return course.epoch.means


def _kept_or_stopped(course: _Course, joint: Joint, keep: Keeper | None, stop: Asked) -> None:
    """Keeps a state between two steps where it is time, and ends the run where it was asked to end."""
    due = course.due(stop)
    if due:
        joint.publish()
    if due and keep is not None:
        keep(course.state())
    if due == "stop":
        raise Stopped


def _taps(stage: Distil, taps_of: TapsOf) -> dict[str, tuple[Tap, ...]]:
    """Where each term reads its features. Raises RecipeError for a term whose roles nothing carries."""
    taps = {term.name: tuple(taps_of(term.roles, where=term.where)) if term.roles else () for term in stage.terms}
    for term in stage.terms:
        if term.roles and not taps[term.name]:
            raise RecipeError(f"no feature carries {' or '.join(term.roles)}", where=f"{stage.title}, {term.name}")
    return taps


class _Passes:
    """Forward passes of student and teachers over batches of a stage."""

    def __init__(
        self,
        joint: Joint,
        teachers: Mapping[str, Teacher],
        terms: Sequence[Term],
        taps: Mapping[str, Sequence[Tap]],
        settings: Training,
        reader: Encoded,
        rest: Rest | None,
    ) -> None:
        self.joint, self.teachers, self.terms, self.taps = joint, teachers, terms, taps
        self.settings, self.reader, self.rest = settings, reader, rest
        self.caches = remade(joint.model, lambda: run_on(joint.call, reader([0])))

    def losses(
        self, mine: list[int], aligning: float, summed: Callable[[dict[str, Tensor]], Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Losses by term, and what ``summed`` makes of them, on the samples ``mine``."""
        self.forget()
        with mixed(self.reader.device, dtype_of(self.settings.precision)):
            given = (self.teachers, self.terms, self.taps, aligning, self.reader(mine), mine, self.joint.call)
            losses = term_losses(
                self.joint.model,
                *given,
                late=self.settings.checkpointing,
                temperature=self.settings.temperature,
                top=self.settings.top_logits,
                rest=self.rest,
            )
            return losses, summed(losses)

    def forget(self) -> None:
        """Empties what the student derives from its weights and keeps."""
        for cache in self.caches:
            cache.clear()


def _shares(
    reader: Encoded, settings: Training, first: int, total: int, ranks: Ranks
) -> Iterator[tuple[int, list[int], float]]:
    """(step, this rank's samples, their part of the batch) from step ``first`` on; ``reader`` hears of them ahead."""
    order = islice(enumerate(batches(len(reader.samples), settings, total, ranks.count)), first, None)
    shares = ((step, *own_share(indices, settings, ranks.index)) for step, indices in order)
    for share, coming in with_next(shares):
        for _, indices, _ in coming:
            reader.expect(indices)
        yield share


def _frozen_teachers(
    teachers: Mapping[str, nn.Module], settings: Training, count: int, folder: Path | None
) -> dict[str, Teacher]:
    def store() -> Store | None:
        if settings.teacher_cache == "off":
            return None
        if settings.teacher_cache == "disk":
            if folder is None:
                raise RecipeError("there is no folder for teacher_cache=disk", hint="--set teacher_cache=memory")
            return Disk(folder)
        return Memory()

    limit = cache_bytes(settings) * (2 if settings.teacher_cache == "disk" else 1)  # half precision on disk
    return {
        name: Teacher(
            teacher,
            store(),
            limit=limit,
            count=count,
            epochs=min(settings.epochs, settings.align_epochs),
            name=name,
            dtype=dtype_of(settings.precision),
        )
        for name, teacher in teachers.items()
    }


class _Course:
    """The optimiser of one stage, its schedules, and how far it has come."""

    def __init__(
        self,
        student: nn.Module,
        stage: Distil,
        settings: Training,
        total: int,
        ranks: Ranks,
        adapters: Adapted | None = None,
    ) -> None:
        self.student, self.stage, self.settings, self.total, self.ranks = student, stage, settings, total, ranks
        self.adapters = adapters
        self.weights = [p for p in student.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(self.weights, lr=settings.lr)
        device = self.weights[0].device.type
        self.scaler = torch.amp.GradScaler(device, enabled=settings.precision == "fp16")
        self.rate = Rate(settings.lr, settings.lr_schedule, total)
        self.epoch = Epoch()
        self.step, self.aligned, self.saved = 0, 0.0, time.monotonic()

    def due(self, stop: Asked) -> str:
        """What rank 0 says it is time for: to ``keep`` a state, to ``stop`` after that, or nothing."""
        late = time.monotonic() - self.saved >= 60 * self.settings.save_minutes
        return self.ranks.decided(lambda: "stop" if stop() else "keep" if late else "")

    def aligning(self, step: int) -> float:
        """What aligning terms count at ``step``; a run cut short by ``steps`` still passes every epoch of the schedule."""
        now = step * self.settings.epochs // self.total
        if now != self.epoch.number:
            self.rate.epoch_done(self.epoch.means.get("output", self.epoch.means.get("loss", 0.0)))
            self.epoch = Epoch(now)
        self.step, self.aligned = step, self.stage.weighting.weight(now, self.settings.align_epochs)
        return self.aligned

    def total_loss(self, losses: dict[str, Tensor], penalty: Callable[[float], Tensor] | None) -> Tensor:
        """The weighted sum; a penalty joins ``losses`` under its name."""
        parts = [weight(term, self.aligned) * losses[term.name] for term in self.stage.terms if term.name in losses]
        loss = torch.stack(parts).sum()
        if penalty is None:
            return loss
        losses["penalty"] = self.settings.penalty * penalty((self.step + 1) / self.total)
        return loss + losses["penalty"]

    def learn(self, loss: Tensor, losses: Mapping[str, Tensor], share: float, *, ends: bool) -> None:
        """Backward, and an optimiser step where ``ends``. ``share``: this rank's part of the batch."""
        named = {**losses, "loss": loss}
        values = torch.stack([value.detach().double() for value in named.values()]) * share
        values = self.ranks.total(values)
        if not bool(torch.isfinite(values[-1])):
            raise self._diverged("loss")
        # joined gradients are means over the ranks, each of which counts by its part of the batch
        scaled = loss * (share * self.ranks.count / self.settings.accumulate)
        self.scaler.scale(scaled).backward()  # type: ignore[no-untyped-call]
        self.epoch.add(dict(zip(named, values.tolist(), strict=True)))
        if not ends:
            return
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.weights, self.settings.clip or math.inf)
        # in fp16 some are not, and the scaler leaves out the step
        if not self.scaler.is_enabled() and not bool(torch.isfinite(whole(norm))):
            raise self._diverged("gradient")
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(self.step)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)

    def _diverged(self, what: str) -> RecipeError:
        halves = f" --set precision=fp32, now {self.settings.precision}" if self.settings.precision != "fp32" else ""
        clip = "" if self.settings.clip else " --set clip=1"
        return RecipeError(
            f"the {what} is not finite at step {self.step} of {self.total}; the weights from before it are kept",
            where=self.stage.title,
            hint=f"train with a lower rate: --set lr={self.settings.lr / 10:g}{clip}{halves}",
        )

    def state(self) -> State:
        """Everything that decides what comes after this step."""
        self.saved = time.monotonic()
        progress = {
            "step": self.step + 1,
            "rate": self.rate.state(),
            "epoch": {"number": self.epoch.number, "steps": self.epoch.steps, "sums": dict(self.epoch.sums)},
            "scaler": self.scaler.state_dict(),
        }
        found = state_of(progress, self.optimiser, self.student)
        return found if self.adapters is None else State(progress, {**found.tensors, **self.adapters.values()})

    def restore(self, start: State | None) -> int:
        """Goes back to ``start`` and returns the steps that it had made."""
        if start is None:
            return 0
        if self.adapters is not None:
            self.adapters.put_back(start.tensors)
        restored(start, self.optimiser, self.student)
        self.rate = Rate.of(start.progress["rate"])
        told = start.progress["epoch"]
        self.epoch = Epoch(told["number"], told["steps"], dict(told["sums"]))
        self.epoch.means = {name: value / max(1, self.epoch.steps) for name, value in self.epoch.sums.items()}
        if start.progress["scaler"]:
            self.scaler.load_state_dict(start.progress["scaler"])
        step = int(start.progress["step"])
        if not 0 <= step < self.total or not math.isfinite(self.rate.lr):
            raise RecipeError("the kept state is of another run", hint="remove it, and start again")
        return step
