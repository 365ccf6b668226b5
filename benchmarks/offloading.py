"""Pruning a model in less memory than it has bytes: ``python -m benchmarks.offloading``.

A random network of 3 GB is pruned and saved, in processes of their own: in memory, within ``prunekit.offloaded``, and
there out of what accelerate offloaded to a disk. Printed are the peaks of resident memory, libraries included, as
shares of the model's size, and whether the folders hold the same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import prunekit
from prunekit.checkpoints.description import PLAN
from prunekit.files.weights import read_state

WIDTH, HIDDEN = 1024, 4096
MEMORY, WAYS = "memory", ("offloaded", "fetched")
CRITERIA = {"magnitude": prunekit.Magnitude, "wanda": prunekit.Wanda, "random": prunekit.Random}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
        return found


class Network(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)
        self.blocks = nn.Sequential(*(Block() for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.blocks(self.first(x)))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=90, help="of 33.6 MB each")
    parser.add_argument("--memory", default="700MB")
    parser.add_argument("--scorer", choices=sorted(CRITERIA), default="magnitude")
    parser.add_argument("--scratch", type=Path, help="folder with room for twice the model; a temporary one by default")
    parser.add_argument("--run", choices=(MEMORY, *WAYS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.run:
        _run(asked)
        return
    with tempfile.TemporaryDirectory(dir=asked.scratch) as place:
        torch.manual_seed(0)
        state = Network(asked.layers).state_dict()
        size = sum(tensor.nbytes for tensor in state.values())
        save_file(state, Path(place) / "whole.safetensors")
        del state
        given = [*sys.argv[1:], "--scratch", place]
        for way in (MEMORY, *WAYS):
            command = [sys.executable, "-m", "benchmarks.offloading", *given, "--run", way]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            shares = ", ".join(
                f"{name} {told[name]:.0f} MB ({told[name] * 1e6 / size:.0%})" for name in ("begin", "peak")
            )
            sys.stdout.write(f"{way}: {shares} of {size / 1e6:.0f} MB; {told['cpu']:.0f} CPU s\n")
        one = Path(place) / MEMORY
        for way in WAYS:
            other = Path(place) / way
            plans = (one / PLAN).read_bytes() == (other / PLAN).read_bytes()
            weights = _same(one / "model.safetensors", other / "model.safetensors")
            sys.stdout.write(f"{way}: same plan: {plans}; same weights to the bit: {weights}\n")


def _run(asked: argparse.Namespace) -> None:
    place: Path = asked.scratch
    with torch.device("meta"):
        model = Network(asked.layers)
    model.load_state_dict(load_file(place / "whole.safetensors"), assign=True)
    if asked.run == "fetched":
        from accelerate import disk_offload

        disk_offload(model, place / "parts", torch.device("cpu"))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    start = time.process_time()
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(4, 64, generator=generator) for _ in range(8)]
    begin = _peak()
    with contextlib.nullcontext() if asked.run == MEMORY else prunekit.offloaded(place / "scratch", asked.memory):
        model = prunekit.fetched(model)
        scorer = CRITERIA[asked.scorer]()
        result = prunekit.prune(model.eval(), data[0], ratio=0.5, scorer=scorer, data=data, verify="shapes")
        prunekit.save(result, place / asked.run, shard="500MB")
    told = {"begin": begin, "peak": _peak(), "cpu": time.process_time() - start}
    sys.stdout.write(json.dumps(told))


def _peak() -> float:
    """MB."""
    told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) * 1024 / 1e6


def _same(one: Path, other: Path) -> bool:
    first, second = read_state(one), read_state(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


if __name__ == "__main__":
    main()
