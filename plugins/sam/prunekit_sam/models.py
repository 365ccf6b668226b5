"""SAM models by name, and their checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from prunekit.errors import CheckpointError, RegistryError

NANO_SIZE = 128  # image side in pixels
TINY_SIZE = 256
_NECK = 128  # channels of the embedding that the small models' decoders read
_SHOWN = 3  # faulty keys of each kind that an error lists


def build_sam(name: str, checkpoint: str | Path | None = None) -> Sam:
    """The SAM model `name` (see `NAMES`), in evaluation mode, on the CPU.

    `vit_b`, `vit_l` and `vit_h` are segment_anything's own, with random weights unless `checkpoint` names a file.
    `nano` is a small model of the same classes, for 128 px images; by default it loads the weights shipped here.
    `tiny`, for 256 px, has random weights like the large ones: its training reads photos, so a wheel cannot hold them.

    Raises `RegistryError` for an unknown name and `CheckpointError` for weights that do not fit.
    """
    if name not in _BUILDERS:
        raise RegistryError.unknown("SAM model", name, _BUILDERS)
    model = _BUILDERS[name]()
    if checkpoint is not None:
        load_checkpoint(model, checkpoint)
    elif name == "nano":
        with resources.as_file(resources.files(__package__) / "weights" / "nano.safetensors") as path:
            load_checkpoint(model, path)
    return model.eval()


def nano() -> Sam:
    """The smallest model, random weights: 128 px images, 16 x 16 tokens of width 128, masks of 64 x 64."""
    return _sized(side=NANO_SIZE, patch=8, width=128, depth=4, heads=4, global_at=(1, 3))


def tiny() -> Sam:
    """A small model for photos, random weights: 256 px images, 16 x 16 tokens of width 192, masks of 64 x 64."""
    return _sized(side=TINY_SIZE, patch=16, width=192, depth=8, heads=6, global_at=(1, 3, 5, 7))


def _sized(*, side: int, patch: int, width: int, depth: int, heads: int, global_at: tuple[int, ...]) -> Sam:
    """SAM with an encoder of these sizes (pixels, channels, blocks); prompt encoder and decoder have 128 channels."""
    tokens = side // patch
    encoder = ImageEncoderViT(
        img_size=side,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=4,
        out_chans=_NECK,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=8,
        global_attn_indexes=global_at,
    )
    prompts = PromptEncoder(
        embed_dim=_NECK,
        image_embedding_size=(tokens, tokens),
        input_image_size=(side, side),
        mask_in_chans=16,
    )
    decoder = MaskDecoder(
        transformer_dim=_NECK,
        transformer=TwoWayTransformer(depth=2, embedding_dim=_NECK, num_heads=4, mlp_dim=256),
        iou_head_depth=3,
        iou_head_hidden_dim=128,
    )
    return Sam(encoder, prompts, decoder, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


_BUILDERS: Mapping[str, Callable[[], Sam]] = {
    **{name: sam_model_registry[name] for name in ("vit_b", "vit_l", "vit_h")},
    "nano": nano,
    "tiny": tiny,
}
NAMES: tuple[str, ...] = tuple(_BUILDERS)


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load `path` (.safetensors, or .pth / .pt holding a state dict) into `model`, all or nothing.

    Raises `CheckpointError` for a file that is missing or unreadable and for keys or shapes that are not the model's.
    """
    path = Path(path)
    state = _read_weights(path)
    faults = _faults(model.state_dict(), state)
    if faults:
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}: {'; '.join(faults)}",
            hint="check that the checkpoint belongs to this model name, and that it holds the whole model's state dict",
        )
    model.load_state_dict(state)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", hint="give the path of a .safetensors, .pth or .pt file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and safetensors errors share no base
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(
            f"cannot read the checkpoint {path}: {reason}",
            hint="the file may be truncated or hold more than tensors: download it again, or save the state dict alone",
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(
            f"{path} does not hold a state dict (names to tensors)", hint="save model.state_dict() alone into the file"
        )
    return loaded


def _faults(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    shapes = [
        f"{key} is {tuple(given[key].shape)}, the model has {tuple(value.shape)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(keys)} {kind} ({_first_few(keys)})" for kind, keys in kinds if keys]


def _first_few(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
