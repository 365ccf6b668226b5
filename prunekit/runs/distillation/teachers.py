"""Frozen teachers: run once a sample where what they give can be remembered, in memory or on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunekit.coupling.groups import Tap
from prunekit.inputs import is_number, reals, tensors_in
from prunekit.inputs.batching import Batch, device_of, taken_rows, run_on
from prunekit.inputs.values import batch_size
from prunekit.recipes.records import Training
from prunekit.runs.features import tapped

logger = logging.getLogger(__name__)

Features = dict[Tap, list[Tensor]]
_CLOSE = 1e-2  # of the largest value: the same rows out of a batch and out of a pass of their own


class Store(Protocol):
    """Tensors by key: what ``make`` gives, made once and kept."""

    def __call__(self, key: str, make: Callable[[], list[Tensor]]) -> list[Tensor]: ...


class Memory:
    """Keeps tensors on the CPU as they are."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Tensor]] = {}

    def __call__(self, key: str, make: Callable[[], list[Tensor]]) -> list[Tensor]:
        if key not in self.kept:
            self.kept[key] = [tensor.to("cpu", copy=True) for tensor in make()]
        return self.kept[key]


class Teacher:
    """A frozen model whose features and outputs are asked for by sample.

    Args:
        store: where features and outputs are remembered; None computes them every time. A sample is then run by itself,
            so that what is remembered does not depend on the batch that it first came in.
        limit: bytes of all samples together that may be remembered; features are given up first.
        count: samples that there are.
        epochs: passes that will ask for features.
        name: tells the stores of several teachers apart.
    """

    def __init__(
        self,
        model: nn.Module,
        store: Store | None = None,
        *,
        limit: int = 0,
        count: int = 0,
        epochs: int = 2,
        name: str = "",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model, self.name, self.dtype = model, name, dtype
        self._store, self._limit, self._count, self._epochs = store, limit, count, epochs
        self._features: bool | None = None  # whether they are remembered; None before the first sample is known
        self._finals: bool | None = None
        self._checked = False

    def __call__(
        self, batch: Batch, taps: Sequence[Tap], indices: Sequence[int] | None
    ) -> tuple[Features, list[Tensor]]:
        """Features by tap and the floating outputs for ``batch``. The features are the caller's own copies."""
        alone = indices is None or self._store is None or batch_size(batch) != len(indices)
        if alone or not self._remembers(batch, taps):
            return self._run(batch, taps)
        assert indices is not None
        device = device_of(batch)
        rows = [self._row(taken_rows(batch, n, n + 1), taps, index) for n, index in enumerate(indices)]
        joined = [  # copies, in either case
            torch.cat(parts).to(device) if len(parts) > 1 else parts[0].to(device, copy=True)
            for parts in zip(*rows, strict=True)
        ]
        found, finals = self._split(joined, taps)
        if len(rows) > 1 and not self._checked:
            self._checked = True
            direct = self._run(batch, taps)
            if not _same(joined, _flat(*direct, taps)):
                logger.info(
                    "%s mixes the samples of a batch: what it gives is not remembered", self.name or "a teacher"
                )
                self._store = None
                return direct
        return found, finals

    def _remembers(self, batch: Batch, taps: Sequence[Tap]) -> bool:
        known = self._features if taps else self._finals
        if known is None:
            features, finals = self._run(taken_rows(batch, 0, 1), taps)
            self._lengths = {tap: len(values) for tap, values in features.items()}
            size = self._count * sum(t.nbytes for t in finals)
            if self._finals is None:
                self._finals = size <= self._limit
            if taps:
                size += self._count * sum(t.nbytes for values in features.values() for t in values)
                self._features = self._finals and self._epochs > 1 and size <= self._limit
            known = self._features if taps else self._finals
        return bool(known)

    def _row(self, sample: Batch, taps: Sequence[Tap], index: int) -> list[Tensor]:
        assert self._store is not None
        made: list[list[Tensor]] = []

        def run() -> list[Tensor]:
            if not made:
                features, finals = self._run(sample, taps)
                made.append(_flat(features, [], taps))
                made.append(finals)
            return made[1]

        def run_features() -> list[Tensor]:
            run()
            return made[0]

        finals = self._store(f"{self.name}-{index}-output", run)
        return [*(self._store(f"{self.name}-{index}-features", run_features) if taps else ()), *finals]

    def _split(self, flat: list[Tensor], taps: Sequence[Tap]) -> tuple[Features, list[Tensor]]:
        found: Features = {}
        for tap in taps:
            found[tap], flat = flat[: self._lengths[tap]], flat[self._lengths[tap] :]
        return found, flat

    @torch.no_grad()
    def _run(self, batch: Batch, taps: Sequence[Tap]) -> tuple[Features, list[Tensor]]:
        found: Features = {}

        def keep(tap: Tap, feature: Tensor) -> None:
            # A copy, because what follows may write into the feature in place
            found.setdefault(tap, []).append(feature.detach().clone())

        with tapped(self.model, taps, keep), mixed(device_of(batch), self.dtype):
            finals = [reals(t) for t in tensors_in(run_on(self.model, batch)) if is_number(t)]
        return found, finals


def mixed(device: torch.device, dtype: torch.dtype | None) -> Any:
    """Products in ``dtype`` within the block, where there is one."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def _flat(features: Features, finals: list[Tensor], taps: Sequence[Tap]) -> list[Tensor]:
    return [*(value for tap in taps for value in features[tap]), *finals]


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and bool((a.float() - b.float()).abs().max() <= _CLOSE * b.float().abs().max())
        for a, b in zip(one, other, strict=True)
    )


def dtype_of(precision: str) -> torch.dtype | None:
    """What products are computed in, where it is not the weights' own."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def cache_bytes(settings: Training) -> int:
    """What is remembered of a teacher, at most."""
    return int(settings.cache_gb * 2**30)
