"""``prunekit prune hf:FOLDER --offload``, and without: ``python -m benchmarks.offloaded_command``.

A folder of a random Llama of 3 GB is pruned by Wanda from the command line, in memory and offloaded. Printed are the
peaks of resident memory of the command, libraries included, as shares of the model's size, the folder that it reads and
writes, and whether both hold the same bits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from prunekit.checkpoints.description import PLAN
from prunekit.files.weights import read_state

SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "vocab_size": 1000}
FEW = ["--ratio", "0.4", "--scorer", "wanda", "--set", "latency=false"]
FEW += ["--set", "images=4", "--set", "val_images=2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=44, help="of 67 MB each")
    parser.add_argument("--memory", default="700MB")
    parser.add_argument("--scratch", type=Path, help="folder with room for four times the model")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.scratch) as name:
        place = Path(name)
        subprocess.run([sys.executable, "-c", _BUILD.format(layers=asked.layers, sizes=SIZES, place=place)], check=True)
        size = sum(file.stat().st_size for file in (place / "model").glob("*.safetensors"))
        offload = ["--offload", str(place / "scratch"), "--offload-memory", asked.memory]
        for way, more in (("memory", []), ("offloaded", offload)):
            peak, seconds = _run(["prune", f"hf:{place / 'model'}", *FEW, *more, "--out", str(place / way)])
            told = f"{way}: {peak / 1e6:.0f} MB ({peak / size:.0%}) of {size / 1e6:.0f} MB; {seconds:.0f} CPU s\n"
            sys.stdout.write(told)
            sys.stdout.flush()
        one, other = place / "memory", place / "offloaded"
        plans = (one / PLAN).read_bytes() == (other / PLAN).read_bytes()
        first, second = read_state(one / "model.safetensors"), read_state(other / "model.safetensors")
        same = first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        sys.stdout.write(f"same plan: {plans}; same weights to the bit: {same}\n")


_BUILD = """
import torch, transformers
torch.manual_seed(0)
config = transformers.LlamaConfig(num_hidden_layers={layers}, **{sizes})
transformers.LlamaForCausalLM(config).save_pretrained("{place}/model")
"""


def _run(words: list[str]) -> tuple[int, float]:
    """Peak resident bytes and CPU seconds of one command."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen([sys.executable, "-m", "prunekit", *words], stdout=told, stderr=told)
        _, status, used = os.wait4(child.pid, 0)
        if status:
            told.seek(0)
            raise SystemExit(f"{words}: {told.read().decode()[-2000:]} after {time.monotonic() - started:.0f} s")
    return used.ru_maxrss * 1024, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
