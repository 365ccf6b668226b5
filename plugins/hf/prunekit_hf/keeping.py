"""What of a model a folder of prunekit keeps, so that the class is built again without the original's own folder."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from prunekit.errors import CheckpointError
from prunekit.plugins import Recorded
from prunekit_hf.blueprint import Blueprint, empty

logger = logging.getLogger(__name__)


def kept(model: nn.Module) -> Recorded | None:
    """Class and configuration as JSON values; None for a class, or a configuration, that the library does not have.

    ``says_widths`` is true where the class builds just these sizes from the configuration as it now stands.
    """
    assert isinstance(model, PreTrainedModel)
    kinds = (type(model), type(model.config))
    if any(getattr(transformers, kind.__name__, None) is not kind for kind in kinds):
        return None
    name = str(getattr(model, "name_or_path", "") or "")
    generation = getattr(model, "generation_config", None)
    values: dict[str, Any] = {
        "class": kinds[0].__name__,
        "config_class": kinds[1].__name__,
        "config": json.loads(model.config.to_json_string()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "generation_config": json.loads(generation.to_json_string()) if generation else None,
        "name_or_path": name,
    }
    try:
        made = _built(values, "meta")
        if (chosen := model.config._attn_implementation) != made.config._attn_implementation:
            values["attention"] = chosen  # not what the class takes by itself
            made = _built(values, "meta")
    except Exception as error:
        # Some classes refuse the very configuration they were built from. Then load() asks for an instance, as it does
        # for every model whose library is not known: nothing is lost but the one line.
        logger.info("%s is kept without its configuration: %s", kinds[0].__name__, error)
        return None
    given = Blueprint.of(made)
    says_widths = not given.apart(Blueprint.of(model))
    return Recorded(values, says_widths, given.sizes, f"hf:{name}?class={kinds[0].__name__}" if name else "hf:")


def rebuilt(values: Mapping[str, Any]) -> nn.Module:
    """A model of that class without its weights, on the CPU. Raises CheckpointError for values that do not build."""
    try:
        model: Any = _built(values, "cpu").to(getattr(torch, values["dtype"]))
        if values.get("generation_config"):
            model.generation_config = transformers.GenerationConfig.from_dict(dict(values["generation_config"]))
        model.name_or_path = str(values.get("name_or_path", ""))
    except Exception as error:  # the library's own refusals are of many kinds
        said = str(error).strip().partition("\n")[0][:200]
        raise CheckpointError(
            f"transformers {transformers.__version__} does not build the model that is kept: {said}",
            hint="pass a fresh instance of the original: load(folder, model)",
        ) from error
    made: nn.Module = model
    return made


def _built(values: Mapping[str, Any], device: str) -> PreTrainedModel:
    kind, config_kind = getattr(transformers, values["class"]), getattr(transformers, values["config_class"])
    if not (issubclass(kind, PreTrainedModel) and issubclass(config_kind, PreTrainedConfig)):
        raise TypeError(f"{kind.__name__} is no model of transformers")
    with tempfile.TemporaryDirectory() as folder:  # as the library reads it: infinities and tuples are its own affair
        (Path(folder) / "config.json").write_text(json.dumps(values["config"]))
        config = config_kind.from_pretrained(folder, attn_implementation=values.get("attention"))
    return empty(kind, config, device)
