"""Weights that a hook computes before every forward: the pruned model can be copied, saved, trained."""

import copy

import pytest
import torch
from torch import nn

import prunekit


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm], ids=["weight", "spectral"])
def test_a_model_with_hooked_weights_is_copied_and_trained_after_the_cut(norm):
    torch.manual_seed(0)
    model = nn.Sequential(
        norm(nn.Conv1d(4, 32, 5)), nn.ReLU(), norm(nn.Conv1d(32, 16, 5)), nn.ReLU(), nn.Conv1d(16, 2, 1)
    )
    model, x = model.eval(), torch.randn(1, 4, 40)
    with torch.no_grad():
        model(x)
    prunekit.prune(model, x, ratio=0.5)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(x), model(x))
    twin.train()(torch.randn(3, 4, 20)).sum().backward()
    trained = [p for p in twin.parameters() if p.grad is not None]
    assert len(trained) == len(list(twin.parameters()))
    again = copy.deepcopy(model.state_dict())
    assert again.keys() == model.state_dict().keys()
