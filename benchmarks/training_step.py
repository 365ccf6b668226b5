"""One training step of SlimSAM's first alignment, ours against the published scripts' arithmetic re-enacted.

    python benchmarks/training_step.py                              # vit_b at 1024, batch 1, on the CPU
    python benchmarks/training_step.py --device cuda
    python benchmarks/training_step.py --model nano --side 128 --steps 5

The student is the encoder after its embedding was halved, the loss Eq. 5 with a = 0.5: the qkv and MLP hidden
features of every block and the output. *Re-enacted* is what the published code computes for it: the teacher is run in
every step, the features of all blocks are kept and joined into one tensor for the teacher and one for the student, so
are the residual streams, which nothing reads, all in float32. *Ours* is the recipe's own loop, with the plug-in's
attention as in a run; rows that end in *memory kept* set KEPT for their process. Each row is a process of its own, on
the same weights and images; the first step warms up and is
left out.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

SEED = 0
ROWS = {
    "re-enacted": {},
    "ours": {"teacher_cache": "off"},
    "ours, memory kept": {"teacher_cache": "off"},
    "ours, checkpointing": {"teacher_cache": "off", "checkpointing": True},
    "ours, bf16": {"teacher_cache": "off", "precision": "bf16"},
    "ours, bf16, checkpointing": {"teacher_cache": "off", "precision": "bf16", "checkpointing": True},
    "ours, teacher remembered": {"teacher_cache": "memory", "cache_gb": 64.0},
    "ours, teacher remembered, memory kept": {"teacher_cache": "memory", "cache_gb": 64.0},
}
# The C library otherwise gives large tensors back to the system after every operator, and is given empty pages again.
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(10**11)}


def given(options: argparse.Namespace) -> tuple[nn.Module, nn.Module, Any, Tensor]:
    """(teacher, student, taps, images)."""
    from prunekit_sam import models
    from prunekit_sam.recipe import SLIMSAM

    from prunekit.recipes import COMMON, Prune
    from prunekit.runs.prune_stage import Asked, cut, structure_of
    from prunekit.samples import Samples
    from prunekit.scorers import Random

    torch.manual_seed(SEED)
    sam = models.build_sam("nano") if options.model == "nano" else models.sam_model_registry[options.model]()
    teacher = sam.image_encoder.eval().to(options.device)
    student = copy.deepcopy(teacher)
    images = torch.randn(2, 3, options.side, options.side, generator=torch.Generator().manual_seed(SEED))
    samples = Samples([images[:1]], lambda items: items[0])
    stage = next(stage for stage in SLIMSAM.stages if isinstance(stage, Prune))
    structure = structure_of(student, samples)
    settings = {**COMMON, "verify": "shapes", "images": 1}
    cut(student, stage, structure, samples, Asked.of(settings, scorer=Random(), ratio=0.5), lambda *_: None)
    return teacher, student, structure_of(student, samples).taps, images


def reenacted(options: argparse.Namespace) -> list[float]:
    """Seconds of every step of the published arithmetic."""
    teacher, student, _, images = given(options)
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-4)
    seconds = []
    for step in range(options.steps + 1):
        started = time.perf_counter()
        image = images[step % 2 : step % 2 + 1].to(options.device)
        kept: dict[str, dict[str, list[Tensor]]] = {}
        outputs = []
        for name, model in (("teacher", teacher), ("student", student)):
            found = kept.setdefault(name, {"qkv": [], "hidden": [], "stream": []})
            handles = [
                handle
                for block in model.blocks
                for handle in (
                    block.attn.qkv.register_forward_hook(lambda m, a, y, found=found: found["qkv"].append(y)),
                    block.mlp.lin1.register_forward_hook(lambda m, a, y, found=found: found["hidden"].append(y)),
                    block.register_forward_hook(lambda m, a, y, found=found: found["stream"].append(y)),
                )
            ]
            with torch.set_grad_enabled(name == "student"):
                outputs.append(model(image))
            for handle in handles:
                handle.remove()
        joined = {
            who: {kind: torch.cat([f.flatten() for f in features]) for kind, features in found.items()}
            for who, found in kept.items()
        }
        features = sum(
            nn.functional.mse_loss(joined["student"][kind], joined["teacher"][kind]) for kind in ("qkv", "hidden")
        )
        (0.5 * features + 0.5 * nn.functional.mse_loss(outputs[1], outputs[0])).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        synchronise(options.device)
        seconds.append(time.perf_counter() - started)
    return seconds


def ours(options: argparse.Namespace, changes: dict[str, Any]) -> list[float]:
    """Seconds of every step of the recipe's loop; with a remembered teacher those of the later passes."""
    from prunekit_sam.attention import lean_attention
    from prunekit_sam.recipe import SLIMSAM

    from prunekit.recipes import COMMON, Distil
    from prunekit.recipes.records import Training
    from prunekit.runs.distillation import distil
    from prunekit.samples import Samples

    teacher, student, taps_of, images = given(options)
    samples = Samples([images[:1], images[1:]], lambda items: torch.cat(list(items)))
    stage = next(stage for stage in SLIMSAM.stages if isinstance(stage, Distil))
    remembered = changes["teacher_cache"] == "memory"
    epochs = options.steps // 2 + (2 if remembered else 1)
    settings = {**COMMON, "epochs": epochs, "align_epochs": epochs, "batch": 1, "accumulate": 1, "clip": 0.0, **changes}
    marks = [0.0]

    def progress(done: int, total: int, figures: Any) -> None:
        synchronise(options.device)
        marks.append(time.perf_counter())

    with lean_attention(student), lean_attention(teacher):
        distil(student, {"original": teacher}, stage, samples, taps_of, Training.of(settings), progress)
    steps = [after - before for before, after in itertools.pairwise(marks[1:])]
    return steps[1:] if remembered else steps


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One row: seconds a step, and the peak of memory in GiB."""
    changes: dict[str, Any] = dict(ROWS[options.row])
    seconds = reenacted(options) if options.row == "re-enacted" else ours(options, changes)
    if options.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"row": options.row, "seconds": statistics.median(seconds[1:]), "steps": seconds, "peak_gib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_b", help="vit_b, vit_l, vit_h or nano")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=2, help="that count")
    parser.add_argument("--rows", default=";".join(ROWS), help="semicolon-separated")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        sys.stdout.write(json.dumps(measured(options)) + "\n")
        return
    common = ["--model", options.model, "--side", str(options.side), "--device", options.device]
    first: dict[str, Any] = {}
    where = (
        torch.cuda.get_device_name() if options.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    )
    sys.stdout.write(f"{options.model} at {options.side}, batch 1, {where}\n\n")
    sys.stdout.write("| | times faster than re-enacted | peak memory, of re-enacted |\n|---|---|---|\n")
    for row in options.rows.split(";"):
        command = [sys.executable, __file__, *common, "--steps", str(options.steps), "--row", row]
        env = {**os.environ, **(KEPT if row.endswith("memory kept") else {})}
        answer = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        found = json.loads(answer.stdout.splitlines()[-1])
        first = first or found
        faster, memory = first["seconds"] / found["seconds"], found["peak_gib"] / first["peak_gib"]
        sys.stdout.write(f"| {row} | {faster:.2f} | {memory:.2f} ({found['peak_gib']:.1f} GiB) |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
