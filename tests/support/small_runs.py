"""A run of a staged recipe on a small transformer, as tests and the processes that they start make it.

As a command: ``python small_runs.py OUT FOLDER STAGE EVENT KEY=VALUE...`` kills itself with SIGKILL at that event of
that stage (-1: never), goes on where FOLDER says, and writes final weights, plan and losses to OUT.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from prunekit.recipes import COMMON, Distil, Evaluate, Falling, Prune, Recipe, Repeat, Term, override, parse
from prunekit.registry import build
from prunekit.runs import run
from prunekit.runs.ranks import leave
from prunekit.scorers import DisturbedTaylor

STAGED = Recipe(
    "staged",
    "",
    (
        Evaluate("before", "before"),
        Prune("embedding", (("embedding",),), {"embedding": "heads"}),
        Distil("bottleneck", (Term("b", roles=("attention.head_dim", "mlp.hidden"), aligning=True), Term("output"))),
        Prune("bottleneck", (("attention.head_dim",), ("mlp.hidden",)), {"mlp.hidden": "heads"}),
        Distil(
            "embedding",
            (Term("e", roles=("embedding",), teacher="previous", aligning=True), Term("output")),
            Falling(),
            penalty="",
        ),
        Evaluate("after", "after"),
    ),
    {
        **COMMON,
        "images": 3,
        "train_images": 6,
        "val_images": 2,
        "epochs": 3,
        "align_epochs": 2,
        "batch": 2,
        "accumulate": 2,
        "lr": 1e-3,
        "save_minutes": 0.0,
        "latency": False,
    },
)
GROWING = Recipe(
    "growing",
    "",
    (
        Distil("sparsify", (Term("output"),), penalty="growing"),
        Repeat((Prune("prune"), Distil("recover", (Term("output"),)))),
    ),
    {**STAGED.settings, "epochs": 2, "prune_steps": 2, "schedule": "linear", "penalty": 1e-2},
)


def network():
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 5, "embed_dim": 24, "num_heads": 3}
    return build("timm:vit_tiny_patch16_224", plugins=[], **options)


def small_run(recipe=STAGED, folder=None, listen=None, resume=True, **settings):
    built = network()
    chosen = override(recipe, settings)
    return run(built, chosen, DisturbedTaylor(), ratio=0.5, listen=listen, folder=folder, resume=resume)


def main() -> None:
    out, folder = Path(sys.argv[1]), sys.argv[2]
    stages, events = ([int(each) for each in given.split(",")] for given in sys.argv[3:5])
    torch.set_num_threads(1)
    if stages[1:]:
        network()  # imports what children then need not import each
        gc.freeze()  # nor go through when they collect
    for stage, event in zip(stages[:-1], events[:-1], strict=True):
        child = os.fork()
        if not child:
            try:
                killed_run(out, folder, stage, event)
            finally:
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            raise SystemExit(f"the run was not killed in stage {stage}")
    killed_run(out, folder, stages[-1], events[-1])
    leave()


def killed_run(out, folder, stage, event):
    seen, losses, rank = {}, [], os.environ.get("RANK", "0")
    mortal = os.environ.get("KILLED", rank) == rank

    def listen(heard):
        seen[heard.stage] = seen.get(heard.stage, 0) + 1
        if "loss" in heard.figures:
            losses.append(heard.figures["loss"])
        if mortal and heard.stage == stage and seen[heard.stage] > event >= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    result = small_run(folder=Path(folder) if folder else None, listen=listen, **parse(sys.argv[5:]))
    if rank == "0":
        out.mkdir(parents=True)
        save_file(
            {name: value.clone() for name, value in result.model.state_dict().items()}, out / "weights.safetensors"
        )
        (out / "run.json").write_text(json.dumps({"plan": result.plan.to_json(), "losses": losses}))


if __name__ == "__main__":
    main()
