"""What a trace shows of its modules: how often they run, what they hold, and what zeros could stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from prunekit.coupling.blocks import is_inside
from prunekit.coupling.coupler import Coupler
from prunekit.coupling.flow import Flow, and_above
from prunekit.coupling.groups import Absence
from prunekit.graph.nodes import ModuleCall, Op, Ref, Trace, packet
from prunekit.modules.absent import GIVEN, LIKE, NONE
from prunekit.modules.silencing import is_sum
from prunekit.roles import ATTENTION_BRANCH, MLP_BRANCH, OTHER_BRANCH, Role

_ATTENDS = "scaled_dot_product"


class Facts:
    """What a trace shows of modules, and what its operators are."""

    def __init__(self, trace: Trace, coupler: Coupler, flow: Flow) -> None:
        self.trace, self.coupler, self.flow = trace, coupler, flow
        self.ordinals: dict[int, int] = {}
        counts = Counter[str]()
        for number, op in enumerate(flow.ops):
            if is_sum(op.func, op.args, lambda x: x.shape if isinstance(x, Ref) else None):
                self.ordinals[number] = counts[op.module]
                counts[op.module] += 1
        self.sums = [n for n in self.ordinals if not flow.ops[n].is_constant]
        self.numbers = frozenset(self.sums)

    @cached_property
    def calls(self) -> Mapping[str, list[ModuleCall]]:
        found: dict[str, list[ModuleCall]] = {}
        for call in self.trace.modules:
            found.setdefault(call.module, []).append(call)
        return found

    def calls_of(self, path: str) -> int:
        """How often a module runs."""
        return len(self.calls.get(path, ()))

    @cached_property
    def sizes(self) -> Counter[str]:
        """How many operators run in each module whose results are read."""
        every = (op.module for number, op in enumerate(self.flow.ops) if number not in self.flow.unread)
        return Counter(and_above(every))

    @cached_property
    def states(self) -> Mapping[str, list[Ref]]:
        """Parameters and buffers of each module."""
        found: dict[str, list[Ref]] = {}
        for ref in self.trace.state.values():
            for path in and_above([ref.name.rpartition(".")[0]]):
                found.setdefault(path, []).append(ref)
        return found

    @cached_property
    def readers(self) -> Mapping[int, set[str]]:
        """Modules that read each parameter and buffer."""
        found: dict[int, set[str]] = {ref.id: set() for ref in self.trace.state.values()}
        for op in self.flow.ops:
            for ref in op.inputs:
                if ref.id in found:
                    found[ref.id].add(op.module)
        return found

    def has_weights(self, numbers: Iterable[int]) -> bool:
        """Whether one of these operators multiplies with a weight."""
        return any(self._factors(self.flow.ops[number]) for number in numbers)

    def weighs(self, path: str) -> bool:
        """Whether a module holds a matrix."""
        return any(len(ref.shape) > 1 for ref in self.states.get(path, ()))

    def _factors(self, op: Op) -> list[Ref]:
        product = self.coupler.table.of(op).product
        costs = None if product is None else product(op)
        return [] if costs is None else [ref for ref in costs.factors if ref.id in self.coupler.weights]

    def role(self, numbers: Iterable[int]) -> Role:
        """Attention multiplies what it computed with what it computed; linear layers alone make an MLP."""
        ops = [self.flow.ops[number] for number in numbers]
        products = [op for op in ops if self.coupler.table.of(op).product is not None]
        if any(_ATTENDS in packet(op) or not self._factors(op) for op in products):
            return ATTENTION_BRANCH
        return OTHER_BRANCH if any("conv" in packet(op) for op in products) else MLP_BRANCH

    def removable(self, alone: Collection[int], home: str) -> Iterator[Absence]:
        """The outermost modules that run for the operators ``alone``, hold something, and whose zeros can be made."""
        numbers = sorted(set(alone) - self.flow.unread)
        inside = Counter(and_above(self.flow.ops[n].module for n in numbers))
        done: set[str] = set()
        for number in numbers:
            best: Absence | None = None
            for path in and_above([self.flow.ops[number].module]):
                whole = inside[path] == self.sizes[path] and self.calls_of(path) == 1
                if whole and self.states.get(path) and (not home or path.startswith(f"{home}.")):
                    best = self._gone(path) or best
            if best is not None and best.module not in done:
                done.add(best.module)
                yield best

    def _gone(self, path: str) -> Absence | None:
        """How zeros are made in the place of what a module returns; None where they cannot be."""
        (call,) = self.calls[path]
        if not call.form or path in self.trace.opaque:
            return None
        form, *entries = call.form if len(call.form) > 1 else (*call.form, "tensor")
        outputs, leaves = iter(call.outputs), list[str]()
        for entry in entries:
            leaf = NONE if entry == "none" else self._leaf(path, next(outputs), call.given)
            if leaf is None:
                return None
            leaves.append(leaf)
        return Absence(path, form, tuple(leaves))

    def _leaf(self, path: str, made: Ref, given: Sequence[Ref]) -> str | None:
        """By the first tensor alone: which of the others are there may differ from call to call."""
        if not given:
            return None
        like = given[0]
        if made is like:
            return GIVEN
        maker = self.flow.maker.get((made.id, 0))
        if maker is None or not is_inside(self.flow.ops[maker].module, [path]):
            return None
        if not any(value[0] == made.id for value in self.flow.readers):
            return NONE  # nobody reads it, as weights of an attention
        if like.dtype != made.dtype or len(like.shape) != len(made.shape):
            return None
        apart = [axis for axis, (a, b) in enumerate(zip(like.shape, made.shape, strict=True)) if a != b]
        if apart and apart != [len(made.shape) - 1] and (apart != [1] or len(made.shape) == 2):
            return None
        return f"{LIKE}:{apart[0]}={made.shape[apart[0]]}" if apart else LIKE

    def read_outside(self, path: str) -> str:
        """A module outside ``path`` that reads a tensor of it; empty where none does."""
        for ref in self.states[path]:
            for reader in sorted(self.readers[ref.id]):
                if not is_inside(reader, [path]):
                    return reader or "the model"
        return ""
