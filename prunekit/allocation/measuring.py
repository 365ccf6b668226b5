"""Damage of plans: how far the outputs of the model under each are from the original's, one plan at a time."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.allocation.divergences import Divergence, Outputs, compared_outputs, divergence_for
from prunekit.allocation.prefix import Astray, Prefix
from prunekit.allocation.store import DamageStore
from prunekit.allocation.surveying import Survey, survey
from prunekit.compensation.in_order import batched
from prunekit.compensation.settings import Compensation
from prunekit.compensation.streamed import cut_places
from prunekit.compensation.sums import Sums
from prunekit.errors import InputError, PrunekitError, VerificationError
from prunekit.inputs import Inputs, sample_named
from prunekit.modules.moments import on_device
from prunekit.modules.rollback import standing
from prunekit.modules.walk import state_tensors
from prunekit.options.measured import Measured
from prunekit.plans.contents import Plan
from prunekit.scorers.undisturbed import untouched
from prunekit.surgery.cutting import Undo, carry_out_plan

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
SEED = 0  # before every pass, so that a model that draws numbers draws the same ones


@dataclass(eq=False)
class Bill:
    """What measuring has cost so far, in forward passes over all samples; ``variants`` of it for so many plans."""

    passes: float = 0.0
    plans: int = 0
    recalled: int = 0


@dataclass(eq=False)
class Meter:
    """Measures plans on one model and one set of inputs; what it has measured, it knows.

    Attributes:
        batches: the inputs, joined.
        fits: what affine maps are fitted on, and a refit that comes after each cut.
        refit: that refit; one in order is made of whole sets alone, any other of all that is measured.
        bill: what measuring has cost.
    """

    model: nn.Module
    how: Measured
    batches: Sequence[Inputs]
    store: DamageStore
    fits: Sequence[Inputs] = ()
    refit: Compensation | None = None
    sums: Sums | None = None
    bill: Bill = field(default_factory=Bill)
    reuses: bool | None = None  # whether recorded outputs may stand for calls; None as long as it was not tried
    _dense: list[list[Tensor]] = field(default_factory=list)
    _divergence: Divergence | None = None
    _seen: Survey | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        how: Measured,
        samples: Sequence[Inputs],
        refit: Compensation | None = None,
        fits: Sequence[Inputs] = (),
        sums: Sums | None = None,
    ) -> Meter:
        """A meter on ``samples`` of batch size 1, joined where they can be; ``sums`` are of ``model`` and ``fits``."""
        batches = [on_device(batch, model) for batch in _in_batches(samples, how.batch)]
        told = how.damage if isinstance(how.damage, str) else None
        identity = "" if how.store is None else _identity_of_damages(model, batches, told)
        if sums is None and refit is not None and not refit.in_order:
            sums = Sums.over(fits, refit, remembers=True)
        return cls(model, how, batches, DamageStore.of(how.store, identity), fits, refit, sums)

    def damages(self, plans: Sequence[Plan], base: Plan | None = None, progress: Progress | None = None) -> list[float]:
        """What each plan damages, in the order of ``plans``; infinite where outputs are not finite.

        ``base`` is the plan that they are close to: what precedes the first difference is computed once. Every plan is
        one on the original. Raises InputError for a sample that the model cannot be run on.
        """
        refitted = self._refitted_on() if self.sums is not None else ""
        keys = [self.store.key(plan, refitted) for plan in plans]
        missing = [n for n, key in enumerate(keys) if self._known(key) is None]
        self.bill.recalled += len(plans) - len(missing)
        if missing:
            with self._undisturbed():
                self._get_ready()
                self._sweep([*(plans[n] for n in missing), *([] if base is None else [base])])
                try:
                    self._measure([plans[n] for n in missing], [keys[n] for n in missing], base, progress)
                except Astray:
                    self.reuses = False
                    self._measure([plans[n] for n in missing], [keys[n] for n in missing], base, progress)
                finally:
                    self.store.save()
            self.bill.plans += len(missing)
        return [self._known(key) or 0.0 for key in keys]

    def _known(self, key: str) -> float | None:
        """A damage out of what every batch lost; None where a batch is missing."""
        parts = [self.store.get(f"{key}.{number}") for number in range(len(self.batches))]
        return None if None in parts else _total([part for part in parts if part is not None])

    def whole(self, plan: Plan) -> float:
        """What one plan damages with all that is done to it: a refit, and affine maps."""
        key = self.store.key(plan, self._refitted_on() + self._fitted_on(plan))
        known = self._known(key)
        if known is not None:
            self.bill.recalled += 1
            return known
        with self._undisturbed():
            self._get_ready()
            self._sweep([plan])
            with self._cut(plan, self.sums or self.refit, self.fits):
                for number in range(len(self.batches)):
                    self.store.put(f"{key}.{number}", self._lost(number, self._run(number)))
        self.bill.passes += 1
        self.bill.plans += 1
        self.store.save()
        return self._known(key) or 0.0

    def _refitted_on(self) -> str:
        """What a damage depends on where layers are refitted: how, and in a file on which samples."""
        return "" if self.refit is None else f"{self.refit!r}{self._samples_of_fits}"

    def _fitted_on(self, plan: Plan) -> str:
        """What a damage that is kept in a file depends on where maps are fitted: other samples than are measured."""
        return self._samples_of_fits if any(absence.has_map for absence in plan.absences) else ""

    @cached_property
    def _samples_of_fits(self) -> str:
        if self.store.file is None:
            return ""
        from prunekit.scorers.calibrate import checksum

        return repr([checksum(sample) for sample in self.fits])

    def _sweep(self, plans: Sequence[Plan]) -> None:
        """What refits of ``plans`` need to know of the original, as much as there is room for, in one sweep."""
        if self.sums is not None:
            self.sums.fetch(self.model, [place for plan in plans for place in cut_places(plan, self.model)])

    @contextmanager
    def _cut(
        self, plan: Plan, refit: Sums | Compensation | None, data: Sequence[Inputs] | None = None
    ) -> Iterator[None]:
        undo = Undo([])
        try:
            carry_out_plan(self.model, plan, undo, compensate=refit, data=data)
            yield
        finally:
            undo()

    def _get_ready(self) -> None:
        """The original's outputs, and what a forward pass consists of."""
        if self._dense:
            return
        for number in range(len(self.batches)):
            result = None
            if number == 0:
                self._seen, result = survey(self.model, lambda: self._forward(0))
            outputs = self._compared(self._forward(number) if result is None else result)
            if self._divergence is None:
                self._divergence = divergence_for(self.how.damage, outputs)
            self._dense.append([t.detach().clone() for _, t in outputs])
        dense = [t for outputs in self._dense for t in outputs]  # a mask may make classes infinitely unlikely
        if not all(bool(t.isfinite().all() if self.how.damage == "mse" else not t.isnan().any()) for t in dense):
            raise VerificationError(
                "the outputs are not finite, so damage cannot be measured", hint="check the weights and the inputs"
            )
        self.bill.passes += 1

    def _measure(
        self, plans: Sequence[Plan], keys: Sequence[str], base: Plan | None, progress: Progress | None
    ) -> None:
        """What every batch loses under every plan, the plans in the order in which they first differ from ``base``."""
        assert self._seen is not None
        order = sorted((self._seen.begins(plan, base), number) for number, plan in enumerate(plans))
        if self.reuses is None:
            tick, place = order[-1]
            self.reuses = self._agrees(plans[place], keys[place], tick, base)
        done, total = 0, len(self.batches) * len(plans)
        for number in range(len(self.batches)):
            prefix = Prefix(self._seen, self.how.memory)
            for tick, place in order:
                key = f"{keys[place]}.{number}"
                if self.store.get(key) is None:
                    self.store.put(key, self._measured(plans[place], number, prefix, tick, base))
                done += 1
                if progress is not None:
                    progress(done, total)
            self.store.save()

    def _measured(self, plan: Plan, number: int, prefix: Prefix, tick: int, base: Plan | None) -> tuple[float, float]:
        """What one batch loses under one plan."""
        share, saved = 1 / len(self.batches), 0.0
        if self.reuses:
            with self._under(base):
                self.bill.passes += share * prefix.advance(partial(self._forward, number), tick)
            saved = prefix.saved
        with self._cut(plan, self.sums):
            outputs = self._run(number, prefix if self.reuses else None)
        self.bill.passes += share * (1 - saved)
        return self._lost(number, outputs)

    def _agrees(self, plan: Plan, key: str, tick: int, base: Plan | None) -> bool:
        """Whether a pass from recorded outputs gives, bit for bit, what a whole pass gives; what that lost is kept."""
        assert self._seen is not None
        prefix, share = Prefix(self._seen, self.how.memory), 1 / len(self.batches)
        with self._cut(plan, self.sums):
            plain = self._run(0)
        self.store.put(f"{key}.0", self._lost(0, plain))
        self.bill.passes += share
        try:
            with self._under(base):
                self.bill.passes += share * prefix.advance(partial(self._forward, 0), tick)
            with self._cut(plan, self.sums):
                quick = self._run(0, prefix)
        except (Astray, PrunekitError) as error:  # what modules leave for each other beside their outputs is missing
            logger.info("recorded outputs do not stand for module calls here (%r): every pass is whole", error)
            return False
        self.bill.passes += share * (1 - prefix.saved)
        alike = [path for path, _ in quick] == [path for path, _ in plain]
        if not alike or not all(_same_bits(a, b) for (_, a), (_, b) in zip(quick, plain, strict=True)):
            logger.info("recorded outputs do not stand for module calls here: every pass is whole")
            return False
        return True

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Eval mode without gradients; afterwards the model is what it was, lists that forward writes into included."""
        put_back = standing(self.model)
        try:
            with untouched(self.model, ()), torch.no_grad():
                yield
        finally:
            put_back()

    @contextmanager
    def _under(self, base: Plan | None) -> Iterator[None]:
        if base is None:
            yield
        else:
            with self._cut(base, self.sums):
                yield

    def _run(self, number: int, prefix: Prefix | None = None) -> Outputs:
        run = partial(self._forward, number)
        return self._compared(run() if prefix is None else prefix.run_from(run))

    def _forward(self, number: int) -> Any:
        inputs = self.batches[number]
        torch.manual_seed(SEED)
        with sample_named(number, "batch"):
            return self.model(*inputs.args, **inputs.kwargs)

    def _compared(self, result: Any) -> Outputs:
        return compared_outputs(result, self.how.damage)

    def _lost(self, number: int, outputs: Outputs) -> tuple[float, float]:
        dense = self._dense[number]
        alike = [(t, was) for (_, t), was in zip(outputs, dense, strict=True) if t.shape == was.shape]
        if not alike:  # inner outputs, such as a cache of keys and values, may shrink; what counts does not
            raise InputError(
                "the pruned model's outputs all have other shapes than the original's: nothing can be compared",
                where="allocation",
                hint="leave allocation at 'ranked'",
            )
        assert self._divergence is not None
        return self._divergence.of([t for t, _ in alike], [was for _, was in alike])


def _total(parts: Sequence[tuple[float, float]]) -> float:
    lost, weight = math.fsum(a for a, _ in parts), math.fsum(w for _, w in parts)
    value = lost / weight if weight else lost
    return value if math.isfinite(value) else math.inf


def _in_batches(samples: Sequence[Inputs], size: int) -> list[Inputs]:
    """Batches of ``size`` samples; one by one where they cannot be joined."""
    try:
        return [batched(samples[n : n + size], size) for n in range(0, len(samples), size)]
    except InputError:
        return list(samples)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))


def _identity_of_damages(model: nn.Module, batches: Sequence[Inputs], damage: str | None) -> str:
    """What damages depend on beside the plan: the weights, the inputs, the measure."""
    from prunekit.scorers.calibrate import checksum

    digest = hashlib.sha256(repr((damage, torch.__version__)).encode())
    for name, tensor in sorted(state_tensors(model).items()):
        flat = tensor.detach().reshape(-1)
        content = checksum(Inputs((flat,))) if flat.numel() and not flat.is_meta else 0
        digest.update(f"{name} {tuple(tensor.shape)} {content}".encode())
    digest.update(repr([checksum(batch) for batch in batches]).encode())
    return digest.hexdigest()
