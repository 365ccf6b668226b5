"""Verification 1: the pruned model is run on the meta device before it exists, and every shape is compared."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from prunekit.coupling.structure import Structure
from prunekit.errors import VerificationError
from prunekit.plan import Edit, Plan
from prunekit.trace.record import Trace
from prunekit.trace.recorder import record
from prunekit.trace.standin import AttributeKey


def rehearse(model: nn.Module, structure: Structure, plan: Plan, kept: Mapping[str, Tensor]) -> Trace:
    """Trace of the model as it will be. No weight is touched.

    Raises:
        TraceError: if the pruned model's forward would fail.
        VerificationError: if an operator would yield another shape than predicted.
    """
    shapes = structure.shapes(structure.alive(kept))
    sizes = {name: shapes[ref.id] for name, ref in structure.trace.state.items()}
    attributes: dict[AttributeKey, int] = {(e.module, e.attribute, e.index): e.after for e in plan.edits}
    trace = record(model, structure.inputs, sizes=sizes, attributes=attributes)
    compare(structure, shapes, trace)
    return trace


def compare(structure: Structure, predicted: Mapping[int, tuple[int, ...]], trace: Trace) -> None:
    """Checks a second trace against the predicted shapes of the first, operator by operator."""
    for before, after in zip(structure.trace.ops, trace.ops, strict=False):
        if before.func is not after.func:
            raise VerificationError(
                f"the pruned model runs {after.func} where the original ran {before.func}",
                where=after.where,
                hint="the control flow depends on a width; exclude the groups of this module",
            )
        for old, new in zip(before.outputs, after.outputs, strict=True):
            want = predicted.get(old.id, old.shape)
            if want != new.shape:
                raise VerificationError(
                    f"{before.func} would yield shape {new.shape} where {want} is predicted",
                    where=after.where,
                    hint="exclude the groups of this module, and report the operator",
                )
    if len(structure.trace.ops) != len(trace.ops):
        raise VerificationError(
            f"the pruned model runs {len(trace.ops)} operators, the original {len(structure.trace.ops)}",
            hint="the control flow depends on a width; exclude the groups that decide it",
        )
    for old, new in zip(structure.trace.outputs, trace.outputs, strict=True):
        if old.shape != new.shape:
            raise VerificationError(f"an output would change its shape from {old.shape} to {new.shape}")


def changed_scalars(before: Trace, after: Trace) -> list[tuple[int, float, float]]:
    """Operators whose float constant depends on a pruned width, as (operator number, before, after)."""
    found = []
    for number, (old, new) in enumerate(zip(before.ops, after.ops, strict=True)):
        for a, b in zip(old.args, new.args, strict=False):
            if isinstance(a, float) and isinstance(b, float) and a != b:
                found.append((number, a, b))
    return found


__all__ = ["Edit", "changed_scalars", "compare", "rehearse"]
