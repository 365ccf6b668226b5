"""Mixtures of experts in the ways in which people write them, with random shapes; and what they are when masked."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAR = 1e9  # what a masked expert's score is lowered by


@dataclass(frozen=True)
class Shape:
    """Width, experts, experts a token, hidden width, and the groups that routing is limited to, with those chosen."""

    width: int = 6
    experts: int = 6
    top_k: int = 2
    hidden: int = 8
    groups: int = 1
    chosen_groups: int = 1


class Router(nn.Module):
    """Positions [T, k] and gates [T, k]: softmax before or after the choice, or sigmoid with a correction bias."""

    def __init__(self, shape: Shape, how: str):
        super().__init__()
        self.scores = nn.Linear(shape.width, shape.experts)
        self.num_experts, self.top_k, self.how = shape.experts, shape.top_k, how
        self.n_group, self.topk_group = shape.groups, shape.chosen_groups
        self.register_buffer("correction", 0.1 * torch.randn(shape.experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.scores(x)
        if self.how == "after":
            best, at = torch.topk(logits, self.top_k, dim=-1)
            return at, best.softmax(-1)
        if self.how == "softmax":
            best, at = torch.topk(logits.softmax(-1), self.top_k, dim=-1)
            return at, best / best.sum(-1, keepdim=True)
        chances = logits.sigmoid()
        ranked = chances + self.correction
        if self.n_group > 1:
            parts = ranked.view(-1, self.n_group, self.num_experts // self.n_group)
            best = parts.topk(1, dim=-1)[0].sum(-1)
            is_open = torch.zeros_like(best).scatter_(1, torch.topk(best, self.topk_group, dim=-1, sorted=False)[1], 1)
            is_open = is_open.unsqueeze(-1).expand(-1, self.n_group, self.num_experts // self.n_group)
            ranked = ranked.masked_fill(~is_open.reshape(-1, self.num_experts).bool(), float("-inf"))
        at = torch.topk(ranked, self.top_k, dim=-1, sorted=False)[1]
        return at, chances.gather(1, at)


class Stacked(nn.Module):
    """Experts as stacks of matrices: picked for every token, all applied, or applied to runs of sorted tokens."""

    def __init__(self, shape: Shape, how: str):
        super().__init__()
        self.how, self.num_experts = how, shape.experts
        self.first = nn.Parameter(torch.randn(shape.experts, shape.width, shape.hidden))
        self.bias = nn.Parameter(torch.randn(shape.experts, shape.hidden))
        self.last = nn.Parameter(torch.randn(shape.experts, shape.hidden, shape.width))

    def forward(self, x: Tensor, at: Tensor, gates: Tensor) -> Tensor:
        if self.how == "all":
            weights = torch.zeros(x.shape[0], self.num_experts, dtype=x.dtype).scatter_(1, at, gates)
            hidden = (torch.einsum("td,edh->eth", x, self.first) + self.bias.unsqueeze(1)).relu()
            return torch.einsum("te,etd->td", weights, hidden @ self.last)
        if self.how == "looped":
            return self._looped(x, at, gates)
        ids = at.reshape(-1)
        rows = x.repeat_interleave(at.shape[-1], dim=0)
        if self.how == "picked":
            hidden = torch.bmm(rows.unsqueeze(1), self.first[ids]).squeeze(1) + self.bias[ids]
            out = torch.bmm(hidden.relu().unsqueeze(1), self.last[ids]).squeeze(1)
        else:
            sorted_ids, order = torch.sort(ids)
            counts = torch.histc(sorted_ids.float(), bins=self.num_experts, min=0, max=self.num_experts - 1)
            ends = torch.cumsum(counts, 0, dtype=torch.int32)
            hidden = F.grouped_mm(rows[order], self.first, offs=ends) + self.bias[sorted_ids]
            out = F.grouped_mm(hidden.relu(), self.last, offs=ends)
            out = torch.empty_like(out).index_copy_(0, order, out)
        return (out * gates.reshape(-1, 1)).view(*at.shape, -1).sum(1)

    def _looped(self, x: Tensor, at: Tensor, gates: Tensor) -> Tensor:
        """Only the experts that are hit, one after the other."""
        out = torch.zeros_like(x)
        mask = F.one_hot(at, num_classes=self.num_experts).permute(2, 1, 0)
        for hit in mask.sum((-1, -2)).gt(0).nonzero():
            expert = hit[0]
            place, token = torch.where(mask[expert])
            hidden = (x[token] @ self.first[expert] + self.bias[expert]).relu()
            out.index_add_(0, token, hidden @ self.last[expert] * gates[token, place, None])
        return out


class Listed(nn.Module):
    """Experts as a list of modules: each on the tokens that it is sent, or on all of them."""

    def __init__(self, shape: Shape, how: str):
        super().__init__()
        self.how = how
        self.list = nn.ModuleList(
            nn.Sequential(nn.Linear(shape.width, shape.hidden), nn.ReLU(), nn.Linear(shape.hidden, shape.width))
            for _ in range(shape.experts)
        )

    def forward(self, x: Tensor, at: Tensor, gates: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.list):
            if self.how == "list, all":
                out = out + expert(x) * (gates * (at == number)).sum(-1, keepdim=True)
                continue
            token, place = torch.where(at == number)
            if len(token):
                out.index_add_(0, token, expert(x[token]) * gates[token, place, None])
        return out


class Mixture(nn.Module):
    """A layer in front, a mixture with a shared expert, and a layer behind."""

    def __init__(self, shape: Shape, router: str, body: str):
        super().__init__()
        self.front, self.router = nn.Linear(5, shape.width), Router(shape, router)
        self.experts = (Listed if body.startswith("list") else Stacked)(shape, body)
        self.shared = nn.Sequential(nn.Linear(shape.width, 4), nn.ReLU(), nn.Linear(4, shape.width))
        self.back = nn.Linear(shape.width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.front(x).flatten(0, -2)
        z = y + self.experts(y, *self.router(y)) + self.shared(y)
        return self.back(z).reshape(*x.shape[:-1], -1)


def masked_mixture(model: Mixture, gone: list[int]) -> Mixture:
    """The whole model whose router never chooses the experts that are ``gone``."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.router.scores.bias[gone] -= FAR
        copied.router.correction[gone] -= FAR
    return copied
