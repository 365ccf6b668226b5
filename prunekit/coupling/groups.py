"""The values that coupling yields: groups of units, and what runs through them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunekit.modules.absent import AFFINE, GIVEN, STREAM
from prunekit.modules.silencing import Addend
from prunekit.modules.unrouting import Route
from prunekit.roles import Role, named


@dataclass(frozen=True)
class Member:
    """One axis of one parameter or buffer that a group runs through.

    ``unit_of`` has shape (axis length,), int64: the unit that owns each coordinate, or -1 where the
    group does not reach; axes that are alike share it, so it is read only. A tied tensor appears once, under its first
    state name.
    """

    tensor: str
    axis: int
    unit_of: Tensor
    is_buffer: bool = False

    def coordinates(self, unit: int) -> Tensor:
        """Coordinates (int64, ascending) of ``unit`` on this axis."""
        return torch.nonzero(self.unit_of == unit).flatten()


@dataclass(frozen=True)
class Absence:
    """A module that goes, with what it holds, where its output only adds to a stream: zeros are returned in its place.

    ``form`` and ``leaves`` say what it returned, and how zeros are made of what it is given, ``typed`` which of its
    tensors answer for their type: see ``Absent`` in ``prunekit/modules/absent.py``. ``kept`` are the features that are
    left of an affine map whose stream the same plan cuts; none where it keeps all.
    """

    module: str
    form: str
    leaves: tuple[str, ...]
    typed: tuple[str, ...] = ()
    kept: tuple[int, ...] = ()

    @property
    def hands_on(self) -> bool:
        """Whether it returns what it is given."""
        return self.leaves[:1] == (GIVEN,)

    @property
    def has_map(self) -> bool:
        """Whether an affine map stands in its place."""
        return self.leaves[:1] != () and self.leaves[0].partition(":")[0] in (AFFINE, STREAM)


@dataclass(frozen=True)
class Branch:
    """A residual branch: ``place`` is its last module with weights, ``term`` what it adds, ``modules`` what goes.

    ``kept`` are places of outputs that it alone writes and reads: its part of a cache.
    """

    place: str
    role: Role
    term: Addend
    modules: tuple[Absence, ...]
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Interchangeable units: one width of the network.

    Attributes:
        name: ``tensor:axis`` of the first parameter that the units own, e.g. ``fc1.weight:0``.
        role: what the group is for; one of ``prunekit/roles.py``, or a plug-in's.
        size: number of units before pruning.
        members: every parameter axis and buffer axis that shrinks with the group.
        normalised: whether a reduction over the units (a norm, softmax or mean) reads the group, so that
            removing a unit is not the same as masking it.
        block: module path of the residual block or module that owns the group's first member; groups of one
            architecture position in different blocks share the role and differ in the block.
        stacks: of the members' tensors those that hold experts one after the other, without what routes to them.
        least: fewest units that may be left: as many as forward chooses among, and one at least.
        places: of a group of whole modules the path of each unit; empty for widths.
        branches: of a group of residual branches what each unit is.
        routes: of a group of experts that are entries of a list how each is chosen.
    """

    name: str
    role: Role
    size: int
    members: tuple[Member, ...]
    normalised: bool = False
    block: str = ""
    least: int = 1
    stacks: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    branches: tuple[Branch, ...] = ()
    routes: tuple[Route, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "role", named(self.role))

    @property
    def passages(self) -> tuple[str | Addend | Route, ...]:
        """What is passed by without each unit of depth: a block by its path, a term of a sum, a way to an expert."""
        return self.routes or tuple(branch.term for branch in self.branches) or self.places

    @property
    def parameters(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if not m.is_buffer)


@dataclass(frozen=True)
class Frozen:
    """A width that cannot be pruned, and why."""

    name: str
    size: int
    reason: str
    where: str = ""


@dataclass(frozen=True)
class Tie:
    """Groups that must keep equal counts, and the reason."""

    groups: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Tap:
    """A place where a feature can be read by a hook: the first positional input or the output of a module."""

    module: str
    side: str  # "input" or "output"
