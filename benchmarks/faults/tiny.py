"""A run of seconds: a net of two convolutions, cut and trained towards what it was.

As a command: ``python -m benchmarks.faults.tiny OUT FOLDER EVENT`` kills itself with SIGKILL at that event (-1: never),
goes on where FOLDER says, and writes the final weights to OUT.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from prunekit.recipes import COMMON, Distil, Evaluate, Prune, Recipe, Term, override
from prunekit.registry.building import Built
from prunekit.runs import run
from prunekit.scorers import Magnitude

SETTINGS = {
    **COMMON,
    "images": 2,
    "train_images": 4,
    "val_images": 1,
    "epochs": 3,
    "align_epochs": 0,
    "batch": 2,
    "accumulate": 1,
    "lr": 1e-2,
    "save_minutes": 0.0,
    "latency": False,
}
TINY = Recipe("tiny", "", (Prune("prune"), Distil("recover", (Term("output"),)), Evaluate("after", "after")), SETTINGS)
STEPS = 6  # of the training stage


def tiny_model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.pretrained_cfg = {"input_size": (3, 8, 8)}
    return net.eval()


def tiny_run(folder=None, listen=None, resume=True, stop=lambda: False, data=None, **settings):
    """The run, and what it ends with."""
    built = Built(tiny_model(), "")
    chosen = override(TINY, settings)
    return run(built, chosen, Magnitude(), ratio=0.5, folder=folder, listen=listen, resume=resume, stop=stop, data=data)


def main() -> None:
    out, folder, event = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    heard = []

    def listen(told):
        heard.append(told)
        if len(heard) > event >= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    weights = tiny_run(folder, listen).model.state_dict()
    save_file({name: value.clone() for name, value in weights.items()}, out)


if __name__ == "__main__":
    main()
