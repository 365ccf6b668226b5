"""A Hugging Face ``SamModel`` as something that can be prompted, scored as segment_anything's models are."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from prunekit.errors import CheckpointError

from .promptable import chunks, ordered
from .prompts import Prompts
from .scores import Masks

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation, of pixels 0 to 255
HALF = ((127.5,) * 3, (127.5,) * 3)


@dataclass(frozen=True)
class Family:
    """How the processors of one kind of model read an image.

    ``padded``: the longest side is resized and the rest padded; else both sides are resized. Embeddings of several
    levels come as a list.
    """

    kind: str  # the class, in transformers
    padded: bool
    normal: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


FAMILIES = {
    "sam": Family("SamModel", padded=True),
    "sam2": Family("Sam2Model", padded=False),
    "edgetam": Family("EdgeTamModel", padded=False),
    "sam3_tracker": Family("Sam3TrackerModel", padded=False, normal=HALF),
}


def family_of(model: nn.Module) -> Family | None:
    """Which of ``FAMILIES`` a model is of; does not import transformers to find out."""
    named = {c.__name__ for c in type(model).__mro__ if c.__module__.startswith("transformers.")}
    return next((family for family in FAMILIES.values() if family.kind in named), None)


def is_hf_folder(folder: Path) -> bool:
    """Whether ``folder`` is one that ``save_pretrained`` of such a model wrote."""
    return _type_in(folder) in FAMILIES


def _type_in(folder: Path) -> str:
    try:
        told = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(told.get("model_type")) if isinstance(told, dict) else ""


def from_hf(folder: Path) -> nn.Module:
    """The model in ``folder``. Raises CheckpointError where its tensors are not those of its config."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise CheckpointError(f"{folder} needs transformers", hint="pip install 'prunekit-sam[hf]'") from error
    kind = FAMILIES[_type_in(folder)].kind
    try:
        with quiet(transformers):
            model, info = getattr(transformers, kind).from_pretrained(
                folder, output_loading_info=True, local_files_only=True, use_safetensors=True
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a {kind}: {error}", hint="prunekit export DIR --to hf") from error
    if faults := {which: sorted(map(str, names)) for which, names in info.items() if names}:
        raise CheckpointError(f"{folder} does not fit its config: {faults}", hint="prunekit export DIR --to hf")
    loaded: nn.Module = model.eval()
    return loaded


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No bars on the terminal: a library does not write there."""
    log = transformers.utils.logging
    shown = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            log.enable_progress_bar()


@dataclass(frozen=True)
class PromptedHF:
    """``model``, of transformers, in evaluation mode; masks are logits above 0."""

    model: Any
    family: Family

    @property
    def side(self) -> int:
        """Of the image that the vision encoder reads, in pixels."""
        return int(self.model.prompt_encoder.input_image_size)

    @torch.no_grad()
    def predict(self, image: NDArray[np.uint8], asked: Sequence[Prompts]) -> Sequence[Masks]:
        """The vision encoder runs once; the decoder reads some prompts at a time."""
        size = (image.shape[0], image.shape[1])
        seen = self._seen(size)
        embedding = self.model.get_image_embeddings(self.pixels(image)[None].to(self.model.device))
        answers = []
        for prompts in asked:
            masks = [np.zeros((0, 1, *size), bool)] if not len(prompts) else []
            for chunk in chunks(prompts, self.model.device):
                given = self._given(chunk, (seen[0] / size[0], seen[1] / size[1]))
                # some classes write into the list of levels that they are given
                levels = embedding if isinstance(embedding, Tensor) else list(embedding)
                found = self.model(image_embeddings=levels, multimask_output=prompts.multimask, **given)
                low = ordered(found.pred_masks[0], found.iou_scores[0])
                large = nn.functional.interpolate(low, (self.side, self.side), mode="bilinear", align_corners=False)
                large = large[..., : seen[0], : seen[1]]
                logits = nn.functional.interpolate(large, size, mode="bilinear", align_corners=False)
                masks.append((logits > 0).cpu().numpy())
            answers.append(np.concatenate(masks))
        return answers

    def pixels(self, image: NDArray[np.uint8]) -> Tensor:
        """(3, side, side) of an (H, W, 3) image: resized, normalised, then padded with zeros."""
        height, width = self._seen((image.shape[0], image.shape[1]))
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        mean, deviation = (torch.tensor(values, device="cpu")[:, None, None] for values in self.family.normal)
        pixels = (torch.as_tensor(resized, dtype=torch.float, device="cpu").permute(2, 0, 1) - mean) / deviation
        return nn.functional.pad(pixels, (0, self.side - width, 0, self.side - height))

    def _seen(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of an image of ``size`` once resized, before padding."""
        if not self.family.padded:
            return self.side, self.side
        height, width = ResizeLongestSide.get_preprocess_shape(*size, self.side)
        return height, width

    def _given(self, prompts: Prompts, scale: tuple[float, float]) -> dict[str, Tensor]:
        device = self.model.device
        across = torch.tensor([scale[1], scale[0]], dtype=torch.float, device="cpu")
        if prompts.points is None:
            boxes = torch.as_tensor(np.asarray(prompts.boxes), dtype=torch.float, device="cpu") * across.repeat(2)
            return {"input_boxes": boxes[None].to(device)}
        points = (torch.as_tensor(prompts.points, dtype=torch.float, device="cpu") * across)[None].to(device)
        return {"input_points": points, "input_labels": torch.ones(points.shape[:3], dtype=torch.int, device=device)}


def decode_hf_once(model: Any) -> object:
    """Everything but the vision encoder, once: one point on empty embeddings."""
    sizes = getattr(model, "backbone_feature_sizes", None)
    device, width = model.device, int(model.prompt_encoder.hidden_size)
    empty: Any
    if sizes is None:
        empty = torch.zeros(1, width, *model.prompt_encoder.image_embedding_size, device=device)
    else:
        finer = [layer.out_channels for layer in (model.mask_decoder.conv_s0, model.mask_decoder.conv_s1)]
        wide = [*finer, width]
        empty = [torch.zeros(1, channels, *size, device=device) for channels, size in zip(wide, sizes, strict=True)]
    point = torch.full((1, 1, 1, 2), 8.0, device=device)
    labels = torch.ones(1, 1, 1, dtype=torch.int, device=device)
    return model(image_embeddings=empty, input_points=point, input_labels=labels, multimask_output=False)
