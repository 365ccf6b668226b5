"""Distillation towards frozen teachers: features compared as the hooks yield them, outputs at the end of the pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Tap
from prunekit.errors import RecipeError
from prunekit.inputs import tensors_in
from prunekit.plugins import Samples
from prunekit.recipes.caches import remade
from prunekit.recipes.stages import Distil, Term
from prunekit.recipes.taps import tapped

CACHE_BYTES = 512 * 2**20  # of encoded images and of teacher outputs, each
Progress = Callable[[int, int, Mapping[str, float]], None]
TapsOf = Callable[[Sequence[str]], Sequence[Tap]]
PATIENCE, FACTOR = 3, 0.5  # of the plateau schedule, in epochs


@dataclass(frozen=True)
class Settings:
    """How a distillation stage runs; see ``stages.COMMON`` for the meaning and the defaults."""

    epochs: int
    align_epochs: int
    steps: int
    batch: int
    accumulate: int
    lr: float
    lr_schedule: str
    clip: float
    penalty: float
    seed: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Settings:
        """The ones that matter here, out of all of a recipe's."""
        return cls(**{name: settings[name] for name in cls.__dataclass_fields__})


def distil(
    student: nn.Module,
    teachers: Mapping[str, nn.Module],
    stage: Distil,
    samples: Samples,
    taps_of: TapsOf,
    settings: Settings,
    progress: Progress,
    penalty: Callable[[float], Tensor] | None = None,
) -> dict[str, float]:
    """Train ``student`` in place on ``samples`` and return the last epoch's mean of every term and of the total.

    Everything runs in evaluation mode: dropout would disturb the comparison, and the running statistics of norms are
    those of the original on the original's data. The learning rate follows the training loss, never validation images.

    Args:
        teachers: by the names that the terms use; never trained, their parameters get no gradient.
        taps_of: roles -> where the features that carry them are read.
        penalty: from how far the stage has come, in (0, 1], to what is added to the loss, times ``settings.penalty``.

    Raises RecipeError where student and teacher features differ in shape and where a loss is not finite.
    """
    taps = {term.name: tuple(taps_of(term.roles)) if term.roles else () for term in stage.terms}
    for term in stage.terms:
        if term.roles and not taps[term.name]:
            raise RecipeError(f"no feature carries {' or '.join(term.roles)}", where=f"{stage.title}, {term.name}")
    reader = _Cached(samples, next(student.parameters()).device)
    outputs = {name: _Outputs(teacher) for name, teacher in teachers.items()}
    weights = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=settings.lr)
    per_epoch = math.ceil(len(samples) / settings.batch)
    total = settings.epochs * per_epoch if not settings.steps else min(settings.steps, settings.epochs * per_epoch)
    rate = _Rate(settings, total)
    means: dict[str, float] = {}
    epoch_sums: dict[str, list[float]] = {}
    epoch = 0
    student.eval()
    caches = remade(student, lambda: student(reader([0])))
    for step, indices in enumerate(_batches(len(samples), settings, total)):
        for cache in caches:
            cache.clear()
        now = step * settings.epochs // total  # a run cut short by ``steps`` still passes every epoch of the schedule
        if now != epoch:
            rate.epoch_done(means.get("output", means.get("loss", 0.0)))
            epoch, epoch_sums = now, {}
        alpha = stage.alpha(epoch, settings.align_epochs)
        losses = term_losses(student, teachers, stage.terms, taps, alpha, reader(indices), indices, outputs)
        loss = torch.stack(
            [_weight(term, alpha) * losses[term.name] for term in stage.terms if term.name in losses]
        ).sum()
        if penalty is not None:
            losses["penalty"] = settings.penalty * penalty((step + 1) / total)
            loss = loss + losses["penalty"]
        if not bool(torch.isfinite(loss)):
            raise RecipeError(
                f"the loss is not finite at step {step} of {total}", where=stage.title, hint="lower it: --set lr=1e-5"
            )
        loss.div(settings.accumulate).backward()  # type: ignore[no-untyped-call]
        if (step + 1) % settings.accumulate == 0 or step + 1 == total:
            if settings.clip:
                nn.utils.clip_grad_norm_(weights, settings.clip)
            for group in optimiser.param_groups:
                group["lr"] = rate(step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        for name, value in [*losses.items(), ("loss", loss)]:
            epoch_sums.setdefault(name, []).append(float(value.detach()))
        means = {name: sum(values) / len(values) for name, values in epoch_sums.items()}
        progress(step + 1, total, {"loss": means["loss"], "lr": rate(step)})
    for cache in caches:
        cache.clear()
    return means


def term_losses(
    student: nn.Module,
    teachers: Mapping[str, nn.Module],
    terms: Sequence[Term],
    taps: Mapping[str, Sequence[Tap]],
    alpha: float,
    batch: Tensor,
    indices: Sequence[int] | None = None,
    outputs: Mapping[str, _Outputs] | None = None,
) -> dict[str, Tensor]:
    """The unweighted loss of every term that counts at ``alpha``, by name, from one pass of the student.

    A term over features is the mean over its taps of the mean squared error. ``outputs`` answers for teachers whose
    output alone is wanted. Teacher features live until the student's are there, and no longer.
    """
    live = [term for term in terms if _weight(term, alpha)]
    expected: dict[tuple[str, Tap], list[Tensor]] = {}  # a module may run more than once in a pass
    finals: dict[str, list[Tensor]] = {}
    for name in dict.fromkeys(term.teacher for term in live):
        of_teacher = [term for term in live if term.teacher == name]
        wanted = dict.fromkeys(tap for term in of_teacher for tap in taps[term.name])
        cached = None if wanted or outputs is None or indices is None else outputs[name](batch, indices)
        if cached is not None:
            finals[name] = cached
            continue

        def keep(tap: Tap, feature: Tensor, name: str = name) -> None:
            # A copy, because what follows may write into the feature in place
            expected.setdefault((name, tap), []).append(feature.detach().clone())

        with torch.no_grad(), tapped(teachers[name], wanted, keep):
            finals[name] = floats(teachers[name](batch))
    sums: dict[str, list[Tensor]] = {term.name: [] for term in live if term.roles}

    def compare(tap: Tap, feature: Tensor) -> None:
        for term in live:
            if tap in taps[term.name]:
                wanted = expected[term.teacher, tap].pop(0)
                if wanted.shape != feature.shape:
                    raise RecipeError(
                        f"the teacher's feature is {tuple(wanted.shape)}, the student's {tuple(feature.shape)}",
                        where=f"the {tap.side} of {tap.module}",
                        hint="align roles that the teacher and the student have at equal widths",
                    )
                # not mse_loss, which keeps the feature itself: what follows may write into it in place
                sums[term.name].append((feature - wanted).square().mean())

    with tapped(student, dict.fromkeys(tap for term in live for tap in taps[term.name]), compare):
        final = floats(student(batch))
    losses = {name: torch.stack(values).mean() for name, values in sums.items() if values}
    for term in live:
        if not term.roles:
            pairs = zip(final, finals[term.teacher], strict=True)
            losses[term.name] = torch.stack([nn.functional.mse_loss(mine, theirs) for mine, theirs in pairs]).mean()
    return losses


def floats(output: Any) -> list[Tensor]:
    """The floating tensors of an output of any shape."""
    return [t for t in tensors_in(output) if t.is_floating_point()]


def _weight(term: Term, alpha: float) -> float:
    return alpha if term.weight == "a" else 1 - alpha


def _batches(count: int, settings: Settings, total: int) -> Iterator[list[int]]:
    """``total`` batches of indices, a fresh order every pass over the samples."""
    generator = torch.Generator().manual_seed(settings.seed)
    given = 0
    while given < total:
        order = torch.randperm(count, generator=generator).tolist()
        for start in range(0, count, settings.batch):
            if given < total:
                yield order[start : start + settings.batch]
                given += 1


class _Cached:
    """Encoded batches by sample; what fits ``CACHE_BYTES`` is encoded once."""

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self.kept: dict[int, Tensor] = {}
        self.bytes = 0

    def __call__(self, indices: Sequence[int]) -> Tensor:
        rows = []
        for index in indices:
            row = self.kept.get(index)
            if row is None:
                row = self.samples.batch([index])
                if self.bytes + row.nbytes <= CACHE_BYTES:
                    self.kept[index] = row
                    self.bytes += row.nbytes
            rows.append(row)
        return torch.cat(rows).to(self.device)


class _Outputs:
    """A teacher's output by sample: frozen, so computed once where it fits ``CACHE_BYTES``."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher
        self.kept: dict[int, list[Tensor]] = {}
        self.bytes = 0

    def __call__(self, batch: Tensor, indices: Sequence[int]) -> list[Tensor]:
        if all(index in self.kept for index in indices):
            rows = [self.kept[index] for index in indices]
            return [torch.cat(parts).to(batch.device) for parts in zip(*rows, strict=True)]
        with torch.no_grad():
            finals = floats(self.teacher(batch))
        for row, index in enumerate(indices):
            size = sum(t[row].nbytes for t in finals)
            if index not in self.kept and self.bytes + size <= CACHE_BYTES:
                if any(t.shape[0] != len(indices) for t in finals):
                    break  # an output without a batch axis cannot be told apart by sample
                self.kept[index] = [t[row : row + 1].cpu().clone() for t in finals]
                self.bytes += size
        return finals


class _Rate:
    """The learning rate of a step."""

    def __init__(self, settings: Settings, total: int) -> None:
        self.settings, self.total = settings, total
        self.factor, self.best, self.bad = 1.0, math.inf, 0

    def __call__(self, step: int) -> float:
        if self.settings.lr_schedule == "cosine":
            warm = min(1.0, (step + 1) / max(1, self.total // 20))
            return self.settings.lr * warm * 0.5 * (1 + math.cos(math.pi * step / self.total))
        return self.settings.lr * self.factor

    def epoch_done(self, loss: float) -> None:
        if self.settings.lr_schedule != "plateau":
            return
        self.bad = 0 if loss < self.best else self.bad + 1
        self.best = min(self.best, loss)
        if self.bad > PATIENCE:
            self.factor, self.bad = self.factor * FACTOR, 0
