"""Attention with decomposed relative positions that never holds the scores of a whole image.

segment_anything's encoder writes the scores of every head down several times, forwards and backwards: at 1024 pixels
805 MB a copy in each global block of ViT-B. Here the forward pass is torch's fused attention, one head at a time, and
the backward pass computes the scores again, some rows at a time (Dao et al. 2022, section 3, without its kernel).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

_SCORES = 2**20  # that are held at once in the backward pass
_LEAST = 14 * 14  # places from which it is worth it: a window of the published encoders


@contextmanager
def lean_attention(model: nn.Module) -> Iterator[None]:
    """Within it the attention of ``model``'s blocks gives the same up to rounding, in less time and memory."""
    changed = [m for m in model.modules() if isinstance(m, Attention) and m.use_rel_pos]
    for module in changed:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _forward(module: Attention, x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same, as ``Attention.forward`` gives it."""
    batch, height, width, _ = x.shape
    if height * width < _LEAST:
        few: Tensor = type(module).forward(module, x)
        return few
    joined = module.qkv(x).reshape(batch, height * width, 3, module.num_heads, -1)
    q, k, v = joined.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H W, C / heads)
    places = q.reshape(batch, module.num_heads, height, width, -1)
    rows = torch.einsum("bnhwc,hkc->bnhwk", places, get_rel_pos(height, height, module.rel_pos_h)).flatten(2, 3)
    columns = torch.einsum("bnhwc,wkc->bnhwk", places, get_rel_pos(width, width, module.rel_pos_w)).flatten(2, 3)
    found = attended(q, k, v, rows, columns, module.scale)
    result: Tensor = module.proj(found.transpose(1, 2).reshape(batch, height, width, -1))
    return result


def attended(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """softmax(scale q k' + rows + columns) v over the H W places of an image.

    Args:
        q, k, v: (B, heads, H W, C).
        rows, columns: (B, heads, H W, H) and (B, heads, H W, W): what is added to the score of a key by its row and its
            column.
    """
    result: Tensor = _Attended.apply(q, k, v, rows, columns, scale)
    return result


def _as_given(device: str) -> AbstractContextManager[Any]:
    """Without autocast, which would choose other types than those of q, k and v."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


class _Attended(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
        rows, columns = rows.to(q.dtype), columns.to(q.dtype)
        batch, heads, places, _ = q.shape
        added = q.new_empty(batch, 1, places, places)  # of one head; new memory for each would cost more than the sum
        by_place = added.view(batch, 1, places, rows.shape[-1], columns.shape[-1])
        found = []
        with _as_given(q.device.type):
            for head in range(heads):
                here = slice(head, head + 1)
                torch.add(rows[:, here].unsqueeze(-1), columns[:, here].unsqueeze(-2), out=by_place)
                own = scaled_dot_product_attention(q[:, here], k[:, here], v[:, here], attn_mask=added, scale=scale)
                found.append(own)
        output = torch.cat(found, 1)
        ctx.save_for_backward(q, k, v, rows, columns, output)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: gradient checkpointing makes them when they are asked for
        shape = saved[0].shape[:3]
        with _as_given(gradients[0].device.type):
            q, k, v, rows, columns, output, given = (t.flatten(0, 1) for t in (*saved, gradients[0]))
            made = _backward(q, k, v, rows, columns, output, given, ctx.scale)
        return (*(t.reshape(*shape, -1) for t in made), None)


def _backward(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor, output: Tensor, given: Tensor, scale: float
) -> list[Tensor]:
    """Gradients of q, k, v, rows and columns, all with batch and heads as their first axis."""
    heads, places, _ = q.shape
    height, width = rows.shape[-1], columns.shape[-1]
    wide = torch.promote_types(q.dtype, torch.float32)  # of everything between two products
    made = [torch.zeros_like(t) for t in (q, k, v, rows, columns)]
    scaled = q * scale
    inner = (given * output).to(wide).sum(-1, keepdim=True)  # of the softmax: its output times its gradient
    at_once = max(1, _SCORES // places**2)  # heads, or else one head and some of its rows
    strip = min(places, max(1, _SCORES // places))
    for first in range(0, heads, at_once):
        chosen = slice(first, first + at_once)
        keys, values = k[chosen], v[chosen]
        into_q, into_k, into_v, into_rows, into_columns = (t[chosen] for t in made)
        for start in range(0, places, strip):
            here = slice(start, start + strip)
            own, upper = scaled[chosen, here], given[chosen, here]
            scores = torch.bmm(own, keys.transpose(1, 2)).to(wide)
            by_place = scores.view(*scores.shape[:2], height, width)
            by_place += rows[chosen, here].unsqueeze(-1)
            by_place += columns[chosen, here].unsqueeze(-2)
            shares = torch.softmax(scores, -1)
            into_v += torch.bmm(shares.to(v.dtype).transpose(1, 2), upper)
            slopes = torch.bmm(upper, values.transpose(1, 2)).to(wide)
            slopes -= inner[chosen, here]
            slopes *= shares
            narrow = slopes.to(q.dtype)
            into_q[:, here] = torch.bmm(narrow, keys) * scale
            into_k += torch.bmm(narrow.transpose(1, 2), own)
            by_place = slopes.view(*slopes.shape[:2], height, width)
            into_rows[:, here] = by_place.sum(-1)
            into_columns[:, here] = by_place.sum(-2)
    return made
