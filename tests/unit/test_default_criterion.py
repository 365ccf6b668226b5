"""Nobody said by what: a criterion that sees inputs decides; weights alone do where nothing can be differentiated."""

import logging

import pytest
import torch
from torch import nn

import prunekit
from prunekit.cli.commands.pruning import DEFAULT_SCORER
from prunekit.errors import InputError, ScorerError
from prunekit.registry import criterion, scorer


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4))


IMAGE = torch.zeros(1, 3, 8, 8)
DATA = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(4)]


class Undifferentiated(nn.Module):
    """Forward runs without gradients, as a wrapper for inference may."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        with torch.no_grad():
            return self.second(self.first(x).relu())


def test_python_and_the_command_have_the_same_default():
    assert criterion(None) == scorer(DEFAULT_SCORER)


@pytest.mark.parametrize("data", [None, DATA], ids=["generated", "given"])
def test_the_default_is_disturbed_taylor(data):
    plain = prunekit.plan(network(), IMAGE, ratio=0.5, data=data)
    named = prunekit.plan(network(), IMAGE, ratio=0.5, data=data, scorer=prunekit.DisturbedTaylor())
    weights = prunekit.plan(network(), IMAGE, ratio=0.5, data=data, scorer=prunekit.Magnitude())
    assert plain.cuts == named.cuts != weights.cuts


@pytest.mark.parametrize("data", [None, [torch.randn(1, 8)]], ids=["generated", "given"])
def test_a_model_without_gradients_is_cut_by_magnitude_and_the_log_says_why(data, caplog):
    with caplog.at_level(logging.WARNING):
        result = prunekit.prune(Undifferentiated(), torch.zeros(1, 8), ratio=0.5, data=data)
    assert "magnitude decides" in caplog.text
    assert "no output depends on a parameter" in caplog.text
    assert result.report.scorer == repr(prunekit.Magnitude())
    wanted = prunekit.plan(Undifferentiated(), torch.zeros(1, 8), ratio=0.5, scorer=prunekit.Magnitude())
    assert result.plan.cuts == wanted.cuts


def test_whoever_asks_for_a_gradient_is_not_given_weights():
    with pytest.raises(ScorerError, match="no output depends"):
        prunekit.prune(Undifferentiated(), torch.zeros(1, 8), ratio=0.5, scorer="disturbed_taylor")


def test_a_sample_that_does_not_run_is_no_reason_to_look_at_weights():
    model = Undifferentiated()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="calibration sample 1"):
        prunekit.prune(model, torch.zeros(1, 8), ratio=0.5, data=[torch.randn(1, 8), torch.randn(1, 9)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
