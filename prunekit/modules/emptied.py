"""Dicts of tensors that modules hold, and whether forward fills them by itself or reads what was put there for it.

What an earlier forward left is of the widths of that time: a trace and a rehearsal run without it. A table that was
made with the model, of masks or indices, does not come back, and what reads it fails or, worse, goes another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

Place = tuple[str, str]  # a module's path and the name of its attribute


class Emptied(dict[Any, Any]):
    """Stands for a dict of tensors during one run: empty at first, and notes what is asked for that it held."""

    def __init__(self, held: Mapping[Any, Any]) -> None:
        super().__init__()
        self._held = held
        self._asked: set[Any] = set()
        self._asked_for_all = False

    @property
    def is_table(self) -> bool:
        """Whether forward asked for something that it did not put there itself."""
        filled = set(super().keys())
        return bool(self._asked - filled) or (self._asked_for_all and not filled)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self._noted(key))

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(self._noted(key))

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._noted(key), default)

    def pop(self, key: Any, *default: Any) -> Any:
        return super().pop(self._noted(key), *default)

    def __iter__(self) -> Iterator[Any]:
        self._asked_for_all = True
        return super().__iter__()

    def __len__(self) -> int:
        self._asked_for_all = True
        return super().__len__()

    def keys(self) -> Any:
        self._asked_for_all = True
        return super().keys()

    def values(self) -> Any:
        self._asked_for_all = True
        return super().values()

    def items(self) -> Any:
        self._asked_for_all = True
        return super().items()

    def _noted(self, key: Any) -> Any:
        if key in self._held:
            self._asked.add(key)
        return key


def holds_tensors(value: Any) -> bool:
    """Whether it is a dict that may be such a table or cache."""
    return type(value) is dict and any(isinstance(each, Tensor) for each in value.values())


def tables_met(modules: Iterable[tuple[str, nn.Module]]) -> set[Place]:
    """Where a run on emptied dicts has read what it did not put there."""
    return {
        (path, name)
        for path, module in modules
        for name, value in module.__dict__.items()
        if type(value) is Emptied and value.is_table
    }


def with_exchanged(value: Any, by: Mapping[int, Any]) -> Any:
    """``value`` with every tensor in dicts, lists and tuples exchanged by its id; the same object where none is."""
    if isinstance(value, Tensor):
        return by.get(id(value), value)
    if type(value) is dict:
        pairs = {key: with_exchanged(each, by) for key, each in value.items()}
        return pairs if any(pairs[key] is not value[key] for key in pairs) else value
    if type(value) not in (list, tuple):
        return value
    items = [with_exchanged(each, by) for each in value]
    return type(value)(items) if any(a is not b for a, b in zip(items, value, strict=True)) else value
