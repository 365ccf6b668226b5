"""Train `nano` on generated scenes: the script behind the shipped weights (the model card has their exact history).

    python -m prunekit_sam.training --out weights/nano.safetensors

Stage 1 trains the encoder densely: at many points of an image, the features there must tell which pixels belong to the
same segment. Stage 2 adds the prompt encoder and the mask decoder, with points and boxes. A run that is stopped
goes on from `OUT.state.pt` when it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segment_anything.modeling import Sam
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from . import scenes
from .data import GeneratedScenes
from .decoding import with_prompts
from .evaluation import evaluate
from .models import NANO_SIZE, nano

Report = Callable[[Mapping[str, float]], None]

HELD_OUT_SEED = 1_000_003
MOST = 16  # segments of an image that are used
LOW = 64  # side of the masks that the decoder answers with, for 16 x 16 tokens

Examples = Callable[[int, int], Dataset[dict[str, Tensor]]]
Scores = Callable[[Sam], Mapping[str, float]]


@dataclass(frozen=True)
class TeacherSettings:
    """`dense_steps` of stage 1, then `steps` of stage 2; `queries` are dense ones, `prompts` go through the decoder."""

    dense_steps: int = 800
    steps: int = 1900
    batch: int = 8
    queries: int = 32
    prompts: int = 6
    rate: float = 1e-3
    dense_weight: float = 0.3
    seed: int = 1


class SceneExamples(Dataset[dict[str, Tensor]]):
    """`count` examples from generated scenes of `size` pixels, from the number `first` on."""

    def __init__(self, settings: TeacherSettings, first: int, count: int, size: int = NANO_SIZE) -> None:
        self.settings, self.first, self.count, self.size = settings, first, count, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        number = self.first + index
        made = scenes.scene(self.settings.seed, number, self.size)
        return example(
            made.image, made.masks[:MOST], self.settings, np.random.default_rng((self.settings.seed, number))
        )


def example(
    image: scenes.Image, masks: scenes.Masks, settings: TeacherSettings, rng: np.random.Generator
) -> dict[str, Tensor]:
    """One training example of an (S, S, 3) image and 1 to `MOST` (n, S, S) segments of it.

    Pixels, soft (16, 64, 64) segments, and random queries, points and boxes with the segments that they ask for.
    """
    soft = np.zeros((MOST, LOW, LOW), np.float32)
    part = image.shape[0] // LOW
    soft[: len(masks)] = masks.reshape(len(masks), LOW, part, LOW, part).mean((2, 4))
    chosen = rng.integers(0, len(masks), settings.prompts)
    asked = rng.integers(0, len(masks), settings.queries)
    half = settings.prompts // 2
    return {
        "pixels": torch.from_numpy(image).permute(2, 0, 1),
        "soft": torch.from_numpy(soft),
        "asked": torch.from_numpy(asked),
        "queries": torch.tensor([scenes.point_inside(masks[i], rng) for i in asked], device="cpu"),
        "chosen": torch.from_numpy(chosen),
        "points": torch.tensor([scenes.point_inside(masks[i], rng) for i in chosen[:half]], device="cpu"),
        "boxes": torch.tensor([scenes.bounding_box(masks[i], rng, 0.03) for i in chosen[half:]], device="cpu"),
    }


def dense_logits(sam: Sam, embedding: Tensor, queries: Tensor) -> Tensor:
    """(B, K, 64, 64) logits: which pixels belong with the (B, K, 2) queries, by the (B, C, 16, 16) embedding alone."""
    grid = (queries + 0.5) / sam.image_encoder.img_size * 2 - 1
    at = F.grid_sample(embedding, grid[:, :, None], align_corners=False, padding_mode="border")[..., 0]
    keys = sam.mask_decoder.output_upscaling(embedding)
    wanted = sam.mask_decoder.output_hypernetworks_mlps[0](at.transpose(1, 2))
    return torch.einsum("bkc,bchw->bkhw", wanted, keys)


def mask_loss(logits: Tensor, soft: Tensor) -> Tensor:
    """(...) focal plus dice loss of (..., h, w) logits against masks in [0, 1]."""
    raw = F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    probability = logits.sigmoid()
    focal = ((probability - soft).abs().square() * raw).mean((-1, -2)) * 5 + raw.mean((-1, -2))
    overlap = (probability * soft).sum((-1, -2))
    dice = 1 - (2 * overlap + 1) / (probability.square().sum((-1, -2)) + soft.square().sum((-1, -2)) + 1)
    return focal + dice


def step_loss(sam: Sam, batch: dict[str, Tensor], settings: TeacherSettings, dense_only: bool) -> Tensor:
    """The loss of one batch, a scalar: dense, and past stage 1 also that of prompted masks and their predicted IoU."""
    embedding = sam.image_encoder(sam.preprocess(batch["pixels"].float()))
    rows = torch.arange(len(embedding), device="cpu")[:, None]
    dense = torch.zeros((), device="cpu")
    if dense_only or settings.dense_weight:
        dense = mask_loss(dense_logits(sam, embedding, batch["queries"]), batch["soft"][rows, batch["asked"]]).mean()
    if dense_only:
        return dense
    logits, quality = with_prompts(sam, embedding, batch["points"], batch["boxes"])
    soft = batch["soft"][rows, batch["chosen"]][:, :, None].expand_as(logits)
    losses = mask_loss(logits, soft)
    with torch.no_grad():
        hit, true = logits > 0, soft > 0.5
        iou = (hit & true).sum((-1, -2)) / (hit | true).sum((-1, -2)).clamp(min=1)
    several = losses[:, :, 1:].min(-1).values.mean()
    return losses[:, :, 0].mean() + 0.2 * several + 0.3 * F.mse_loss(quality, iou) + settings.dense_weight * dense


def rate_at(step: int, settings: TeacherSettings) -> float:
    """Warm-up, then a constant rate in stage 1, then a cosine to nothing over stage 2."""
    warm = settings.rate * min(1.0, (step + 1) / 100)
    if step < settings.dense_steps:
        return warm
    return warm * (0.5 + 0.5 * math.cos(math.pi * (step - settings.dense_steps) / settings.steps))


def train(
    sam: Sam,
    out: Path,
    settings: TeacherSettings,
    examples: Examples,
    scores: Scores,
    report: Report,
    every: int = 250,
    workers: int = 1,
    bf16: bool = False,
) -> Sam:
    """Train `sam`, resuming from `out`'s state file where there is one; every `every` steps write both and report.

    `bf16` computes the forward pass in bfloat16 where autocast does so; weights, gradients and steps stay float32.

    `examples(first, count)` are the training examples by number. A report has the step, the seconds spent, the mean
    loss and what `scores` says of the model so far.
    """
    sam.train()
    optimiser = torch.optim.AdamW(sam.parameters(), lr=settings.rate, weight_decay=0.02, betas=(0.9, 0.98))
    state_path, done, spent = out.with_suffix(".state.pt"), 0, 0.0
    if state_path.exists():
        state: dict[str, Any] = torch.load(state_path, weights_only=True)
        sam.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        done, spent = int(state["step"]), float(state["seconds"])
    total = settings.dense_steps + settings.steps
    data = examples(done * settings.batch, (total - done) * settings.batch)
    loader = DataLoader(data, settings.batch, num_workers=workers, prefetch_factor=8 if workers else None)
    start, mean = time.monotonic() - spent, 0.0
    for step, batch in enumerate(loader, done):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = step_loss(sam, batch, settings, step < settings.dense_steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimiser.step()
        mean += (float(loss.detach()) - mean) / (step % every + 1)
        if (step + 1) % every == 0 or step + 1 == total:
            seconds = time.monotonic() - start
            _save(sam, optimiser, out, step + 1, seconds)
            line = {"step": step + 1, "seconds": round(seconds), "loss": round(mean, 4)}
            sam.eval()
            report({**line, **scores(sam)})
            sam.train()
            mean = 0.0
    return sam.eval()


def on_scenes(sam: Sam, count: int = 32) -> dict[str, float]:
    """Mean IoU on `count` held-out scenes: of `dense_logits`, with one point, with one box."""
    held = GeneratedScenes(count, HELD_OUT_SEED)
    prompted = {prompt: evaluate(sam, held, prompt).miou for prompt in ("point", "box")}
    return {"dense": dense_miou(sam, count), **prompted}


@torch.no_grad()
def dense_miou(sam: Sam, count: int = 32) -> float:
    """Held-out mean IoU of `dense_logits` at the deepest points, on 64 x 64: how good the encoder is by itself."""
    found = []
    for sample in GeneratedScenes(count, HELD_OUT_SEED):
        assert sample.masks is not None
        pixels = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float()
        logits = dense_logits(sam, sam.image_encoder(sam.preprocess(pixels)), torch.from_numpy(sample.points)[None])[0]
        hit, true = (logits > 0).numpy(), sample.masks.reshape(-1, LOW, 2, LOW, 2).mean((2, 4)) > 0.5
        found.append(((hit & true).sum((1, 2)) / np.maximum((hit | true).sum((1, 2)), 1)).mean())
    return float(np.mean(found))


def _save(sam: Sam, optimiser: torch.optim.Optimizer, out: Path, step: int, seconds: float) -> None:
    """Both files whole or not at all."""
    state = {"model": sam.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "seconds": seconds}
    state_path = out.with_suffix(".state.pt")
    torch.save(state, state_path.with_suffix(".new"))
    os.replace(state_path.with_suffix(".new"), state_path)
    save_file({key: value.contiguous() for key, value in sam.state_dict().items()}, out.with_suffix(".new"))
    os.replace(out.with_suffix(".new"), out)


def write_line(line: Mapping[str, float]) -> None:
    """Write a report, one line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def asked(parser: argparse.ArgumentParser, defaults: TeacherSettings) -> tuple[Path, TeacherSettings, dict[str, Any]]:
    """The output file, the settings, and `every`, `workers` and `bf16` of `train`, from the command line."""
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that make examples")
    parser.add_argument("--every", type=int, default=250, help="steps between snapshots")
    parser.add_argument("--bf16", action="store_true", help="forward pass in bfloat16")
    for name, default in vars(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    torch.set_num_threads(given.pop("threads"))
    out, loop = given.pop("out"), {name: given.pop(name) for name in ("every", "workers", "bf16")}
    return out, TeacherSettings(**{name: given[name] for name in vars(defaults)}), loop


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out, settings, loop = asked(parser, TeacherSettings())
    torch.manual_seed(settings.seed)

    def examples(first: int, count: int) -> SceneExamples:
        return SceneExamples(settings, first, count)

    train(nano(), out, settings, examples, on_scenes, write_line, **loop)


if __name__ == "__main__":
    main()
