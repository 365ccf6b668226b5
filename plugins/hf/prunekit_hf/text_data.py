"""Text for models of transformers: windows of token ids out of ``--data``, and how well the next token is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from prunekit.errors import InputError
from prunekit.inputs import Batch, generated, infer, moved, tensors_in
from prunekit.samples import Samples, none_in, text, within
from prunekit_hf.places import located

WINDOW = 256
OTHER_STREAM = 1_000_003  # generated samples to validate on are other ones


def text_windows(
    model: nn.Module, folder: Path | None, split: str, count: int | None, seed: int, part: str = "all"
) -> Samples:
    """Token ids (256,), or as many as the model has positions for; random ones where there is no text.

    Raises InputError where no tokenizer lies with the model, and what ``prunekit.samples.text`` raises.
    """
    if folder is None:
        made = generated(infer(model), count or 64, seed + (OTHER_STREAM if split == "val" else 0))
        rows = [next(tensors_in(inputs))[0] for inputs in made]
        return Samples(rows, stacked_for(model), generated=True)
    config: Any = model.config
    window = min(WINDOW, getattr(config, "max_position_embeddings", None) or WINDOW)
    found = text(folder, tokenizer_of(model), window=window, vocabulary=getattr(config, "vocab_size", None))
    rows = [found[k]["input_ids"][0] for k in range(len(found)) if within(part, f"window {k}")]
    if not rows:
        raise none_in(part, str(folder))
    return Samples(rows if count is None else rows[:count], stacked_for(model))


def stacked_for(model: Any) -> Callable[[Sequence[Tensor]], Batch]:
    """Rows of token ids as a batch for ``model``: a decoder beside an encoder reads the ids that the encoder does."""

    def stacked(rows: Sequence[Tensor]) -> Batch:
        ids = torch.stack(list(rows))
        return {"input_ids": ids, "decoder_input_ids": ids} if has_decoder(model) else ids

    return stacked


def ids_of(batch: Batch) -> Tensor:
    """The token ids (B, tokens) that a batch has for the model, or for its encoder."""
    return batch if isinstance(batch, Tensor) else batch["input_ids"]


def has_decoder(model: Any) -> bool:
    """Whether a decoder with tokens of its own stands beside an encoder."""
    return (
        bool(getattr(model.config, "is_encoder_decoder", False))
        and "decoder_input_ids" in signature(model.forward).parameters
    )


def tokenizer_of(model: Any) -> Any:
    """The tokenizer that lies with the weights."""
    return tokenizer_at(getattr(model, "name_or_path", ""))


def tokenizer_at(name: str, **asked: Any) -> Any:
    """The tokenizer in a folder, a GGUF file or a hub; ``asked`` goes to the library. Raises InputError for none."""
    folder, file = located(name)
    asked |= {"gguf_file": file} if file else {}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **asked)
    except Exception as error:  # the library's own, of many kinds
        first = next(iter(str(error).strip().splitlines()), "")[:200]
        raise InputError(
            f"no tokenizer lies with the model: {first}", where=name, hint="save one there: tokenizer.save_pretrained"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what the library makes where no vocabulary lies there
        raise InputError(
            "no tokenizer lies with the model, only its settings",
            where=name,
            hint="save one there: tokenizer.save_pretrained",
        )
    return tokenizer


@dataclass(frozen=True)
class WindowFigures:
    """What a model makes of one window: the sum of -log p over its tokens, how many it tells right, how many."""

    loss: float
    right: int
    tokens: int


@torch.no_grad()
def figures_of(
    model: nn.Module, windows: Sequence[Tensor], progress: Callable[[int, int], None]
) -> Iterator[WindowFigures]:
    """Of token ids (batch, tokens), window by window; the first token of a row is not told."""
    for index, ids in enumerate(windows):
        logits: Tensor = model(ids, use_cache=False).logits[:, :-1].float()
        wanted = ids[:, 1:]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        yield WindowFigures(float(loss), int((logits.argmax(-1) == wanted).sum()), wanted.numel())
        progress(index + 1, len(windows))


def next_token(model: nn.Module, samples: Samples, progress: Callable[[int, int], None]) -> Mapping[str, float]:
    """``next_token_accuracy``, and ``log_likelihood``: the mean logarithm of a token's probability.

    Perplexity is exp(-log_likelihood).
    """
    device = next(model.parameters()).device
    found = list(figures_of(model, [ids_of(moved(samples.batch([k]), device)) for k in range(len(samples))], progress))
    tokens = sum(window.tokens for window in found)
    return {
        "next_token_accuracy": sum(window.right for window in found) / tokens,
        "log_likelihood": -sum(window.loss for window in found) / tokens,
    }


def reads_text(model: Any) -> bool:
    """Whether token ids are all that a model reads."""
    if getattr(model, "main_input_name", "") != "input_ids":
        return False
    try:
        read = list(infer(model).kwargs)
    except InputError:  # it is told later what it lacks
        return True
    return set(read) <= {"input_ids", "decoder_input_ids"}


def tells_the_next_token(model: Any) -> bool:
    """Whether it is a causal language model."""
    named: Sequence[str] = list(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    return type(model).__name__ in named and bool(model.can_generate())
