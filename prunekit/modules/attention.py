"""torch's multi-head attention with an inner width of its own.

``nn.MultiheadAttention`` has one width, ``embed_dim``, for its input, its output, and all heads together. So heads
cannot shrink where the stream around them stays. The class here is the same module with the same parameters, and reads
the inner width from them. A model is followed with it; a pruned one holds it where the two widths differ.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NarrowAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` whose heads together may be narrower, or wider, than ``embed_dim``.

    ``embed_dim`` is the width of input and output; ``num_heads * head_dim`` that between the projections. Everything
    else is as in torch, but for its fast path and for nested tensors.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments and results of ``nn.MultiheadAttention.forward``."""
        batched = query.dim() == 3
        alike = (query is key, key is value)
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        query = query.view(query.shape[0], query.shape[1], self.embed_dim)  # what torch's class asserts
        key = key.view(key.shape[0], key.shape[1], self.kdim)
        value = value.view(value.shape[0], value.shape[1], self.vdim)
        q, k, v = self._projected(query, key, value, all(alike))
        mask, causal = self._mask(q, k, attn_mask, key_padding_mask, is_causal, need_weights)
        k, v, mask = self._extended(k, v, mask)
        dropped = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            weights = q * math.sqrt(1.0 / float(q.shape[-1])) @ k.transpose(-2, -1)
            weights = F.dropout((weights if mask is None else weights + mask).softmax(-1), dropped)
            result = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            result = F.scaled_dot_product_attention(q, k, v, mask, dropped, causal)
        result = self.out_proj(result.transpose(1, 2).flatten(2))
        result = result.view(result.shape[0], result.shape[1], self.embed_dim)
        if not batched:
            return result.squeeze(0), None if weights is None else weights.squeeze(0)
        return result if self.batch_first else result.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, alike: bool) -> list[Tensor]:
        """Queries, keys and values, each (N, heads, length, head_dim)."""
        given = (query, key, value)
        if self.in_proj_weight is not None and alike:
            projected = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            packed = self.in_proj_weight is not None
            matrices = (
                self.in_proj_weight.chunk(3) if packed else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            )
            projected = tuple(F.linear(x, w, b) for x, w, b in zip(given, matrices, biases, strict=True))
        return [self._by_head(x) for x in projected]

    def _extended(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values with the learned place, and the one of zeros, that some have in addition."""
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self._place(self.bias_k, k)], 2)
            v = torch.cat([v, self._place(self.bias_v, v)], 2)
            added += 1
        if self.add_zero_attn:
            k = torch.cat([k, torch.zeros_like(k[:, :, :1])], 2)
            v = torch.cat([v, torch.zeros_like(v[:, :, :1])], 2)
            added += 1
        return k, v, F.pad(mask, (0, added)) if mask is not None and added else mask

    def _place(self, bias: Tensor, like: Tensor) -> Tensor:
        return self._by_head(bias).expand(like.shape[0], -1, -1, -1)

    def _by_head(self, x: Tensor) -> Tensor:
        """(N, length, inner) as (N, heads, length, head_dim)."""
        heads: Tensor = x.unflatten(-1, (self.num_heads, self.head_dim))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2)

    def _mask(
        self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None, causal: bool, weights: bool
    ) -> tuple[Tensor | None, bool]:
        """What is added to the products, (N or 1, heads or 1, L, S), and whether torch may take it for causal."""
        if causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if causal and padding is None and not weights:
            return None, True
        attn_mask, padding = _added(attn_mask, q), _added(padding, q)
        if attn_mask is not None:
            shape = (q.shape[0], self.num_heads, q.shape[2], k.shape[2]) if attn_mask.dim() == 3 else attn_mask.shape
            attn_mask = attn_mask.view(shape)
        if padding is not None:
            padding = padding[:, None, None, :]
            attn_mask = padding if attn_mask is None else attn_mask + padding
        return attn_mask, False


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask of truth values as what is added: minus infinity where it is true."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -math.inf)


def is_narrow(module: nn.Module) -> bool:
    """Whether a plain attention module has an inner width that torch's class cannot have."""
    if type(module) is not nn.MultiheadAttention:
        return False
    inner = int(module.out_proj.weight.shape[1])
    return inner != int(module.embed_dim) or int(module.head_dim * module.num_heads) != inner


def narrow(module: nn.Module) -> dict[str, Any]:
    """Makes a plain attention module one with an inner width of its own; returns what ``widen`` puts back."""
    before = {"_qkv_same_embed_dim": module.__dict__["_qkv_same_embed_dim"]}
    module.__dict__["_qkv_same_embed_dim"] = False  # or the layers around it go torch's fast path, past its forward
    module.__class__ = NarrowAttention
    return before


def widen(module: nn.Module, before: dict[str, Any]) -> None:
    """Takes ``narrow`` back."""
    module.__dict__.update(before)
    module.__class__ = nn.MultiheadAttention


@contextlib.contextmanager
def free_inner_widths(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[None]:
    """Inside the context every plain attention module among ``modules`` has an inner width of its own."""
    plain = [m for _, m in modules if type(m) is nn.MultiheadAttention]
    kept = [narrow(module) for module in plain]
    try:
        yield
    finally:
        for module, before in zip(plain, kept, strict=True):
            widen(module, before)
