"""Modules whose control flow depends on values: followed on real numbers, or from the outside where that fails."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import prunekit
from prunekit.coupling.structure import couple
from prunekit.errors import TraceError
from prunekit.inputs import normalise
from prunekit.tracing.recorder import record


class Experts(nn.Module):
    """Tokens go to the expert that a router picks; experts without a token do not run."""

    def __init__(self, width: int = 16, hidden: int = 24, count: int = 4) -> None:
        super().__init__()
        self.router = nn.Linear(width, count)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) for _ in range(count)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        out = torch.zeros_like(flat)
        choice = self.router(flat).argmax(-1)
        for number in choice.unique():
            rows = torch.nonzero(choice == number).flatten()
            out[rows] += self.experts[int(number)](flat[rows])
        return out.reshape(x.shape)


class Block(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 32), nn.Linear(32, width)
        self.moe = Experts(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.fc2(self.fc1(x).relu())
        return x + self.moe(x)


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(8, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.outside = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inside(x)
        for block in self.blocks:
            x = block(x)
        return self.outside(x)


def test_every_expert_shrinks_and_any_of_them_may_be_chosen_afterwards():
    torch.manual_seed(0)
    model, x = Mixture(), torch.randn(2, 6, 8)
    visited = {op.module for op in prunekit.trace(model, x).trace.ops}
    assert any(f"blocks.0.moe.experts.{n}.0" not in visited for n in range(4)), "choose a seed that leaves one out"
    result = prunekit.prune(model, x, ratio=0.5)
    assert result.report.verify["symmetry"] == "passed"
    assert {e[0].out_features for block in model.blocks for e in block.moe.experts} == {12}
    for number in range(4):  # the router is made to choose each in turn
        with torch.no_grad():
            model.blocks[0].moe.router.bias.copy_(1e3 * torch.eye(4)[number])
        model(torch.randn(3, 7, 8)).sum().backward()


def test_a_pruned_mixture_is_the_masked_one():
    torch.manual_seed(1)
    model, x = Mixture().eval(), torch.randn(2, 6, 8)
    masked = copy.deepcopy(model)
    plan = prunekit.plan(model, x, ratio=0.5, include=["*.moe.experts.*.0.weight:0"])
    for width in plan.widths:
        gone = [unit for unit in range(width.before) if unit not in width.kept]
        expert = masked.get_submodule(width.group.rpartition(".0.")[0])
        with torch.no_grad():
            expert[2].weight[:, gone] = 0
    prunekit.apply(model, plan)
    torch.testing.assert_close(model(x), masked(x))


def test_what_stays_whole_without_values_names_the_module_and_the_line():
    structure = outside(Mixture(), torch.randn(2, 6, 8))
    assert list(structure.trace.opaque) == ["blocks.0.moe", "blocks.1.moe"]
    assert "test_opaque_modules.py:" in structure.trace.opaque["blocks.0.moe"]
    frozen = {f.name: f for f in structure.frozen}
    assert "decides by the values" in frozen["inside.weight:0"].reason
    assert "test_opaque_modules.py:" in frozen["inside.weight:0"].where
    plan = prunekit.plan(Mixture(), torch.randn(2, 6, 8), structure=structure)
    assert {w.group for w in plan.widths} == {"blocks.0.fc1.weight:0", "blocks.1.fc1.weight:0"}


def outside(model, x):
    """The structure where modules that read values are followed from the outside."""
    inputs = normalise(x)
    return couple(record(model, inputs, follow_values=False), inputs)


class Orphans(nn.Module):
    """What it did not run has no sibling that ran: it may be bound to any width of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.rare, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 4)
        self.inner = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc1(x)
        if y.sum() > 1e6:
            y = self.rare(y)
        return self.inner(self.fc2(y))


def test_a_part_that_was_not_reached_and_is_like_nothing_else_keeps_every_width_of_its_size():
    model, x = Orphans(), torch.randn(2, 8)
    structure = prunekit.trace(model, x)
    reasons = {f.name: f.reason for f in structure.frozen}
    assert "rare.weight, which was not read for these inputs" in reasons["fc1.weight:0"]
    prunekit.prune(model, x, ratio=0.5)
    assert (model.fc1.out_features, model.inner[0].out_features) == (16, 6)
    model.rare(model.fc1(x))


def test_tracing_leaves_the_model_and_the_random_state_alone():
    model, x = Mixture(), torch.randn(2, 6, 8)
    call = nn.Module.__call__
    tensors = {n: id(t) for n, t in model.named_parameters()}
    state = torch.get_rng_state()
    prunekit.trace(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert {n: id(t) for n, t in model.named_parameters()} == tensors
    assert nn.Module.__call__ is call
    assert model.training


class Halting(nn.Module):
    """The whole model decides by a value."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc1(x)
        return self.fc2(y.relu() if y.sum() > 0 else y)


def test_a_model_that_decides_at_the_top_is_followed_on_real_numbers():
    torch.manual_seed(0)
    model, x = Halting(), torch.randn(2, 8)
    structure = prunekit.trace(model, x)
    assert [name for name, _ in structure.trace.decisions] == ["aten._local_scalar_dense.default"]
    prunekit.prune(model, x, ratio=0.5)
    assert model.fc1.out_features == 4
    for scale in (1, -1):  # either way
        model(scale * x)


def test_without_weights_there_is_nothing_to_decide_by():
    with torch.device("meta"):
        model = Halting()
    with pytest.raises(TraceError, match="reads a value that depends") as caught:
        prunekit.plan(model, torch.randn(2, 8), scorer=prunekit.Random())
    assert "test_opaque_modules.py:" in caught.value.where


def test_a_module_that_fails_for_another_reason_is_not_papered_over():
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(9, 4)))
    with pytest.raises(TraceError, match="forward failed"):
        prunekit.prune(model, torch.randn(2, 8))


class Tokens(nn.Module):
    """Decides by a few token ids, picked with a list, as many language models do to warn of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc1, self.fc2, self.head = (
            nn.Embedding(9, 8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 3),
        )
        self.padded = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if 0 in ids[:, [-1, 0]]:
            self.padded += 1
        last = ids.new_zeros(ids.shape)
        last[:, [-1]] = 1
        return self.head(self.fc2(self.fc1(self.embed(ids) * last[..., None]).relu()))


def test_integers_picked_by_a_list_stay_known():
    torch.manual_seed(0)
    model, ids = Tokens(), torch.randint(1, 9, (2, 5))
    assert prunekit.trace(model, ids).trace.opaque == {}
    prunekit.prune(model, ids, verify="full")
    assert (model.fc1.out_features, model.fc2.out_features, model.padded) == (8, 4, 0)
    assert model(ids).shape == (2, 5, 3)


class Picky(nn.Module):
    """Fails on the meta device in words of its own, and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "meta":
            raise RuntimeError("expected a half-precision matrix")
        return self.fc(x)


class AroundPicky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.picky, self.b, self.c = nn.Linear(8, 16), Picky(), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.picky(self.b(self.a(x).relu())))


def test_a_module_that_only_the_meta_device_fails_stays_whole():
    torch.manual_seed(0)
    model, x = AroundPicky(), torch.randn(2, 8)
    structure = prunekit.trace(model, x)
    assert structure.trace.opaque == {"picky": "RuntimeError: expected a half-precision matrix"}
    prunekit.prune(model, x, verify="full")
    assert (model.a.out_features, model.b.out_features) == (8, 8)


class Grouped(nn.Module):
    """A mixture of experts as one product of sorted rows with a stack of matrices."""

    def __init__(self, width: int = 16, hidden: int = 32, count: int = 4) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(8, width), nn.Linear(width, 5)
        self.router = nn.Linear(width, count)
        self.up = nn.Parameter(torch.randn(count, hidden, width) * 0.1)
        self.down = nn.Parameter(torch.randn(count, width, hidden) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inside(x)
        expert, order = torch.sort(self.router(x).argmax(-1))
        ends = torch.cumsum(torch.histc(expert.float(), len(self.up), 0, len(self.up) - 1), 0, dtype=torch.int32)
        hidden = torch.nn.functional.grouped_mm(x[order], self.up.transpose(1, 2), offs=ends).relu()
        out = torch.nn.functional.grouped_mm(hidden, self.down.transpose(1, 2), offs=ends)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return self.outside(x + out[back])


@pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="torch has no grouped_mm")
def test_experts_in_one_grouped_product_shrink():
    torch.manual_seed(0)
    model, x = Grouped(), torch.randn(6, 8)
    result = prunekit.prune(model, x, verify="full")
    assert result.report.verify["symmetry"] == "passed"
    assert (model.up.shape, model.down.shape) == ((4, 16, 8), (4, 8, 16))
    assert model.router.out_features == 4
    assert model(torch.randn(3, 8)).shape == (3, 5)
    reasons = {f.name: f.reason for f in result.plan.frozen}
    assert "argmax" in reasons["router.weight:0"]
