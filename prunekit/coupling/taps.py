"""Places where hooks can read the features that a role carries, found in the trace."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from prunekit.coupling.assembly import Assembly
from prunekit.coupling.coupler import Coupler
from prunekit.coupling.fates import Fates
from prunekit.coupling.groups import Group, Tap
from prunekit.graph.nodes import Ref, Trace


def find_taps(
    trace: Trace,
    coupler: Coupler,
    fates: Fates,
    assembly: Assembly,
    groups: Sequence[Group],
    wanted: Collection[int],
    where: Literal["written", "read"] = "written",
) -> tuple[Tap, ...]:
    """Inputs of leaf modules that read a sum of a wanted residual stream; outputs of modules that write another role.

    With ``where="read"``, of another role the inputs of modules that read it and do not hand it on. Every place is
    named once, in order of execution.
    """
    streams = {i for i in wanted if groups[i].role.stream}
    hidden = set(wanted) - streams
    writers = _writers(groups, hidden)
    taps: dict[Tap, None] = {}
    for call in trace.modules:
        if not call.is_leaf:
            continue
        reads_sum = bool(streams and call.inputs) and _is_sum(coupler, call.inputs[0])
        if reads_sum and _carries(call.inputs[0], coupler, fates, assembly) & streams:
            taps[Tap(call.module, "input")] = None
        if not call.outputs or call.module not in writers:
            continue
        before, after = (_carried(refs, coupler, fates, assembly) & hidden for refs in (call.inputs, call.outputs[:1]))
        if where == "written" and after - before:
            taps[Tap(call.module, "output")] = None
        elif where == "read" and before - after:
            taps[Tap(call.module, "input")] = None
    return tuple(taps)


def _writers(groups: Sequence[Group], wanted: Collection[int]) -> set[str]:
    return {m.tensor.rpartition(".")[0] for i in wanted for m in groups[i].members if not m.is_buffer}


def _carried(refs: Sequence[Ref], coupler: Coupler, fates: Fates, assembly: Assembly) -> set[int]:
    return {group for ref in refs for group in _carries(ref, coupler, fates, assembly)}


def _carries(ref: Ref, coupler: Coupler, fates: Fates, assembly: Assembly) -> set[int]:
    """Indices of the groups that the axes of a tensor belong to."""
    found: set[int] = set()
    for axis in coupler.of(ref):
        if axis is not None:
            units = np.unique(fates.owners[fates.fate[axis]])
            found |= {int(g) for g in np.unique(assembly.group_of[units[units >= 0]]) if g >= 0}
    return found


def _is_sum(coupler: Coupler, ref: Ref) -> bool:
    """Whether the tensor is the result of an addition, seen through views of it."""
    at = ref.id
    while at not in coupler.added and at in coupler.origin:
        at = coupler.origin[at]
    return at in coupler.added
