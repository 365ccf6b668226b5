"""Sequences whose items are made when they are asked for, and what becomes of items that cannot be."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from prunekit.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Skipped:
    """An item of a data set that is left out: where it is, a file's path for instance, and why it cannot be used."""

    name: str
    reason: str


class Lazy(Sequence[T], Generic[T]):
    """A sequence from ``_get(index)`` with 0 <= index < len; slices are lists."""

    @abstractmethod
    def _get(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._get(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._get(index % len(self))


class First(Lazy[T]):
    """The first ``count`` items, or all where there are fewer; still made one by one."""

    def __init__(self, items: Sequence[T], count: int) -> None:
        self.items, self._count = items, min(count, len(items))

    def __len__(self) -> int:
        return self._count

    def _get(self, index: int) -> T:
        return self.items[index]


class Sound(Lazy[T]):
    """``items`` with the next good one, in a circle, in the place of each that raises DataError when it is made.

    Which one stands in depends on the items alone, so that every process and every pass sees the same. Each fault is
    added to ``skipped`` once, when it is first met. Raises DataError where no item is good.

    Args:
        items: what is read.
        names: the name of each item, for ``skipped``.
        skipped: where faults are noted; shared with whoever reports them.
    """

    def __init__(self, items: Sequence[T], names: Sequence[str], skipped: list[Skipped]) -> None:
        self.items, self.names, self.skipped = items, names, skipped
        self._bad: dict[int, DataError] = {}

    def __len__(self) -> int:
        return len(self.items)

    def _get(self, index: int) -> T:
        for step in range(len(self.items)):
            place = (index + step) % len(self.items)
            if place in self._bad:
                continue
            try:
                return self.items[place]
            except DataError as error:
                self._bad[place] = error
                self.skipped.append(Skipped(self.names[place], error.what))
        raise none_good(self._bad[index], len(self.items))


class Checked(Lazy[T]):
    """The first ``count`` items that are good, or all of them: no item stands in for another, so none counts twice.

    Items are made once to find out, in order, when the sequence is built; faults are added to ``skipped``.
    Raises DataError where no item is good.
    """

    def __init__(self, items: Sequence[T], names: Sequence[str], skipped: list[Skipped], count: int | None) -> None:
        self.items, self._good = items, list[int]()
        fault: DataError | None = None
        for place in range(len(items)):
            if count is not None and len(self._good) >= count:
                break
            try:
                items[place]
                self._good.append(place)
            except DataError as error:
                fault = fault or error
                skipped.append(Skipped(names[place], error.what))
        if fault and not self._good:
            raise none_good(fault, len(items))

    def __len__(self) -> int:
        return len(self._good)

    def _get(self, index: int) -> T:
        return self.items[self._good[index]]


class Usable(Generic[T]):
    """The first ``limit`` of ``items`` that are good, or all of them, in order, for passes from beginning to end.

    Nothing is made beforehand: ``len`` falls when a pass meets an item that raises DataError, which is added to
    ``skipped`` and not tried again. Raises DataError at the end of a pass where no item is good.

    Args:
        items, names: what is read, and what each is called in ``skipped``.
        skipped: where faults are noted; shared with whoever reports them.
    """

    def __init__(
        self, items: Sequence[T], names: Sequence[str], skipped: list[Skipped], limit: int | None = None
    ) -> None:
        self.items, self.names, self.skipped, self.limit = items, names, skipped, limit
        self._bad: dict[int, DataError] = {}

    def __len__(self) -> int:
        good = len(self.items) - len(self._bad)
        return good if self.limit is None else min(self.limit, good)

    def __iter__(self) -> Iterator[T]:
        given = 0
        for place in range(len(self.items)):
            if self.limit is not None and given >= self.limit:
                break
            if place in self._bad:
                continue
            try:
                sample = self.items[place]
            except DataError as error:
                self._bad[place] = error
                self.skipped.append(Skipped(self.names[place], error.what))
                continue
            given += 1
            yield sample
        if not given and self._bad:
            raise none_good(next(iter(self._bad.values())), len(self.items))


def none_good(fault: DataError, count: int) -> DataError:
    """The error for a data set in which nothing is good; ``fault`` is the first that was met."""
    if count == 1:
        return fault
    return DataError(f"none of {count} samples can be used; the first: {fault.what}", hint=fault.hint)
