"""Verification 1: the pruned model is run on the meta device before it exists, and every shape is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest

from torch import Tensor, nn

from prunekit.coupling.structure import Structure
from prunekit.errors import VerificationError
from prunekit.graph.nodes import Op, Ref, Trace, packet
from prunekit.operators import TABLE
from prunekit.plans.contents import Plan
from prunekit.tracing.recorder import record
from prunekit.tracing.standin import AttributeKey


def rehearse(model: nn.Module, structure: Structure, plan: Plan, kept: Mapping[str, Tensor]) -> Trace:
    """Trace of the model as it will be. No weight is touched.

    Raises:
        TraceError: if the pruned model's forward would fail.
        VerificationError: if an operator would yield another shape than predicted.
    """
    shapes = structure.shapes(kept)
    sizes = {name: shapes.get(ref.id, ref.shape) for name, ref in structure.trace.state.items()}
    attributes: dict[AttributeKey, float] = {(e.module, e.attribute, e.index): e.after for e in plan.edits}
    trace = record(
        model,
        structure.inputs,
        sizes=sizes,
        attributes=attributes,
        opaque=tuple(structure.trace.opaque),
        brief=True,
        lists=structure.trace.lists,
        decisions=structure.trace.decisions,
        tables=structure.trace.tables,
    )
    shapes_agree(structure, shapes, trace)
    return trace


def shapes_agree(structure: Structure, predicted: Mapping[int, tuple[int, ...]], trace: Trace) -> None:
    """Checks a second trace against the predicted shapes of the first, operator by operator."""
    for before, after in _pairs(structure.trace, trace):
        if before is None or after is None or before.func is not after.func:
            raise VerificationError(
                f"the pruned model runs {after and after.func} where the original ran {before and before.func}",
                where=before.where if before else after.module if after else "",
                hint="the control flow depends on a width; exclude the groups of this module",
            )
        _check_strides(before, after)
        for old, new in zip(before.outputs, after.outputs, strict=True):
            want = predicted.get(old.id, old.shape)
            if want != new.shape:
                raise VerificationError(
                    f"{before.func} would yield shape {new.shape} where {want} is predicted",
                    where=before.where,
                    hint="exclude the groups of this module, and report the operator",
                )
    for old, new in zip(structure.trace.outputs, trace.outputs, strict=True):
        if predicted.get(old.id, old.shape) != new.shape:
            raise VerificationError(f"an output would change its shape from {old.shape} to {new.shape}")


def _check_strides(before: Op, after: Op) -> None:
    """Strides that forward asks for must be as large a part of the tensor's own as they were: none may be a number."""
    if packet(before) != "aten.as_strided":
        return
    old, new = before.args[0].strides, after.args[0].strides
    for was, now in zip(before.args[2], after.args[2], strict=True):
        # features that lie next to each other say nothing of how far apart lines are
        if was > 1 and not any(a > 1 and was * b == now * a for a, b in zip(old, new, strict=True)):
            raise VerificationError(
                f"a stride of {was} stays {now} where the tensor's own become {new}",
                where=before.where,
                hint="it is written as a number; exclude the groups of this module",
            )


def changed_scalars(before: Trace, after: Trace) -> list[tuple[Op, float, float]]:
    """Operators of the first trace whose float constant depends on a pruned width, with both values."""
    found = []
    for old, new in _pairs(before, after):
        if old is None or new is None:
            continue
        for a, b in zip(map(_number, old.args), map(_number, new.args), strict=False):
            if isinstance(a, float) and isinstance(b, float) and a != b:
                found.append((old, a, b))
    return found


def _number(argument: object) -> object:
    """A constant of one element as the number that it is."""
    if isinstance(argument, Ref) and argument.kind == "constant" and argument.value is not None:
        return float(argument.value) if argument.value.numel() == 1 and not argument.value.is_complex() else None
    return argument


def _pairs(before: Trace, after: Trace) -> Iterator[tuple[Op | None, Op | None]]:
    """Operators of both traces side by side, without those that only make constants (a model may do so once).

    Where an axis shrinks to a single unit torch shows a tensor in place that it would copy otherwise; such operators
    are left out where the two traces differ in them.
    """
    a = [op for op in before.ops if not op.is_constant]
    b = [op for op in after.ops if not op.is_constant]
    if [op.func for op in a] != [op.func for op in b]:
        a = [op for op in a if not TABLE.of(op).rearranges]
        b = [op for op in b if not TABLE.of(op).rearranges]
    return zip_longest(a, b)
