"""What a model loses when some of its blocks are passed by, measured at its outputs and without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import ScorerError
from prunekit.inputs import Sample, is_number, reals
from prunekit.modules.bypassing import watched
from prunekit.modules.setting_aside import Passage, set_aside
from prunekit.modules.silencing import Addend, overheard
from prunekit.modules.unrouting import Route
from prunekit.scorers.calibrate import Progress, to_model
from prunekit.scorers.undisturbed import untouched
from prunekit.tracing.recorder import named_outputs

Distance = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]
_LOGITS = "logits"
_OUTER = 2  # parts of a place; further inside lies what a model keeps for itself, such as a cache


def damages(
    model: nn.Module,
    samples: Sequence[Sample],
    sets: Sequence[Sequence[Passage]],
    distance: str,
    progress: Progress | None = None,
) -> list[float]:
    """For every set of blocks and branches the mean distance of the outputs without it from those as they are.

    One forward pass a sample, and one more a set and sample. ``distance`` as for ``Damage``. The model is left as it
    was. Raises ScorerError without floating outputs, and where outputs are not finite.
    """
    sums = [0.0] * len(sets)
    with untouched(model, ()), torch.no_grad():
        for number, sample in enumerate(samples):
            inputs = to_model(sample, model).inputs

            def outputs(inputs: Any = inputs) -> dict[str, Tensor]:
                return _outer(model(*inputs.args, **inputs.kwargs))

            dense = outputs()
            how = _kl if distance == "kl" or (distance == "auto" and _named_logits(dense)) else _mse
            for at, gone in enumerate(sets):
                with set_aside(model, gone):
                    sums[at] += _finite(how(dense, outputs()), number)
            if progress is not None:
                progress(number + 1, len(samples))
    return [total / len(samples) for total in sums]


def influences(model: nn.Module, samples: Sequence[Sample], places: Sequence[Passage]) -> dict[Passage, float]:
    """For every block or branch 1 - the mean cosine between the stream before it and the one after it.

    Over the last axis of (batch, tokens, features); of any other shape over all that belongs to a sample.
    """
    sums = dict.fromkeys(places, 0.0)

    if any(isinstance(each, Route) for each in places):
        raise ScorerError(
            "an expert is on no stream of its own: what it is given and gives has no influence to measure",
            where="scorer",
            hint="damage, damage_greedy or random",
        )
    blocks = [each for each in places if isinstance(each, str)]
    terms = [each for each in places if isinstance(each, Addend)]

    def note(path: Passage, given: Tensor, made: Tensor) -> None:
        a, b = (t.float() if t.ndim == 3 else t.float().flatten(1) for t in (given, made))
        sums[path] += 1 - float(nn.functional.cosine_similarity(a, b, dim=-1).mean())

    with untouched(model, ()), torch.no_grad(), watched(model, blocks, note), overheard(model, terms, note):
        for number, sample in enumerate(samples):
            inputs = to_model(sample, model).inputs
            model(*inputs.args, **inputs.kwargs)
            if any(value != value for value in sums.values()):
                where = f"calibration sample {number}"
                raise ScorerError("a stream is not finite", where=where, hint="check the checkpoint and the data")
    return {path: total / len(samples) for path, total in sums.items()}


def _outer(result: Any) -> dict[str, Tensor]:
    found = [(at, reals(t)) for at, t in named_outputs(result) if is_number(t) and t.numel()]
    outer = {at: t for at, t in found if at.count(".") < _OUTER} or dict(found)
    if not outer:
        raise ScorerError("the model has no floating output to compare", hint="prune the part of it that has one")
    return outer


def _named_logits(outputs: dict[str, Tensor]) -> bool:
    return any(at.rpartition(".")[2] == _LOGITS for at in outputs)


def _kl(dense: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
    """KL(dense | other) in nats, the mean over everything but the last axis, of what is called logits, or the first."""
    name = next((at for at in dense if at.rpartition(".")[2] == _LOGITS), next(iter(dense)))
    a, b = (nn.functional.log_softmax(outputs[name].float(), -1) for outputs in (dense, other))
    return (a.exp() * (a - b)).sum(-1).mean()


def _mse(dense: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
    """Squared error over squared values, the mean over outputs."""
    each = [
        (other[at].float() - tensor.float()).square().sum() / tensor.float().square().sum().clamp_min(1e-12)
        for at, tensor in dense.items()
    ]
    return torch.stack(each).mean()


def _finite(value: Tensor, number: int) -> float:
    if not bool(value.isfinite()):
        raise ScorerError(
            "the outputs are not finite", where=f"calibration sample {number}", hint="check the checkpoint and the data"
        )
    return float(value)
