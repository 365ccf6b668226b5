"""The plug-in: what this distribution brings to prunekit. The library is imported when one of its models is met."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.plugins import (
    Compared,
    Examination,
    Examined,
    Foreign,
    Home,
    ModelEntry,
    Plugin,
    Recorded,
    Settlement,
    Words,
)

if TYPE_CHECKING:
    from prunekit.inputs import Inputs
    from prunekit.plans import Bundle
    from prunekit.samples import Samples

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


def as_kept(model: nn.Module) -> Recorded | None:
    """What a folder keeps of this model."""
    from prunekit_hf.keeping import kept

    return kept(model)


def from_kept(values: Mapping[str, Any]) -> nn.Module:
    """The model that such a folder is about, without its weights."""
    from prunekit_hf.keeping import rebuilt

    return rebuilt(values)


def found(name: str, options: Mapping[str, Any]) -> tuple[nn.Module, ModelEntry | None]:
    """The model in a folder, a GGUF file or a hub, and how it is given data: text, where it reads that."""
    from prunekit_hf.places import model_at
    from prunekit_hf.text_data import reads_text, tells_the_next_token

    model = model_at(name, options)
    entry = ModelEntry(lambda checkpoint: model, uniform=True)
    if not reads_text(model):
        return model, entry
    evaluator = "next_token" if tells_the_next_token(model) else ""
    return model, replace(entry, dataset="text", evaluator=evaluator, holds_out=True)


def windows(
    model: nn.Module, folder: Path | None, split: str, count: int | None, seed: int, part: str = "all"
) -> Samples:
    """Windows of token ids out of a text."""
    from prunekit_hf.text_data import text_windows

    return text_windows(model, folder, split, count, seed, part)


def told_figures(model: nn.Module, samples: Samples, progress: Callable[[int, int], None]) -> Mapping[str, float]:
    """How well the next token is told."""
    from prunekit_hf.text_data import next_token

    return next_token(model, samples, progress)


def examined(
    models: Mapping[str, Callable[[], nn.Module]], request: Examination, progress: Callable[[str, int, int], None]
) -> Examined:
    """Language models side by side."""
    from prunekit_hf.examination import told_apart

    return told_apart(models, request, progress)


def holds_language_model(folder: Path) -> bool:
    """Whether a folder holds weights of a causal language model in the library's own form, or as GGUF."""
    try:
        told = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return any(folder.glob("*.gguf"))
    named = told.get("architectures") if isinstance(told, dict) else None
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in named or ())


def lying_in(folder: Path) -> nn.Module:
    """The model in such a folder."""
    from prunekit_hf.places import model_at

    return model_at(str(folder), {})


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
    homes={"transformers": Home(is_of_transformers, studied, brought_home, as_kept, from_kept, CACHES)},
    foreign={"transformers": Foreign(holds_language_model, lying_in, examiner="next_token")},
    examiners={"next_token": examined},
    source=found,
    source_examiner="next_token",
    datasets={"text": windows},
    evaluators={"next_token": told_figures},
)
