"""One of two ranks with a model of ``fully_shard``: gathered, pruned and divided again, as docs/offloading.md says."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

import prunekit

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval()


def samples():
    return [torch.randn(4, 16, generator=torch.Generator().manual_seed(n)) for n in range(1, 5)]


def pruned(model, data):
    return prunekit.prune(model, X, ratio=0.5, data=data, scorer=prunekit.Wanda(), verify="shapes")


def divided(model, mesh):
    for layer in (layer for layer in model if isinstance(layer, nn.Linear)):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def main(folder):
    dist.init_process_group("gloo")
    rank, mesh = dist.get_rank(), dist.init_device_mesh("cpu", (2,))
    model = divided(network(), mesh)
    state = get_model_state_dict(model, options=WHOLE)
    if rank == 0:
        save_file(state, folder / "whole.safetensors")
    dist.barrier()
    with torch.device("meta"):
        small = network()
    small.load_state_dict(load_file(folder / "whole.safetensors"), assign=True)
    with prunekit.offloaded(folder / f"scratch-{rank}", memory="1GB"):
        result = pruned(small, prunekit.PerRank(samples()[2 * rank : 2 * rank + 2]))
    if rank == 0:
        prunekit.save(result, folder / "slim")
    again = divided(small, mesh)
    answer = again(X)
    again(X).square().mean().backward()
    torch.optim.SGD(again.parameters(), 0.1).step()  # it trains on
    state = get_model_state_dict(again, options=WHOLE)
    if rank == 0:
        save_file({"answer": answer.detach().contiguous(), **state}, folder / "trained.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
