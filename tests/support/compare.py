"""Models compared bit by bit, masked references, measured costs."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from prunekit.modules.walk import state_tensors
from prunekit.tracing.recorder import output_tensors


def snapshot(model):
    """Everything that a model is: attributes of all modules, tensors by identity and by bits, hooks, mode, RNG."""
    found = {"rng": torch.get_rng_state().tolist()}
    for path, module in model.named_modules():
        found[path, "type"] = type(module)
        found[path, "names"] = list(module.__dict__)
        for name, value in module.__dict__.items():
            found[path, name] = _frozen(value)
    return found


def _frozen(value):
    if isinstance(value, torch.Tensor):
        bits = value.detach().clone() if value.is_meta else value.detach().cpu().contiguous().clone()
        raw = b"" if value.is_meta else bits.reshape(-1).view(torch.uint8).numpy().tobytes() if bits.numel() else b""
        kind = (type(value), value.dtype, tuple(value.shape), value.stride(), str(value.device), value.requires_grad)
        return ("tensor", id(value), kind, raw, _frozen(value.grad) if value.is_leaf else None)
    if isinstance(value, dict):
        return (type(value), id(value), [(str(k), _frozen(v)) for k, v in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value), id(value) if isinstance(value, list) else 0, [_frozen(v) for v in value])
    if isinstance(value, nn.Module) or callable(value):
        return id(value)
    if isinstance(value, (int, float, str, bool, type(None))):
        return (type(value), value)
    return (type(value), id(value))


def differences(before, after):
    """Names of what differs between two snapshots."""
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def masked(model, groups, kept):
    """A copy of ``model`` whose removed units are zero in every parameter that they run through."""
    reference = copy.deepcopy(model)
    state = state_tensors(reference)
    with torch.no_grad():
        for group in groups:
            if group.name not in kept:
                continue
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[kept[group.name]] = False
            for member in group.members:
                if member.is_buffer:
                    continue
                here = (member.unit_of >= 0) & gone[member.unit_of.clamp(min=0)]
                state[member.tensor].index_fill_(member.axis, torch.nonzero(here).flatten(), 0.0)
    return reference


def run(model, inputs):
    """The output tensors of a call with a tensor, a tuple of arguments or a dict of named ones."""
    with torch.no_grad():
        if isinstance(inputs, dict):
            return output_tensors(model(**inputs))
        return output_tensors(model(*inputs) if isinstance(inputs, tuple) else model(inputs))


def distance(a, b):
    """Largest difference of two lists of outputs, relative to the largest value."""
    assert [x.shape for x in a] == [x.shape for x in b]
    return max(float((x - y).abs().max()) / max(float(x.abs().max()), 1e-12) for x, y in zip(a, b, strict=True))


def measured(model, inputs):
    """Parameters and multiply-adds, attention products included, as torch itself counts them."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that the counter does not know
    try:
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            run(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2


def layer_macs(model, inputs):
    """Multiply-adds of convolution and linear layers alone, by hooks, as papers count them."""
    total = 0

    def count(module, args, output):
        nonlocal total
        weight = module.weight.numel()
        if isinstance(module, nn.Linear):
            total += weight * (output.numel() // output.shape[-1])
        elif module.transposed:
            total += weight * args[0].shape[0] * args[0].shape[2:].numel()
        else:
            total += weight * output.shape[0] * output.shape[2:].numel()

    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    handles = [m.register_forward_hook(count) for m in layers]
    run(model, inputs)
    for handle in handles:
        handle.remove()
    return total


def gradients(model, inputs):
    """Whether every parameter that is trainable gets a gradient from the sum of the outputs."""
    outputs = output_tensors(model(**inputs) if isinstance(inputs, dict) else model(*inputs))
    loss = sum(t.float().square().sum() for t in outputs if t.is_floating_point())
    loss.backward()
    return all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters()) and bool(
        tree_leaves([p.grad for p in model.parameters() if p.grad is not None])
    )
