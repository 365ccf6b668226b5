"""What this distribution brings to prunekit, found through the entry-point group ``prunekit.plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from prunekit.plugins import Foreign, ModelEntry, Plugin
from prunekit.samples import Checked, First, Samples, Sound

from . import data, models
from .attention import lean_attention
from .decoding import mask_logits
from .examination import compared, prompted_by
from .exports.hf_folder import hf
from .exports.onnx_graphs import onnx
from .exports.original import sam as stock_sam
from .metric import miou
from .picture import masks_exhibit, masks_picture
from .promptable_hf import PromptedHF, decode_hf_once, family_of, from_hf, is_hf_folder
from .recipe import FULL_SIZE, NANO, RECIPES

if TYPE_CHECKING:
    from prunekit.scorers import Reads, Scorer, Within

# Generated scenes come from numbered streams; these are apart from the ones that the bundled model was trained and
# evaluated on, and from each other.
TRAIN_STREAM, VAL_STREAM = 500_000, 700_000
GENERATED_SIDE = 128  # pixels of a scene; larger models resize it


def preprocessed(sam: nn.Module, samples: Sequence[data.MaskedImage]) -> Tensor:
    """Samples as the image encoder reads them: float (B, 3, S, S), longest side S, normalised, padded; on the CPU."""
    if not isinstance(sam, Sam):
        reader = prompted_by(sam)
        assert isinstance(reader, PromptedHF)
        return torch.stack([reader.pixels(sample.image) for sample in samples])
    model = sam
    transform = ResizeLongestSide(model.image_encoder.img_size)
    rows = []
    for sample in samples:
        pixels = torch.as_tensor(transform.apply_image(sample.image), device="cpu").permute(2, 0, 1)[None].float()
        rows.append(model.preprocess(pixels.to(model.device)).cpu())
    return torch.cat(rows)


def sa1b(sam: nn.Module, folder: Path | None, split: str, count: int | None, seed: int, part: str = "all") -> Samples:
    """Samples of a folder (SA-1B, its tars, COCO), or generated scenes. Masks are read for validation only.

    In training the next good sample stands in for one that cannot be decoded; for validation every sample is decoded
    once beforehand, so that none counts twice. Raises DataError.
    """
    encode = partial(preprocessed, sam)
    if folder is None:
        stream = (TRAIN_STREAM if split == "train" else VAL_STREAM) + seed
        return Samples(data.GeneratedScenes(count or 64, stream, GENERATED_SIDE), encode, generated=True)
    # validation takes other samples in the place of bad ones, and so must know of more than it needs
    found = data.found_in(folder, split, None if split == "val" else count, part)
    skipped = list(found.skipped)
    items: Sequence[data.MaskedImage]
    if split == "val":
        items = Checked(found, found.names, skipped, count)
    else:
        items = Sound(found, found.names, skipped)
        items = items if count is None else First(items, count)
    return Samples(items, encode, skipped=skipped)


def decode_once(model: nn.Module) -> object:
    """Everything but the image encoder, once: one point on an empty embedding."""
    sam = cast(Sam, model)
    side = sam.prompt_encoder.image_embedding_size
    embedding = torch.zeros(1, sam.prompt_encoder.embed_dim, *side, device=sam.device)
    point = torch.full((1, 1, 2), 8.0, device=sam.device), torch.ones(1, 1, device=sam.device)
    sparse, dense = sam.prompt_encoder(points=point, boxes=None, masks=None)
    return sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False)


def _entry(name: str) -> ModelEntry:
    return ModelEntry(
        factory=lambda checkpoint: models.build_sam(name, checkpoint),
        part="image_encoder",
        rest=decode_once,
        answers=mask_logits,
        dataset="sa1b",
        evaluator="miou",
        examiner="masks",
        exporters=("masks.png",),
        exhibitors=("masks",),
        formats=("hf", "sam", "onnx"),
        generated=NANO if name == "nano" else FULL_SIZE,
        lean=lean_attention,
    )


def of_transformers(model: nn.Module) -> ModelEntry | None:
    """What recipes should know of a SAM of transformers, such as ``hf:FOLDER`` gives."""
    if family_of(model) is None:
        return None
    return ModelEntry(
        factory=lambda checkpoint: model,
        part="vision_encoder",
        rest=decode_hf_once,
        dataset="sa1b",
        evaluator="miou",
        examiner="masks",
        exporters=("masks.png",),
        exhibitors=("masks",),
        generated=FULL_SIZE,
    )


def _output_taylor(accumulation: str = "abs", within: Within = "mean", reads: Reads = "all") -> Scorer:
    """The control for disturbed Taylor. Imported when asked for: who loads a slimmed model needs no criterion."""
    from .taylor_of_outputs import OutputTaylor

    return OutputTaylor(accumulation, within, reads)


plugin = Plugin(
    name="sam",
    models={name: _entry(name) for name in models.NAMES},
    recipes={recipe.name: recipe for recipe in RECIPES},
    scorers={"output_taylor": _output_taylor},
    datasets={"sa1b": sa1b},
    evaluators={"miou": miou},
    examiners={"masks": compared},
    exporters={"masks.png": masks_picture},
    exhibitors={"masks": masks_exhibit},
    formats={"hf": hf, "sam": stock_sam, "onnx": onnx},
    foreign={"transformers": Foreign(is_hf_folder, from_hf, examiner="masks")},
    entry_of=of_transformers,
)
