"""A scale that follows a width and meets one part of the tokens is not undone in weights that all tokens share."""

import copy

import pytest
import torch
from support.compare import distance, masked, run
from torch import nn

import prunekit

WAYS = {
    "whole": lambda q, s: q * s,
    "twice": lambda q, s: q * s * s,
    "a token at a time": lambda q, s: torch.stack([q[:, :, i] * s for i in range(q.shape[2])], 2),
    "unbound": lambda q, s: torch.stack([each * s for each in q.unbind(2)], 2),
    "the first": lambda q, s: torch.cat([q[:, :, :1] * s, q[:, :, 1:]], 2),
    "all but the first": lambda q, s: torch.cat([q[:, :, :1], q[:, :, 1:] * s], 2),
    "split": lambda q, s: torch.cat([part * s if n else part for n, part in enumerate(q.split([1, 4], 2))], 2),
}


class Attention(nn.Module):
    """(B, 5, 8) -> (B, 5, 3), queries scaled in one of several ways; q, k and v are layers of their own or one."""

    def __init__(self, scale, fused):
        super().__init__()
        self.scale, self.fused = scale, fused
        self.qkv = nn.ModuleList(nn.Linear(8, 96 if fused else 32) for _ in range(1 if fused else 3))
        self.out = nn.Linear(32, 3)

    def forward(self, x):
        parts = self.qkv[0](x).chunk(3, -1) if self.fused else [layer(x) for layer in self.qkv]
        q, k, v = (part.unflatten(2, (4, -1)).transpose(1, 2) for part in parts)
        weights = (self.scale(q, q.shape[-1] ** -0.5) @ k.mT).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("fused", [False, True], ids=["apart", "fused"])
@pytest.mark.parametrize("way", WAYS)
def test_the_function_is_kept_or_the_report_says_that_a_constant_changes(way, fused):
    torch.manual_seed(0)
    model = Attention(WAYS[way], fused).eval()
    x, before = torch.randn(2, 5, 8), copy.deepcopy(model)
    structure = prunekit.trace(model, x)
    result = prunekit.prune(model, x, structure=structure, ratio=0.5, roles=["attention.head_dim"])
    kept = {width.group: torch.tensor(width.kept) for width in result.plan.widths}
    error = distance(run(masked(before, structure.groups, kept), x), run(model, x))
    assert kept
    assert (error < 1e-5) == (way in ("whole", "twice"))
    assert bool(result.report.notes) == (way not in ("whole", "twice"))
