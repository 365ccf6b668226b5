"""Encoded samples: kept while there is room, and made in a thread of their own while the step before is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from prunekit.inputs.batching import Batch, bytes_in, joined_rows, moved
from prunekit.samples.tasks import Samples

T = TypeVar("T")
ENCODED_BYTES = 512 * 2**20  # of encoded samples that are kept
AHEAD = 4  # batches that are encoded before they are asked for


class Encoded:
    """Encoded batches by sample, on ``device``; to be closed.

    One thread reads and encodes all of them, in the order in which they are first expected or asked for, so that data
    sets need not bear more than one reader and faults are met in the same order every time.
    """

    def __init__(self, samples: Samples, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self.kept: dict[int, Batch] = {}
        self.bytes = 0
        self._coming: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")

    def __enter__(self) -> Encoded:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def expect(self, indices: Iterable[int]) -> None:
        """Samples that will be asked for."""
        for index in indices:
            if index not in self.kept and index not in self._coming:
                self._coming[index] = self._thread.submit(self.samples.batch, [index])

    def __call__(self, indices: Sequence[int]) -> Batch:
        """The samples as one batch. Raises DataError as ``Samples.batch`` does."""
        self.expect(indices)
        rows: dict[int, Batch] = {}
        for index in indices:
            if index not in rows:
                rows[index] = self.kept[index] if index in self.kept else self._come(index)
        return moved(joined_rows([rows[index] for index in indices]), self.device)

    def _come(self, index: int) -> Batch:
        row = self._coming.pop(index).result()
        if self.bytes + bytes_in(row) <= ENCODED_BYTES:
            self.kept[index] = row
            self.bytes += bytes_in(row)
        return row


def with_next(items: Iterable[T], ahead: int = AHEAD) -> Iterator[tuple[T, list[T]]]:
    """Each item with those that came into sight with it: up to ``ahead`` after it, each once."""
    rest = iter(items)
    seen = list(islice(rest, ahead + 1))
    fresh = list(seen)
    while seen:
        yield seen.pop(0), fresh
        fresh = list(islice(rest, 1))
        seen += fresh
