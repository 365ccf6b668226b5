"""A model divided among ranks (FSDP2) is pruned by way of a file and divided again; see docs/offloading.md."""

import pytest
import torch
from safetensors.torch import load_file
from support.divided_model import X, network, pruned, samples

import prunekit


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_gathered_pruned_and_divided_again_it_is_what_one_process_makes(two_ranks):
    folder = two_ranks["divided_model"]
    one = network()
    pruned(one, samples())
    loaded, trained = prunekit.load(folder / "slim", network()), load_file(folder / "trained.safetensors")
    wanted = one.state_dict()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(trained.pop("answer"), one(X), rtol=1e-5, atol=1e-6)
    one(X).square().mean().backward()
    torch.optim.SGD(one.parameters(), 0.1).step()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-6)
