"""The plug-in: what this distribution brings to prunekit. The library is imported when one of its models is met."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.plugins import Compared, Home, Plugin, Settlement, Words

if TYPE_CHECKING:
    from prunekit.inputs import Inputs
    from prunekit.plans import Bundle

CACHES = ("past_key_values*", "cache_params*", "encoder_past_key_values*", "mems*")


def is_of_transformers(model: nn.Module) -> bool:
    """Whether a model is one of transformers with a configuration to write into."""
    if "transformers" not in sys.modules:
        return False
    from prunekit_hf.homecoming import recognises

    return recognises(model)


def studied(model: nn.Module) -> Words:
    """What the configuration of this model can say."""
    from prunekit_hf.homecoming import study

    return study(model)


def brought_home(model: nn.Module, inputs: Inputs) -> Settlement:
    """The configuration of a pruned model made true, where it can be."""
    from prunekit_hf.homecoming import settle

    return settle(model, inputs)


def found(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The model in a folder, a GGUF file or a hub."""
    from prunekit_hf.places import model_at

    return model_at(name, options)


def as_folder(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """Models of ``hf:``: ``from_pretrained(folder)`` gives the pruned model; tokenizer and processor lie beside it."""
    from prunekit_hf.folder import written_home

    return written_home(bundle, folder, precisions)


def as_graph(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """Models of ``hf:``: ``model.onnx``, without a cache."""
    from prunekit_hf.graphs import hf_onnx

    return hf_onnx(bundle, folder, precisions)


plugin = Plugin(
    "hf",
    formats={"hf": as_folder, "onnx": as_graph},
    homes={"transformers": Home(is_of_transformers, studied, brought_home, CACHES)},
    source=found,
)
