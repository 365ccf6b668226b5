"""From fates to groups: units with the same footprint in the parameters form one width of the network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from prunekit.coupling.coupler import Coupler
from prunekit.coupling.fates import Fates
from prunekit.coupling.groups import Frozen, Group, Member
from prunekit.labels.vectors import Vector
from prunekit.roles import ROLES, Role, told_by


@dataclass(frozen=True, eq=False)
class _Axis:
    """One labelled axis of a state tensor, with the owners (length, n) of its coordinates.

    Axes whose coordinates are alike hold the very same arrays, so that what follows from them is found once.
    """

    tensor: str
    axis: int
    is_buffer: bool
    labels: Vector
    owners: Vector


@dataclass(frozen=True, eq=False)
class Assembly:
    """Groups, what is frozen, and for each class of coordinates the group and unit indices it belongs to."""

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    group_of: Vector  # (classes,) index into groups of a unit class, -1 otherwise
    unit_of: Vector  # (classes,) index of the unit inside its group


def assemble(coupler: Coupler, fates: Fates, roles: Sequence[Role] = ROLES) -> Assembly:
    """Groups and frozen widths out of the fates of all coordinates."""
    axes = _state_axes(coupler, fates)
    signature, order = _footprints(axes, fates)
    flags = _flags(coupler, fates)
    buckets = _buckets(signature, order)
    groups: list[Group] = []
    frozen: list[Frozen] = []
    group_of = np.full(fates.frozen.size, -1, dtype=np.int64)
    unit_of = np.full(fates.frozen.size, -1, dtype=np.int64)
    position = np.full(fates.frozen.size + 1, -1, dtype=np.int64)  # the last entry is for owner -1: no unit
    names: set[str] = set()
    read = _read(coupler)
    by_unit = _axes_by_unit(axes, [int(members[0]) for members in buckets], fates.frozen.size)
    for members_of in buckets:
        inside = by_unit[int(members_of[0])]
        position[members_of] = np.arange(len(members_of))
        uses = flags.of(members_of)
        if uses >= {"chosen", "stacked"}:  # a stack of matrices, all applied, and some of the results chosen
            uses.add("experts")
        group = _group(len(members_of), inside, position, told_by(uses, roles), "normalised" in uses, names)
        if "experts" in uses:
            group = replace(group, stacks=_stacks(coupler, fates, group, members_of))
        position[members_of] = -1
        if len(members_of) < 2:
            frozen.append(Frozen(group.name, len(members_of), "it consists of a single unit"))
        elif not uses & {"linear", "conv"}:
            unread = all(axis.tensor not in read for axis in inside)
            reason = "forward does not read it" if unread else "no weight matrix reads or writes it"
            frozen.append(Frozen(group.name, len(members_of), reason))
        else:
            group_of[members_of] = len(groups)
            unit_of[members_of] = np.arange(len(members_of))
            groups.append(group)
            names.add(group.name)
    frozen += _frozen_axes(axes, fates)
    least = _least(coupler, fates, group_of, [group.size for group in groups])
    groups = [replace(group, least=least[k]) if k in least else group for k, group in enumerate(groups)]
    return Assembly(tuple(groups), tuple(frozen), group_of, unit_of)


def _stacks(coupler: Coupler, fates: Fates, group: Group, units: Vector) -> tuple[str, ...]:
    """Parameters of experts, in the order of the members: those picked from, and those first read after the choice."""
    made = {out.id: number for number, op in enumerate(coupler.trace.ops) for out in op.outputs}
    picks = [
        p for p in coupler.choices if p.positions in made and np.isin(fates.owners[fates.fate[p.axis]], units).any()
    ]
    chosen_at = min((made[pick.positions] for pick in picks), default=len(coupler.trace.ops))
    before = {ref.id for op in coupler.trace.ops[:chosen_at] for ref in op.inputs}
    names = {ref.name for ref in coupler.trace.state.values() if ref.id not in before} | coupler.stacks
    return tuple(m.tensor for m in group.parameters if m.tensor in names)


def _least(coupler: Coupler, fates: Fates, group_of: Vector, sizes: Sequence[int]) -> dict[int, int]:
    """Fewest units of each group, by its index, for which enough is left to choose from."""
    found: dict[int, int] = {}
    for choice in coupler.choices:
        owners = np.unique(fates.owners[fates.fate[choice.axis]])
        for group in set(group_of[owners[owners >= 0]].tolist()) - {-1}:
            each = max(1, choice.axis.size // sizes[group])  # positions that a unit owns
            found[group] = max(found.get(group, 1), -(-choice.count // each))
    return found


def _read(coupler: Coupler) -> set[str]:
    """Names of the state tensors that an operator reads."""
    seen = {ref.id for op in coupler.trace.ops for ref in op.inputs}
    return {name for name, ref in coupler.trace.state.items() if ref.id in seen}


def _state_axes(coupler: Coupler, fates: Fates) -> list[_Axis]:
    found = []
    alike: dict[bytes, tuple[Vector, Vector]] = {}
    for name, ref in coupler.trace.state.items():
        for k, vector in enumerate(coupler.of(ref)):
            if vector is not None:
                classes = fates.fate[vector]
                key = hashlib.blake2b(classes.tobytes(), digest_size=16).digest()
                if key not in alike:
                    alike[key] = classes, fates.owners[classes]
                found.append(_Axis(name, k, ref.kind == "buffer", *alike[key]))
    return found


def _mix(numbers: Sequence[int], b: Vector) -> Vector:
    """The sum of 64-bit hashes of (axis number, count), so that footprints can be summed without Python loops."""
    starts = np.array([(a + 1) * 0xBF58476D1CE4E5B9 % 2**64 for a in numbers], dtype=np.uint64).reshape(-1, 1)
    with np.errstate(over="ignore"):
        x = b.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + starts
        x = (x ^ (x >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
        return np.asarray((x ^ (x >> np.uint64(29))).astype(np.int64).sum(0), dtype=np.int64)


def _mixed(numbers: Sequence[int], counts: Vector) -> Vector:
    """``_mix``, once where all counts are the same."""
    return _mix(numbers, counts[:1]) if (counts == counts[0]).all() else _mix(numbers, counts)


def _occurrences(units: Vector) -> tuple[Vector, Vector, Vector]:
    """Distinct units, where each is first met, and how often."""
    steps = units[1:] - units[:-1]
    if steps.min(initial=0) >= 0:  # the common case: in order, so that nothing has to be sorted
        starts = np.append(0, np.nonzero(steps)[0] + 1)
        return units[starts], starts, np.diff(starts, append=units.size)
    return np.unique(units, return_index=True, return_counts=True)


def _footprints(axes: list[_Axis], fates: Fates) -> tuple[Vector, Vector]:
    """For each unit class: a hash of the axes it occupies, with counts, and where it is first met."""
    count = fates.frozen.size
    signature = np.zeros(count, dtype=np.int64)
    order = np.full(count, np.iinfo(np.int64).max, dtype=np.int64)
    offsets = np.cumsum([0, *(axis.labels.size for axis in axes)]).tolist()
    alike: dict[int, list[int]] = {}
    for number, axis in enumerate(axes):
        alike.setdefault(id(axis.owners), []).append(number)
    for numbers in alike.values():
        owners = axes[numbers[0]].owners
        for k in range(owners.shape[1]):
            column = owners[:, k]
            held = np.nonzero(column >= 0)[0]
            if held.size == 0:
                continue
            units, first, counts = _occurrences(column[held])
            signature[units] += _mixed(numbers, counts)
            order[units] = np.minimum(order[units], offsets[numbers[0]] + held[first])
    used = order != np.iinfo(np.int64).max
    with np.errstate(over="ignore"):
        signature[used] += _mix([-1], fates.family[used])
    signature[used & (signature == 0)] = 1
    signature[~used] = 0
    return signature, order


def _buckets(signature: Vector, order: Vector) -> list[Vector]:
    """Unit classes of equal footprint, each bucket and the list of buckets in the order of first appearance."""
    units = np.nonzero(signature)[0]
    if not units.size:
        return []
    units = units[np.argsort(order[units], kind="stable")]
    by_signature = np.argsort(signature[units], kind="stable")
    ordered = signature[units][by_signature]
    parts = np.split(by_signature, np.nonzero(np.diff(ordered))[0] + 1)
    return [units[part] for part in sorted(parts, key=lambda part: int(part[0]))]


@dataclass(frozen=True, eq=False)
class _Flags:
    """How each unit class is used: one bit a flag."""

    bits: Vector
    names: tuple[str, ...]

    def of(self, units: Vector) -> set[str]:
        held = int(np.bitwise_or.reduce(self.bits[units]))
        return {name for k, name in enumerate(self.names) if held >> k & 1}


def _flags(coupler: Coupler, fates: Fates) -> _Flags:
    names = tuple(dict.fromkeys(name for _, name in coupler.labels.flags))
    bits = np.zeros(fates.frozen.size + 1, dtype=np.int64)  # owner -1 points at the last entry
    done: set[tuple[int, str]] = set()
    for vector, name in coupler.labels.flags:
        if (id(vector), name) not in done:
            done.add((id(vector), name))
            bits[fates.owners[fates.fate[vector]].reshape(-1)] |= 1 << names.index(name)
    return _Flags(bits, names)


def _axes_by_unit(axes: list[_Axis], units: list[int], count: int) -> dict[int, list[_Axis]]:
    """For each of ``units`` the axes on which it owns coordinates."""
    found: dict[int, list[_Axis]] = {unit: [] for unit in units}
    wanted = np.zeros(count + 1, dtype=bool)
    wanted[units] = True
    held: dict[int, set[int]] = {}
    for axis in axes:
        if id(axis.owners) not in held:
            held[id(axis.owners)] = set(axis.owners[wanted[axis.owners]].tolist())
        for unit in held[id(axis.owners)]:
            found[unit].append(axis)
    return found


def _group(size: int, axes: list[_Axis], position: Vector, role: Role, normalised: bool, names: set[str]) -> Group:
    members = []
    units: dict[int, torch.Tensor] = {}
    for axis in axes:
        if id(axis.owners) not in units:
            unit_of = position[axis.owners]  # of its owners one at most is of this group
            unit_of = unit_of[:, 0] if unit_of.shape[1] == 1 else unit_of.max(axis=1)
            units[id(axis.owners)] = torch.from_numpy(unit_of)
        members.append(Member(axis.tensor, axis.axis, units[id(axis.owners)], axis.is_buffer))
    first = _namesake(members)
    name = f"{first.tensor}:{first.axis}"
    if role.startswith("attention.") or name in names:
        name = f"{name}/{role.rsplit('.', 1)[-1]}"
    number, base = 2, name
    while name in names:
        name, number = f"{base}#{number}", number + 1
    block = first.tensor.rpartition(".")[0]
    return Group(name, role, size, tuple(members), normalised, block)


def _namesake(members: list[Member]) -> Member:
    """The output axis of the first weight matrix, else the first parameter."""
    matrices = [m for m in members if not m.is_buffer and m.axis == 0 and "weight" in m.tensor]
    return next(iter(matrices), next((m for m in members if not m.is_buffer), members[0]))


def _frozen_axes(axes: list[_Axis], fates: Fates) -> list[Frozen]:
    """Output axes of weight matrices that cannot shrink, with the first reason that was found."""
    found = []
    for axis in axes:
        if axis.axis != 0 or axis.is_buffer or "weight" not in axis.tensor:
            continue
        held = fates.frozen[axis.labels]
        if held.any():
            reason, where = fates.reasons.of(int(axis.labels[held][0])) or ("it is joined with a frozen width", "")
            found.append(Frozen(f"{axis.tensor}:{axis.axis}", int(held.sum()), reason, where))
    return found
