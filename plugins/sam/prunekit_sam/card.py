"""The figures of the model card, as JSON on the standard output.

python -m prunekit_sam.card                       on 200 held-out generated scenes
python -m prunekit_sam.card --folder DIR          on a folder in the SA-1B layout
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from prunekit.errors import DataError, PrunekitError

from .data import Folder, GeneratedScenes, MaskedImage
from .evaluation import disc_miou, evaluate, filled_box_miou
from .models import NAMES, build_sam
from .training import HELD_OUT_SEED


def figures(
    name: str = "nano", checkpoint: Path | None = None, folder: Path | None = None, images: int | None = None
) -> dict[str, float | int | str]:
    """Point and box mean IoU of a model beside what a disc and the filled box score, on a folder or on held-out scenes.

    Without a folder, `images` is 200 unless given. Raises what `build`, `Folder` and `evaluate` raise.
    """
    sam = build_sam(name, checkpoint)
    if folder is None:
        samples: Sequence[MaskedImage] = list(GeneratedScenes(images or 200, HELD_OUT_SEED))
    else:
        samples = Folder(folder)
        if samples.skipped:
            first = samples.skipped[0]
            raise DataError(f"{len(samples.skipped)} unusable files in {folder}; {first.name}: {first.reason}")
    point, box = evaluate(sam, samples, "point", images), evaluate(sam, samples, "box", images)
    return {
        "model": name,
        "data": folder.name if folder else f"generated scenes, seed {HELD_OUT_SEED}",
        "images": point.images,
        "masks": point.masks,
        "point_miou": round(point.miou, 4),
        "disc_miou": round(disc_miou(samples, limit=images), 4),
        "box_miou": round(box.miou, 4),
        "filled_box_miou": round(filled_box_miou(samples, images), 4),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=NAMES, default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--images", type=int, help="score the first so many")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    try:
        found = figures(given.model, given.checkpoint, given.folder, given.images)
    except PrunekitError as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
