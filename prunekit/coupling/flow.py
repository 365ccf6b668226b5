"""Who makes and who reads every value of a trace: what leads to what, and what is read for one thing alone."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from prunekit.graph.nodes import Op, Ref, Trace

Value = tuple[int, int]  # a tensor by id, and how often it was written over before


@dataclass(frozen=True, eq=False)
class Flow:
    """Operators by number, and the values between them.

    Attributes:
        reads, makes: the values of every operator.
        maker: the operator that makes a value.
        readers: the operators that read a value.
        kept: values that the model returns, that Python reads or that stay in a buffer.
    """

    ops: tuple[Op, ...]
    reads: tuple[tuple[Value, ...], ...]
    makes: tuple[tuple[Value, ...], ...]
    maker: dict[Value, int]
    readers: dict[Value, list[int]]
    kept: set[Value]

    @classmethod
    def of(cls, trace: Trace, own: Collection[str]) -> Flow:
        """``own`` are places of outputs that do not count, such as a cache."""
        version: dict[int, int] = {}
        reads, makes = [], []
        maker: dict[Value, int] = {}
        readers: dict[Value, list[int]] = {}
        kept: set[Value] = set()
        state = {ref.id for ref in trace.state.values()}
        for number, op in enumerate(trace.ops):
            read = tuple((ref.id, version.get(ref.id, 0)) for ref in op.inputs)
            made = []
            before = {ref.id for ref in op.inputs}
            for ref in op.outputs:
                if ref.id in before:
                    version[ref.id] = version.get(ref.id, 0) + 1
                made.append((ref.id, version.get(ref.id, 0)))
            for value in dict.fromkeys(read):
                readers.setdefault(value, []).append(number)
            for value in made:
                maker[value] = number
            kept.update(value for value in made if value[0] in state)
            reads.append(read)
            makes.append(tuple(made))
        left = [ref for ref, at in zip(trace.outputs, trace.places, strict=True) if at not in own]
        kept |= {(ref.id, version.get(ref.id, 0)) for ref in (*left, *trace.reads)}
        return cls(tuple(trace.ops), tuple(reads), tuple(makes), maker, readers, kept)

    @cached_property
    def unread(self) -> frozenset[int]:
        """Operators whose results nothing reads."""
        return frozenset(
            number
            for number, made in enumerate(self.makes)
            if not any(value in self.kept or self.readers.get(value) for value in made)
        )

    def onward(self, value: Value, last: int) -> set[int]:
        """The operators up to ``last`` that ``value`` leads to."""
        found: set[int] = set()
        waiting = list(self.readers.get(value, ()))
        while waiting:
            number = waiting.pop()
            if number <= last and number not in found:
                found.add(number)
                waiting += [reader for made in self.makes[number] for reader in self.readers.get(made, ())]
        return found

    def only_for(self, value: Value, reader: int) -> set[int]:
        """The operators whose results are read for nothing but ``value``, which ``reader`` alone reads."""
        found: set[int] = set()
        waiting = [value]
        while waiting:
            number = self.maker.get(waiting.pop())
            if number is None or number in found or any(made in self.kept for made in self.makes[number]):
                continue
            read_by = {made: set(self.readers.get(made, ())) for made in self.makes[number]}
            users = {user for made, every in read_by.items() for user in every - ({reader} if made == value else set())}
            if users <= found | self.unread:
                found.add(number)
                waiting += self.reads[number]
        return found

    def root(self, value: Value) -> Value:
        """What a value is a view, a cast or a multiple of: back through operators of one tensor that keep its size."""
        while (number := self.maker.get(value)) is not None:
            op, read = self.ops[number], set(self.reads[number])
            if len(read) != 1 or len(op.outputs) != 1 or _places_in(op.inputs[0]) != _places_in(op.outputs[0]):
                break
            value = read.pop()
        return value


def _places_in(ref: Ref) -> int:
    return math.prod(ref.shape)


def and_above(paths: Iterable[str]) -> Iterator[str]:
    """Each path and all that it lies in, but for the whole model."""
    for path in paths:
        while path:
            yield path
            path = path.rpartition(".")[0]
