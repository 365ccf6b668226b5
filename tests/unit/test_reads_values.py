"""Models that read values are followed on real numbers; what was decided is decided again in the rehearsal."""

import pytest
import torch
import torchvision
from torch import nn

import prunekit

SMALL = {"weights": None, "weights_backbone": None, "num_classes": 4}


class Selecting(nn.Module):
    """Keeps the rows above a threshold, by a mask, and the best of them, by index."""

    def __init__(self):
        super().__init__()
        self.score, self.first, self.last = nn.Linear(6, 1), nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x):
        chosen = x[self.score(x).flatten() > 0]
        hidden = self.first(chosen).relu()
        best = hidden[torch.nonzero(hidden.sum(1) > 0).flatten()[:2]]
        return self.last(best) if len(best) else self.last(hidden)


class Counting(nn.Module):
    """Loops as often as a value says, and makes tensors out of Python numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.cell, self.last = nn.Linear(6, 24), nn.Linear(24, 24), nn.Linear(24, 3)

    def forward(self, x):
        y = self.first(x)
        for number in range(int(x.abs().sum().item()) % 3 + 1):
            y = y + torch.tensor([float(number)]) * self.cell(y).tanh()
        return self.last(y * torch.tensor([y.mean().item()]))


@pytest.mark.parametrize("make", [Selecting, Counting])
def test_what_reads_values_shrinks_and_is_the_masked_model(make):
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(5, 6)
    structure = prunekit.trace(model, x)
    assert structure.trace.decisions
    assert not structure.trace.opaque
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = prunekit.prune(model, x, ratio=0.5, structure=structure)
    assert model.last.in_features * 2 == before["last.weight"].shape[1]
    for seed in range(5):
        model(torch.randn(5, 6, generator=torch.Generator().manual_seed(seed)))
    result.undo()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_mask_keeps_its_rows_when_columns_go():
    torch.manual_seed(0)
    model, x = Selecting().eval(), torch.randn(5, 6)
    plan = prunekit.plan(model, x, ratio=0.5)
    (width,) = plan.widths
    masked = Selecting().eval()
    masked.load_state_dict(model.state_dict())
    gone = [unit for unit in range(32) if unit not in width.kept]
    with torch.no_grad():
        masked.first.weight[gone], masked.first.bias[gone] = 0, 0
    prunekit.apply(model, plan)
    torch.testing.assert_close(model(x), masked(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("fasterrcnn_mobilenet_v3_large_320_fpn", 0.7),
        pytest.param("ssdlite320_mobilenet_v3_large", 0.75, marks=pytest.mark.sweep),
    ],
)
def test_whole_detectors_shrink_and_run_in_both_modes(name, share):
    torch.manual_seed(0)
    model = getattr(torchvision.models.detection, name)(**SMALL).eval()
    images = [torch.rand(3, 96, 120)]
    # With random weights the smallest change of a box decides another count; magnitude's choice leaves the counts alone
    result = prunekit.prune(model, (images,), ratio=0.5, scorer="magnitude")
    assert result.report.params["after"] < share * result.report.params["before"]
    for found in model([torch.rand(3, 80, 100), torch.rand(3, 120, 64)]):
        assert found["boxes"].shape[1] == 4
    target = {"boxes": torch.tensor([[5.0, 5.0, 60.0, 50.0]]), "labels": torch.tensor([1])}
    losses = model.train()([torch.rand(3, 96, 120), torch.rand(3, 90, 90)], [target, target])
    sum(losses.values()).backward()


class Sections(nn.Module):
    """Scales the parts of a width by rows of a table, as rotary sections are: its units are not alike."""

    def __init__(self):
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(6, 24), nn.Linear(24, 32), nn.Linear(32, 3)
        self.register_buffer("table", torch.rand(3, 24) + 0.5)
        self.sections = [8, 8, 8]

    def forward(self, x):
        if x.sum().item() > 1e9:
            x = -x
        parts = self.table.split(self.sections, dim=1)
        scale = torch.cat([part[number] for number, part in enumerate(parts)])
        return self.last(self.hidden(self.first(x) * scale).relu())


def test_symmetry_that_fails_while_all_decisions_stay_is_taken_seriously(caplog):
    """Rounding may turn a decision; where none turned, the outputs have to compare."""
    torch.manual_seed(0)
    model, x = Sections().eval(), torch.randn(5, 6)
    structure = prunekit.trace(model, x)
    assert structure.trace.decisions
    assert "first.weight:0" in {g.name for g in structure.groups}
    result = prunekit.prune(model, x, ratio=0.5, structure=structure, verify="full")
    assert result.report.verify["symmetry_broken"] == ["first.weight:0"]
    assert (model.first.out_features, model.hidden.out_features) == (24, 16)
    assert "symmetry does not hold for first.weight:0" in caplog.text
