"""Example inputs out of what a model says about itself, by attributes and layers, never by class."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import InputError
from prunekit.inputs.values import ASK, Inputs, tensors_in

logger = logging.getLogger(__name__)

DEFAULT_SIDE = 224
TOKENS = 16
WAVE_SAMPLES = 16_000


def infer(model: nn.Module) -> Inputs:
    """Example inputs (batch 1) out of what the model says about itself. Nothing is run.

    Asked in turn: ``pretrained_cfg``/``default_cfg`` with ``input_size``; ``config`` with ``main_input_name``; an
    int ``img_size``/``image_size``; the first convolution, embedding or linear layer. Raises InputError where none
    of them answers. Sizes that the model states are logged at level INFO; one guessed for a first layer is a warning.
    """
    for source in (_from_pretrained_cfg, _from_config, _from_image_size, _from_first_layer):
        found = source(model)
        if found is not None:
            inputs, why = found
            shapes = ", ".join(str(tuple(t.shape)) for t in tensors_in(inputs))
            level = logging.WARNING if source is _from_first_layer else logging.INFO
            logger.log(
                level, "example inputs %s were inferred from %s; pass example_inputs to choose others", shapes, why
            )
            return inputs
    raise InputError("the model says nothing about its inputs", where=type(model).__name__, hint=ASK)


Found = tuple[Inputs, str] | None


def _from_pretrained_cfg(model: nn.Module) -> Found:
    for attribute in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, attribute, None)
        size = _stated(config, "input_size")
        if isinstance(size, (tuple, list)) and len(size) == 3 and all(_is_width(n) for n in size):
            channels, height, width = size
            # The config describes the published weights; this instance may have been built for another input.
            stem = dict(model.named_modules()).get(str(_stated(config, "first_conv")))
            if isinstance(stem, nn.Conv2d) and stem.in_channels % channels:
                channels = stem.in_channels
            height, width = _own_image_size(model) or (height, width)
            return Inputs((_noise(model, 1, channels, height, width),)), f"{attribute}['input_size']"
    return None


def _from_config(model: nn.Module) -> Found:
    config = getattr(model, "config", None)
    name = getattr(config, "main_input_name", None) or getattr(model, "main_input_name", None)
    if config is None or not isinstance(name, str):
        return None
    arguments = inspect.signature(model.forward).parameters
    names = [name]
    # Two-tower models read an image and a text; a decoder beside an encoder reads its own tokens.
    if _stated(config, "vision_config") is not None and _stated(config, "text_config") is not None:
        names += [n for n in ("input_ids", "pixel_values") if n in arguments and n != name]
    if _stated(config, "is_encoder_decoder") is True and "decoder_input_ids" in arguments:
        names.append("decoder_input_ids")
    kwargs: dict[str, Any] = {}
    for argument in names:
        tensor = _config_tensor(model, config, argument)
        if tensor is None:
            return None
        kwargs[argument] = tensor
    return Inputs((), kwargs), "config and main_input_name"


def _config_tensor(model: nn.Module, config: Any, name: str) -> Tensor | None:
    if name == "pixel_values":
        channels = _setting(config, "num_channels", "in_channels", "in_chans")
        height, width = _two(_setting(config, "image_size", "img_size")) or (DEFAULT_SIDE, DEFAULT_SIDE)
        frames = _setting(config, "num_frames")
        leading = (1, frames) if _is_width(frames) else (1,)
        return _noise(model, *leading, channels if _is_width(channels) else 3, height, width)
    if name in ("input_ids", "decoder_input_ids"):
        vocabulary = _setting(config, "vocab_size")
        return _tokens(model, vocabulary) if _is_width(vocabulary) else None
    bins = _setting(config, "num_mel_bins")
    if name == "input_features":
        frames = _setting(config, "max_source_positions")
        # Log-mel frames are halved by the strided stem before the position table is added.
        return _noise(model, 1, bins, 2 * frames) if _is_width(bins) and _is_width(frames) else None
    if name == "input_values":
        frames = _setting(config, "max_length")
        spectrogram = _is_width(bins) and _is_width(frames)
        return _noise(model, 1, frames, bins) if spectrogram else _noise(model, 1, WAVE_SAMPLES)
    return None


def _from_image_size(model: nn.Module) -> Found:
    for attribute in ("img_size", "image_size"):
        if size := _two(getattr(model, attribute, None)):
            stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
            return Inputs((_noise(model, 1, stem.in_channels if stem else 3, *size),)), attribute
    return None


def _from_first_layer(model: nn.Module) -> Found:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels:
            return Inputs((_noise(model, 1, module.in_channels, DEFAULT_SIDE, DEFAULT_SIDE),)), f"Conv2d {name!r}"
        if isinstance(module, nn.Conv1d) and module.in_channels:
            return Inputs((_noise(model, 1, module.in_channels, DEFAULT_SIDE),)), f"Conv1d {name!r}"
        if isinstance(module, nn.Embedding):
            return Inputs((_tokens(model, module.num_embeddings),)), f"Embedding {name!r}"
        if isinstance(module, nn.Linear) and module.in_features:
            return Inputs((_noise(model, 1, module.in_features),)), f"Linear {name!r}"
    return None


def _own_image_size(model: nn.Module) -> tuple[int, int] | None:
    """The image size that the first module which states one was built for."""
    for module in model.modules():
        for attribute in ("img_size", "image_size"):
            if size := _two(getattr(module, attribute, None)):
                return size
    return None


def _stated(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _setting(config: Any, *names: str) -> Any:
    """The first of ``names`` that the config, or one of the configs inside it, sets."""
    inner = [value for value in vars(config).values() if hasattr(value, "__dict__") and not isinstance(value, type)]
    for place in (config, *inner):
        for name in names:
            if (value := getattr(place, name, None)) is not None:
                return value
    return None


def _is_width(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _two(value: Any) -> tuple[int, int] | None:
    if _is_width(value):
        return value, value
    if isinstance(value, Mapping):
        value = (value.get("height"), value.get("width"))
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(_is_width(side) for side in value):
        return value[0], value[1]
    return None


def _home(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Dtype and device of the model's first floating parameter; a meta model gets real inputs on the CPU."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is None:
        return torch.get_default_dtype(), torch.device("cpu")
    return first.dtype, torch.device("cpu") if first.is_meta else first.device


def _noise(model: nn.Module, *shape: int) -> Tensor:
    dtype, device = _home(model)
    # Devices are named: users build models under torch.device("meta") contexts.
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32).to(device, dtype)


def _tokens(model: nn.Module, vocabulary: int) -> Tensor:
    _, device = _home(model)
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randint(0, vocabulary, (1, TOKENS), generator=generator, device="cpu").to(device)
