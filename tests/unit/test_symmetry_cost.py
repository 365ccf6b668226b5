"""What the check of symmetry costs, counted in operations, and that cheaper ways to the same numbers stay sound."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from support.compare import differences, snapshot
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import prunekit
from prunekit.modules import perturbing
from prunekit.planning import symmetry_check
from prunekit.planning.symmetry_check import symmetry


class Elements(TorchDispatchMode):
    """Elements that operators were given first, by operator."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        size = args[0].numel() if args and isinstance(args[0], torch.Tensor) else 1
        self.seen[func.overloadpacket.__name__] += size
        return func(*args, **(kwargs or {}))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()


def test_parameters_are_perturbed_once_and_no_weight_is_asked_element_by_element(monkeypatch):
    calls = []

    def counted(name, *args):
        calls.append(name)
        return perturbing.perturbed(name, *args)

    monkeypatch.setattr(symmetry_check, "perturbed", counted)
    model, x = network(), torch.randn(1, 3, 8, 8)
    with Elements() as elements:
        prunekit.plan(model, x, ratio=0.5, verify="full", scorer=prunekit.Magnitude())
    weights = sum(p.numel() for p in model.parameters())
    assert sorted(calls) == sorted(name for name, _ in model.named_parameters())
    finite = elements.seen["isfinite"] + elements.seen["ne"]  # isfinite is made of comparisons
    assert finite < weights / 2
    moved = 2 * weights  # along two axes at most
    assert elements.seen["index_select"] <= moved + weights  # and the cut on stand-ins


def test_noise_is_the_same_wherever_a_tensor_lies_in_memory():
    """Pieces that wrap around, other layouts: each is the plain sum."""
    noise = perturbing.noise_of(3)
    for shape in [(7, 5), (1100, 1000)]:
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        plain = perturbing.perturbed("w", weight, 3, noise)
        assert torch.equal(plain, perturbing.perturbed("w", weight.t().contiguous().t(), 3, noise))
        assert 0.005 < float((plain - weight).std()) < 0.2


class Writing(nn.Module):
    """A layer that limits its own weight in place at every call, as spectral constraints do."""

    def __init__(self, share):
        super().__init__()
        self.share = share
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 2)

    def forward(self, x):
        self.first.weight.data.mul_(self.share)
        return self.last(self.first(x).relu())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_forward_that_writes_over_its_weights_is_compared_with_itself(share):
    """The second run starts from what the first one started from, not from what that left."""
    torch.manual_seed(0)
    model, x = Writing(share).eval(), torch.randn(3, 4)
    structure = prunekit.trace(model, x)
    before = snapshot(model)
    assert symmetry(model, structure.groups, structure.inputs).passed
    assert differences(before, snapshot(model)) == []
    (group,) = structure.groups
    wrong = replace(group, members=group.members[:-1])
    assert symmetry(model, [wrong], structure.inputs).broken == (group.name,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_wrong_group_among_sound_ones_is_the_one_that_is_named(dtype):
    """What is kept between two runs is not there for the third, by which the culprits are found."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)]
    model = nn.Sequential(*layers).to(dtype).eval()
    structure = prunekit.trace(model, torch.randn(3, 4, dtype=dtype))
    assert len(structure.groups) == 3
    at = 1
    wrong = replace(structure.groups[at], members=structure.groups[at].members[:-1])
    groups = [*structure.groups[:at], wrong, *structure.groups[at + 1 :]]
    assert symmetry(model, groups, structure.inputs).broken == (wrong.name,)
