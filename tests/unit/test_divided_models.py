"""A model divided among ranks (FSDP2) is pruned by way of a file and divided again; see docs/offloading.md."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.divided_model import X, network, pruned, samples

import prunekit

SCRIPT = Path(__file__).parents[1] / "support" / "divided_model.py"
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_gathered_pruned_and_divided_again_it_is_what_one_process_makes(tmp_path):
    done = subprocess.run([*LAUNCH, str(SCRIPT), str(tmp_path)], check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    one = network()
    pruned(one, samples())
    loaded, trained = prunekit.load(tmp_path / "slim", network()), load_file(tmp_path / "trained.safetensors")
    wanted = one.state_dict()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(trained.pop("answer"), one(X), rtol=1e-5, atol=1e-6)
    one(X).square().mean().backward()
    torch.optim.SGD(one.parameters(), 0.1).step()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-5, atol=1e-6)
