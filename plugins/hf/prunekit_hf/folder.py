"""``hf``: the pruned model as a folder of transformers, which ``from_pretrained`` loads without prunekit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunekit.errors import CheckpointError, ExportError, InputError
from prunekit.exports import agreeing, only_fp32
from prunekit.inputs import Inputs, infer
from prunekit.plugins import Compared
from prunekit_hf.homecoming import settle
from prunekit_hf.text_data import tokenizer_at

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from prunekit.plans import Bundle

BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken")  # tokenizer, processor, generation settings
PREPARING = (
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.txt",
)
NOT_BESIDE = ("config.json", "*.safetensors.index.json", "*.bin.index.json", "prunekit*.json")


def written_home(bundle: Bundle, folder: Path, precisions: Sequence[str]) -> Sequence[Compared]:
    """Models of ``hf:``: ``from_pretrained(folder)`` gives the pruned model; tokenizer and processor lie beside it.

    The folder is loaded again by the class itself and compared on example inputs. Raises ExportError for widths that
    the configuration of the class cannot say.
    """
    only_fp32(precisions, "hf")
    model = bundle.model
    if not isinstance(model, PreTrainedModel):
        raise ExportError(f"{type(model).__name__} is no model of transformers", hint="use --to exported")
    inputs = infer(model)
    settlement = settle(model, inputs)
    if settlement.trouble:
        raise ExportError(
            settlement.trouble,
            where=type(model).__name__,
            hint="prune with uniform=True; or load the folder as it is: prunekit.load(folder)",
        )
    model.save_pretrained(folder)
    beside(bundle.spec, folder)
    again = type(model).from_pretrained(folder, dtype=model.dtype).train(False)
    pairs = zip(_float_outputs(model, inputs), _float_outputs(again, inputs), strict=True)
    return [agreeing(f"output {number}", mine, theirs) for number, (mine, theirs) in enumerate(pairs)]


def beside(spec: str, folder: Path) -> None:
    """What lies beside the original's weights and speaks of no width goes along: tokenizer, processor, generation.

    Out of a GGUF file, or the files that a hub left here, the tokenizer is written anew. No network is asked.
    """
    name = spec.partition(":")[2].partition("?")[0]
    if not name:
        return
    source = Path(name).expanduser()
    is_file = source.suffix == ".gguf"
    for file in sorted({file for pattern in BESIDE for file in (source.parent if is_file else source).glob(pattern)}):
        if not any(file.match(pattern) for pattern in NOT_BESIDE) and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)
    if any((folder / known).exists() for known in PREPARING):
        return
    try:
        tokenizer_at(name, local_files_only=True).save_pretrained(folder)
    except (InputError, CheckpointError) as error:  # many models have none
        logger.info("no tokenizer goes along: %s", error.what)


def _float_outputs(model: PreTrainedModel, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        found = model(*inputs.args, **inputs.kwargs).to_tuple()
    return [tensor for tensor in found if isinstance(tensor, Tensor) and tensor.is_floating_point()]
