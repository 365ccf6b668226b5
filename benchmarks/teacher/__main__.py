"""Train `sam:tiny`, the teacher that SlimSAM's claims are tested on; about two hours on one core.

    python -m benchmarks.teacher --data ../shared/data --out benchmarks/assets/tiny.safetensors

BSDS500's training photos and masks, their segments pasted over ImageNet photos, and generated scenes. Stage 1 trains
the encoder densely, stage 2 adds prompts (``prunekit_sam.training``). A run that is stopped goes on from
``OUT.state.pt`` when it is started again with the same arguments. What is watched is the last 12 training photos, which
are not trained on; BSDS500's validation photos are for the card alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from prunekit_sam.data import Folder
from prunekit_sam.evaluation import evaluate
from prunekit_sam.models import load_checkpoint, tiny
from prunekit_sam.training import TeacherSettings, asked, train, write_line
from segment_anything.modeling import Sam

from .photos import PhotoExamples, read

WATCHED = 12
SETTINGS = TeacherSettings(dense_steps=500, steps=2000, prompts=16, rate=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="bsds500/ and imagenet1k-sample/")
    parser.add_argument("--start", type=Path, help="weights to begin with, such as those of an earlier run")
    own = parser.parse_known_args()[0]
    data = own.data
    out, settings, loop = asked(parser, SETTINGS)
    train_folder = data / "bsds500" / "train"
    photos = read(train_folder, slice(0, -WATCHED))
    backgrounds = sorted((data / "imagenet1k-sample").glob("*.jpg"))
    found = Folder(train_folder)
    held = [found[index] for index in range(len(found) - WATCHED, len(found))]

    def examples(first: int, count: int) -> PhotoExamples:
        return PhotoExamples(photos, backgrounds, settings, first, count)

    def watched(sam: Sam) -> dict[str, float]:
        return {prompt: round(evaluate(sam, held, prompt).miou, 4) for prompt in ("point", "box")}

    torch.manual_seed(settings.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    sam = tiny()
    if own.start is not None:
        load_checkpoint(sam, own.start)
    train(sam, out, settings, examples, watched, write_line, **loop)


if __name__ == "__main__":
    main()
