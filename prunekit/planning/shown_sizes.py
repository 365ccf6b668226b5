"""Sizes that torch's own layers only display, such as ``in_features``: kept true though forward reads none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from prunekit.coupling.lengths import Lengths
from prunekit.coupling.structure import Structure
from prunekit.graph.nodes import Ref
from prunekit.modules.attention import NarrowAttention
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.plans.contents import Cut, Edit

_BY_STATE = {
    "out_features": ("weight", 0),
    "in_features": ("weight", 1),
    "in1_features": ("weight", 1),
    "in2_features": ("weight", 2),
    "num_features": ("running_mean", 0),
    "num_channels": ("weight", 0),
    "embedding_dim": ("weight", 1),
    "input_size": ("weight_ih", 1),
    "kdim": ("k_proj_weight", 1),
    "vdim": ("v_proj_weight", 1),
}
# Where no state tensor of a layer shows the width, as in a parametrized layer or a norm without weights: the tensor
# that goes in or comes out, and its axis.
_BY_CALL: tuple[tuple[type[nn.Module], dict[str, tuple[str, int]]], ...] = (
    (nn.Linear, {"in_features": ("inputs", -1), "out_features": ("outputs", -1)}),
    (nn.Embedding, {"embedding_dim": ("outputs", -1)}),
    (nn.modules.batchnorm._NormBase, {"num_features": ("inputs", 1)}),
    (nn.GroupNorm, {"num_channels": ("inputs", 1)}),
)


def displayed(
    model: nn.Module, structure: Structure, lengths: Lengths, cuts: list[Cut], edits: list[Edit]
) -> list[Edit]:
    """Edits of displayed sizes that ``edits`` leaves as they are."""
    modules = named_modules(model)
    found = _shown_by_state(model, modules, cuts, {(e.module, e.attribute): int(e.after) for e in edits})
    known = {(e.module, e.attribute) for e in (*edits, *found)}
    found += _shown_by_calls(dict(modules), structure, lengths, known)
    return found + _derived(modules, {(e.module, e.attribute): int(e.after) for e in (*edits, *found)})


def _shown_by_state(
    model: nn.Module, modules: list[tuple[str, nn.Module]], cuts: list[Cut], done: Mapping[tuple[str, str], int]
) -> list[Edit]:
    found = []
    cut = {(c.tensor, c.axis): (c.size, len(c.kept)) for c in cuts}
    first_name = {id(tensor): name for name, tensor in state_tensors(model, modules).items()}  # of tied tensors
    cut_tensors = {tensor for tensor, _ in cut}
    for path, module in sorted(modules, key=lambda item: item[0]):
        # not by getattr: a parametrized weight would be computed, which in training may change the model
        own = {**module._parameters, **module._buffers}
        if not any(first_name.get(id(t)) in cut_tensors for t in own.values() if t is not None):
            continue
        table = dict(_BY_STATE)
        scale = {}
        if isinstance(module, nn.modules.conv._ConvNd):
            before, after = module.groups, done.get((path, "groups"), module.groups)
            shared = "out_channels" if module.transposed else "in_channels"
            other = "in_channels" if module.transposed else "out_channels"
            table = {shared: ("weight", 1), other: ("weight", 0)}
            scale = {shared: (before, after)}
        for attribute, (name, axis) in table.items():
            value, tensor = module.__dict__.get(attribute), own.get(name)
            if type(value) is not int or (path, attribute) in done or tensor is None or tensor.dim() <= axis:
                continue
            times_before, times_after = scale.get(attribute, (1, 1))
            length = tensor.shape[axis]
            old, new = cut.get((first_name.get(id(tensor), ""), axis), (length, length))
            if value == old * times_before and value != new * times_after:
                found.append(Edit(path, attribute, None, value, new * times_after))
    return found


def _shown_by_calls(
    modules: Mapping[str, nn.Module],
    structure: Structure,
    lengths: Lengths,
    known: set[tuple[str, str]],
) -> list[Edit]:
    found: dict[tuple[str, str], Edit] = {}
    for call in structure.trace.modules:
        module = modules[call.module]
        for attribute, (side, axis) in _shown_axes(module).items():
            refs: tuple[Ref, ...] = getattr(call, side)
            value = module.__dict__.get(attribute)
            if type(value) is not int or (call.module, attribute) in known or not refs:
                continue
            if len(refs[0].shape) < max(2, -axis) or refs[0].shape[axis] != value:
                continue
            after = lengths.of(structure.coupler.of(refs[0])[axis], value)
            if after != value:
                found[call.module, attribute] = Edit(call.module, attribute, None, value, after)
    return [found[key] for key in sorted(found)]


def _shown_axes(module: nn.Module) -> dict[str, tuple[str, int]]:
    if isinstance(module, nn.modules.conv._ConvNd):
        channel = -1 - len(module.kernel_size)
        return {"in_channels": ("inputs", channel), "out_channels": ("outputs", channel)}
    return next((axes for kind, axes in _BY_CALL if isinstance(module, kind)), {})


def _derived(modules: list[tuple[str, nn.Module]], after: Mapping[tuple[str, str], int]) -> list[Edit]:
    """What torch's attention keeps beside ``embed_dim`` and ``num_heads`` and never reads again; a plain one is
    followed by a forward that reads them all."""
    found = []
    for path, module in sorted(modules, key=lambda item: item[0]):
        plain = type(module) is nn.MultiheadAttention or isinstance(module, NarrowAttention)
        if plain or not isinstance(module, nn.MultiheadAttention):
            continue
        width = after.get((path, "embed_dim"), module.embed_dim)
        now = {"head_dim": width // after.get((path, "num_heads"), module.num_heads)}
        if module.in_proj_weight is not None:  # one matrix for queries, keys and values, so one width
            now |= {"kdim": width, "vdim": width}
        for attribute, value in now.items():
            before = getattr(module, attribute)
            if (path, attribute) not in after and before != value:
                found.append(Edit(path, attribute, None, before, value))
    return found
