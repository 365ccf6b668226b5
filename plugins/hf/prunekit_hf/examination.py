"""Language models side by side on one text: perplexity and next-token accuracy, each with its spread."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev

import torch
from torch import Tensor, nn

from prunekit.errors import InputError
from prunekit.plugins import Examination, Examined
from prunekit_hf.text_data import WindowFigures, figures_of, ids_of, reads_text, tells_the_next_token, text_windows

TRIVIAL = "trivial"
ASKED = "text"
SHOWN = ("perplexity", "next_token_accuracy", "times_first")
NORMAL = 1.96  # standard errors on either side hold 95 % of means

Figures = dict[str, float | int | None]


def told_apart(
    models: Mapping[str, Callable[[], nn.Module]], request: Examination, progress: Callable[[str, int, int], None]
) -> Examined:
    """Causal language models on the same windows of one text, and an answer without a model.

    ``perplexity`` is over all tokens, its bounds hold 95 % by the spread over windows. ``times_first`` is the
    perplexity over that of the first model; its bounds are by paired differences, and so much narrower. ``trivial``
    answers the token that most often follows in the other windows of the same text.

    Raises InputError for a model that does not tell next tokens, prompts, and models whose tokenizers differ.
    """
    if request.prompts:
        raise InputError("a language model takes no prompts", where=request.prompts, hint="leave --prompts out")
    rows: dict[str, Mapping[str, Figures]] = {}
    windows: list[Tensor] | None = None
    first: Sequence[WindowFigures] = ()
    for name, build in models.items():
        model = build().eval()
        read = _read_by(name, model, request)
        if windows is not None and not _equal_windows(windows, read):
            raise InputError(
                f"{name} reads the text as other tokens than {next(iter(models))}, and perplexities are by the token",
                hint="evaluate models with different tokenizers apart",
            )
        windows = read
        device = next(model.parameters()).device
        found = list(figures_of(model, [ids.to(device) for ids in windows], partial(progress, name)))
        first = first or found
        rows[name] = {ASKED: _figures(found, first)}
    assert windows is not None
    rows[TRIVIAL] = {ASKED: {"next_token_accuracy": bigram_accuracy(windows)}}
    tokens = windows[0].shape[-1]
    return Examined(
        rows,
        {"windows": len(windows), "tokens": sum(ids[:, 1:].numel() for ids in windows)},
        SHOWN,
        f"{len(windows)} windows of {tokens} tokens",
        "times first: perplexity over that of the first model; brackets hold 95 %",
    )


def bigram_accuracy(windows: Sequence[Tensor]) -> float:
    """How often the most frequent successor in the other windows is right; windows are (1, tokens)."""
    pairs = [list(itertools.pairwise(ids.flatten().tolist())) for ids in windows]
    after: dict[int, Counter[int]] = {}
    for a, b in itertools.chain.from_iterable(pairs):
        after.setdefault(a, Counter())[b] += 1
    right = 0
    for own in pairs:
        for a, b in own:
            after[a][b] -= 1
        right += sum(1 for a, b in own if (most := after[a].most_common(1)[0])[1] > 0 and most[0] == b)
        for a, b in own:
            after[a][b] += 1
    return right / sum(map(len, pairs))


def _read_by(name: str, model: nn.Module, request: Examination) -> list[Tensor]:
    if not (reads_text(model) and tells_the_next_token(model)):
        raise InputError(
            f"{name} is a {type(model).__name__}, which does not tell the next token",
            hint="a causal language model does; prunekit compare tells how far others agree with their original",
        )
    samples = text_windows(model, request.data, "val", request.images, request.seed, request.split)
    return [ids_of(samples.batch([index])) for index in range(len(samples))]


def _equal_windows(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _figures(found: Sequence[WindowFigures], first: Sequence[WindowFigures]) -> Figures:
    losses = [window.loss / window.tokens for window in found]
    apart = [a - b.loss / b.tokens for a, b in zip(losses, first, strict=True)]
    return {
        **_bounded("perplexity", losses, _exp),
        **_bounded("next_token_accuracy", [window.right / window.tokens for window in found], float),
        **_bounded("times_first", apart, _exp),
    }


def _bounded(name: str, values: Sequence[float], of: Callable[[float], float]) -> Figures:
    """``of`` the mean, and of the bounds that hold 95 % of it; None where one window tells of no spread."""
    middle = mean(values)
    side = NORMAL * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        name: of(middle),
        f"{name}_low": None if side is None else of(middle - side),
        f"{name}_high": None if side is None else of(middle + side),
    }


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # larger ones are no floats
