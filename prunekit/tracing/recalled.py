"""Tensors that a model returns to be given back at its next call, found by what a trace shows, not by their names."""

from __future__ import annotations

from collections.abc import Collection

from prunekit.graph.nodes import Op, Ref, Trace, packet

_SAME_VALUES = {  # what hands on the values of the one tensor that it reads
    "aten.alias",
    "aten.clone",
    "aten.detach",
    "aten.expand",
    "aten.permute",
    "aten.squeeze",
    "aten.t",
    "aten.transpose",
    "aten._to_copy",
    "aten.unsqueeze",
    "aten._unsafe_view",
    "aten.view",
}


def recalled_outputs(trace: Trace, optional: Collection[int]) -> tuple[Ref, ...]:
    """Outputs of which attention reads keys or values, or that continue a tensor of an ``optional`` argument.

    Keys and values are the second factor of a product of two computed tensors, and no such product's first: weights of
    an attention and queries are. What continues an input is a concatenation with it. None of a model without arguments
    that forward can do without.
    """
    if not trace.takes:
        return ()
    makers = {ref.id: op for op in trace.ops for ref in op.outputs}
    products = [op for op in trace.ops if packet(op) == "aten.bmm" and len(op.inputs) == 2]
    first, second = ({_origin(op.inputs[at], makers).id for op in products} for at in (0, 1))
    found = {}
    for ref in trace.outputs:
        origin = _origin(ref, makers)
        maker = makers.get(origin.id)
        is_read = maker is not None and origin.id in second - first
        if is_read or (maker is not None and _continues(maker, makers, optional)):
            found[ref.id] = ref
    return tuple(found.values())


def continued_places(trace: Trace, optional: Collection[int]) -> set[str]:
    """Places of outputs that are concatenations with a tensor of an ``optional`` argument."""
    makers = {ref.id: op for op in trace.ops for ref in op.outputs}
    origins = {place: _origin(ref, makers).id for place, ref in zip(trace.places, trace.outputs, strict=True)}
    made = {place: makers[origin] for place, origin in origins.items() if origin in makers}
    return {place for place, op in made.items() if _continues(op, makers, optional)}


def _continues(op: Op, makers: dict[int, Op], optional: Collection[int]) -> bool:
    return packet(op) == "aten.cat" and any(_origin(ref, makers).id in optional for ref in op.inputs)


def _origin(ref: Ref, makers: dict[int, Op]) -> Ref:
    """The tensor whose values these are: itself, or what it is a view or a scaled copy of."""
    while (op := makers.get(ref.id)) is not None:
        is_scaled = packet(op) == "aten.mul" and len(op.inputs) == 1
        if not is_scaled and packet(op) not in _SAME_VALUES:
            return ref
        ref = op.inputs[0]
    return ref
