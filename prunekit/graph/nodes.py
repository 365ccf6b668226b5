"""What a trace consists of: tensors, operators, Python calls and module calls, in order of execution."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ref:
    """A tensor seen during the trace.

    ``kind`` is ``parameter``, ``buffer``, ``input``, ``constant`` or ``computed``; ``name`` is the state name of
    parameters and buffers. ``value`` holds the real content of small tensors that do not depend on float inputs
    or weights (masks, index tables), None otherwise. ``strides`` are those of the trace, in elements.
    """

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: str
    name: str = ""
    value: Tensor | None = None
    strides: tuple[int, ...] = ()


@dataclass(eq=False)
class Call:
    """One call of a C-level torch function: its Python arguments, with tensors replaced by Refs.

    ``args`` and ``kwargs`` keep traced ints as they were passed, before they became C ints.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Ref, ...] = ()
    module: str = ""
    source: str = ""

    def argument(self, position: int, name: str) -> Any:
        """What was passed at a place or by a name; None where nothing was."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name)


@dataclass(frozen=True, eq=False)
class Op:
    """One ATen operator with its arguments (tensors replaced by Refs), the tensors among them, and its outputs."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Ref, ...]
    call: Call | None
    module: str
    source: str
    inputs: tuple[Ref, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether it only makes constants, which a model may do once and keep."""
        return all(r.kind == "constant" for r in self.outputs)

    @property
    def where(self) -> str:
        return " ".join(part for part in (self.module, self.source) if part)


def packet(op: Op) -> str:
    """``aten.add`` for ``aten.add.Tensor``; the in-place variant ``aten.add_`` reads as ``aten.add``."""
    return _packet_of(op.func)


@functools.cache
def _packet_of(func: Any) -> str:
    name = str(func.overloadpacket)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One execution of a module: the tensors that its first positional argument and its output hold.

    ``given`` are the tensors of all its arguments, keywords last. ``form`` says what the output is: ``tensor``, or
    ``tuple`` or ``list`` and then ``tensor`` or ``none`` for each entry; empty for anything else.
    """

    module: str
    is_leaf: bool
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    given: tuple[Ref, ...] = ()
    form: tuple[str, ...] = ()


@dataclass(eq=False)
class Trace:
    """One forward pass: operators and calls in order, state tensors by name, the model's outputs and their places.

    ``attributes`` are the int attributes that were traced, ``agreed`` pairs of int expressions that the model's code
    compared and found equal. ``containers`` has the names of the entries of every list or sequence of modules, by its
    path. ``opaque`` names modules that were followed from the outside only, and why. ``sizes`` has
    the shape of every tensor by id. ``lists`` tells whether a list of numbers was an index. ``decisions`` are the
    values that forward read, where it was followed on real numbers, ``reads`` the tensors that they were read from.
    ``takes`` are the arguments that forward can do without, ``optional`` the ids of tensors that were given for them.
    ``tables`` are the dicts of tensors, by module and attribute, that forward reads and does not fill itself.
    ``recalled`` are outputs that are made to be given back, by what the operators show.
    """

    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    modules: list[ModuleCall] = field(default_factory=list)
    state: dict[str, Ref] = field(default_factory=dict)
    outputs: tuple[Ref, ...] = ()
    places: tuple[str, ...] = ()
    attributes: dict[tuple[str, str, int | None], int] = field(default_factory=dict)
    agreed: list[tuple[Any, Any]] = field(default_factory=list)
    opaque: dict[str, str] = field(default_factory=dict)
    sizes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    containers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lists: bool = False
    decisions: tuple[tuple[str, Any], ...] = ()
    reads: list[Ref] = field(default_factory=list)
    takes: tuple[str, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()
    optional: frozenset[int] = frozenset()
    recalled: tuple[Ref, ...] = ()

    @property
    def caches(self) -> tuple[Ref, ...]:
        """Tensors that the model returns to be given back: those that are ``named``, else those ``recalled``."""
        return self.named or self.recalled

    @property
    def named(self) -> tuple[Ref, ...]:
        """Tensors that the model returns by the name of an argument that it can do without."""
        named = zip(self.outputs, self.places, strict=True)
        return tuple({ref.id: ref for ref, place in named if place.partition(".")[0] in self.takes}.values())
