"""``hf:FOLDER`` and ``hf:ID``: models of transformers by where they lie, with class, task and dtype as arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.pipelines import SUPPORTED_TASKS

from prunekit.errors import CheckpointError, RegistryError


def model_at(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The model in a folder, of a GGUF file in a folder, or of a hub.

    Args:
        name: a folder that ``save_pretrained`` wrote, a ``.gguf`` file, a folder that holds one, or an id of a hub.
        options: ``task``, such as ``text-classification``; ``class``, such as ``BertForMaskedLM``, by default what the
            config names; ``dtype``, such as ``bfloat16``; any other goes to ``from_pretrained``.

    Raises:
        RegistryError: for a task, class or dtype that is not there, and an id that cannot be reached.
        CheckpointError: for a folder that holds no model, or one that does not load.
    """
    given = dict(options)
    task, kind, dtype = given.pop("task", None), given.pop("class", None), given.pop("dtype", None)
    folder, file = located(name)
    if file is not None:
        given["gguf_file"] = file
    if dtype is not None:
        given["dtype"] = _format_named(str(dtype))
    maker = _maker(folder, str(kind) if kind else "", str(task) if task else "", file is not None)
    try:
        model: nn.Module = maker.from_pretrained(folder, **given)
    except Exception as error:  # a library's own errors for files and hubs are of many kinds
        raise _unusable(name, folder, error) from error
    return _unpacked(model)


def located(name: str) -> tuple[str, str | None]:
    """What ``from_pretrained`` is given, and the GGUF file in it, if the weights are in one."""
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return str(path.parent), path.name
    if not path.is_dir():
        return name, None
    files = sorted(path.glob("*.gguf"))
    has_config = (path / "config.json").is_file()
    if not has_config and not files:
        raise CheckpointError(
            "the folder holds no config.json and no GGUF file", where=name, hint="pass what save_pretrained wrote"
        )
    if has_config or not files:
        return str(path), None
    if len(files) > 1:
        raise CheckpointError(f"the folder holds {len(files)} GGUF files", where=name, hint=f"name one: hf:{files[0]}")
    return str(path), files[0].name


def _maker(folder: str, kind: str, task: str, is_gguf: bool) -> Any:
    if kind and task:
        raise RegistryError("class and task both say which head the model has", where=folder, hint="give one of them")
    if kind:
        found = getattr(transformers, kind, None)
        if found is None or not hasattr(found, "from_pretrained"):
            raise RegistryError.unknown("class of transformers", kind, [n for n in dir(transformers) if "For" in n])
        return found
    if task:
        if task not in SUPPORTED_TASKS:
            raise RegistryError.unknown("task", task, SUPPORTED_TASKS)
        known: Any = SUPPORTED_TASKS[task]
        return known["pt"][0]
    if is_gguf:
        return transformers.AutoModelForCausalLM
    try:
        named = transformers.AutoConfig.from_pretrained(folder).architectures or []
    except Exception as error:  # as above
        raise _unusable(folder, folder, error) from error
    return next((found for each in named if (found := getattr(transformers, each, None))), transformers.AutoModel)


def _format_named(name: str) -> Any:
    found = getattr(torch, name.removeprefix("torch."), None)
    if name != "auto" and not isinstance(found, torch.dtype):
        raise RegistryError.unknown("dtype", name, ["float32", "float16", "bfloat16", "auto"])
    return found if name != "auto" else name


def _unpacked(model: Any) -> nn.Module:
    """Weights out of a quantised file are plain numbers by now; the config still tells how they were packed."""
    if getattr(model, "hf_quantizer", None) is not None:
        del model.hf_quantizer
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    assert isinstance(model, nn.Module)
    return model


def _unusable(name: str, folder: str, error: Exception) -> Exception:
    first = next(iter(str(error).strip().splitlines()), "")[:300]
    if Path(folder).is_dir():
        return CheckpointError(f"it does not load: {type(error).__name__}: {first}", where=name)
    return RegistryError(
        f"hf:{name} is no folder here, and no hub gives it: {type(error).__name__}: {first}",
        hint="check the path, or the id and the network; HF_HUB_OFFLINE=1 reads what was fetched before",
    )
