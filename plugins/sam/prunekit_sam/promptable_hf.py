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
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from prunekit.errors import CheckpointError

from .promptable import chunks, ordered
from .prompts import Prompts
from .scores import Masks

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # SamImageProcessor's defaults, of pixels 0 to 255


def is_hf(model: nn.Module) -> bool:
    """Whether ``model`` is a ``SamModel``; does not import transformers to find out."""
    return any(c.__name__ == "SamModel" and c.__module__.startswith("transformers.") for c in type(model).__mro__)


def is_hf_folder(folder: Path) -> bool:
    """Whether ``folder`` is one that ``SamModel.save_pretrained`` wrote."""
    try:
        told = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and told.get("model_type") == "sam"


def from_hf(folder: Path) -> nn.Module:
    """The ``SamModel`` in ``folder``. Raises CheckpointError where its tensors are not those of its config."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise CheckpointError(f"{folder} needs transformers", hint="pip install 'prunekit-sam[hf]'") from error
    try:
        with quiet(transformers):
            model, info = transformers.SamModel.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, use_safetensors=True
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a SamModel: {error}", hint="prunekit export DIR --to hf") from error
    if faults := {kind: sorted(map(str, names)) for kind, names in info.items() if names}:
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
    """``model`` is a ``transformers.SamModel`` in evaluation mode; masks are logits above 0."""

    model: Any

    @torch.no_grad()
    def predict(self, image: NDArray[np.uint8], asked: Sequence[Prompts]) -> Sequence[Masks]:
        """The vision encoder runs once; the decoder reads some prompts at a time."""
        size, side = (image.shape[0], image.shape[1]), int(self.model.config.vision_config.image_size)
        transform = ResizeLongestSide(side)
        pixels, resized = self._pixels(transform.apply_image(image), side)
        embedding = self.model.get_image_embeddings(pixels)
        answers = []
        for prompts in asked:
            masks = [np.zeros((0, 1, *size), bool)] if not len(prompts) else []
            for chunk in chunks(prompts, self.model.device):
                given = self._given(chunk, transform, size)
                found = self.model(image_embeddings=embedding, multimask_output=prompts.multimask, **given)
                low = ordered(found.pred_masks[0], found.iou_scores[0])
                large = nn.functional.interpolate(low, (side, side), mode="bilinear", align_corners=False)
                large = large[..., : resized[0], : resized[1]]
                logits = nn.functional.interpolate(large, size, mode="bilinear", align_corners=False)
                masks.append((logits > 0).cpu().numpy())
            answers.append(np.concatenate(masks))
        return answers

    def _pixels(self, resized: NDArray[np.uint8], side: int) -> tuple[Tensor, tuple[int, int]]:
        """(1, 3, side, side), normalised, then padded with zeros; and (height, width) before padding."""
        height, width = resized.shape[:2]
        pixels = torch.as_tensor(resized, dtype=torch.float).permute(2, 0, 1)
        pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        padded = nn.functional.pad(pixels, (0, side - width, 0, side - height))
        return padded[None].to(self.model.device), (height, width)

    def _given(self, prompts: Prompts, transform: ResizeLongestSide, size: tuple[int, int]) -> dict[str, Tensor]:
        device = self.model.device
        if prompts.points is None:
            boxes = torch.as_tensor(transform.apply_boxes(prompts.boxes, size), dtype=torch.float)
            return {"input_boxes": boxes[None].to(device)}
        points = torch.as_tensor(transform.apply_coords(prompts.points, size), dtype=torch.float)[None].to(device)
        return {"input_points": points, "input_labels": torch.ones(points.shape[:3], dtype=torch.int, device=device)}
