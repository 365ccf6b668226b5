"""Products weight x gradient over calibration samples, one forward and one backward pass a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from prunekit.errors import ScorerError
from prunekit.inputs import Inputs, Sample, map_tensors, reals, tensors_in
from prunekit.inputs.per_rank import ALONE, Alone
from prunekit.scorers.accumulate import Accumulation
from prunekit.scorers.needs import Objective
from prunekit.scorers.undisturbed import restore_caches, tensor_caches, untouched

Progress = Callable[[int, int], None]

# Gradients of a mean over millions of outputs are below what float16 can hold, so they are taken scaled up; the
# largest scale that keeps every gradient finite is used and divided out in float32.
HALF_SCALES = (2.0**24, 2.0**16, 2.0**8, 1.0)


def products(
    model: nn.Module,
    samples: Sequence[Sample],
    objective: Objective,
    accumulation: Accumulation,
    weights: Mapping[str, nn.Parameter],
    progress: Progress | None = None,
    ranks: Alone = ALONE,
    count: int | None = None,
) -> dict[str, Tensor]:
    """Accumulated |weight x gradient| of each parameter in ``weights``: its shape, float32 at least, its device.

    A parameter that the loss does not reach counts as zero, a complex weight as two real ones, whose products add up.
    The model is left as it was. ``samples`` are those of this rank, and ``count`` is how many all ``ranks`` have
    together.

    Raises:
        ScorerError: a weight, loss or gradient is not finite (names it), or the loss reaches no parameter.
    """
    names = list(weights)
    for name, w in weights.items():
        finite(w, f"the weight {name} is not finite", name)
    parts = [reals(w.detach()) for w in weights.values()]
    totals = [torch.zeros_like(w, dtype=wide(w), memory_format=torch.contiguous_format) for w in parts]
    scales = HALF_SCALES if any(w.dtype == torch.float16 for w in weights.values()) else (1.0,)
    seen = _seen_by_earlier_ranks(samples, model, ranks)
    with untouched(model, names):
        caches = tensor_caches(model)
        for i, sample in enumerate(samples):
            moved = to_model(sample, model)
            content = checksum(moved.inputs)
            key = (content + 0x9E3779B97F4A7C15 * seen[content]) % 2**63
            seen[content] += 1
            loss = checked(objective.loss(model, moved, key), i)
            found = gradients(loss, list(weights.values()), scales)
            for part, g, total in zip(parts, found, totals, strict=True):
                if g is not None:
                    total += accumulation.term(part.to(total.dtype), reals(g))
            del loss, found  # the graph goes before the next image is run
            restore_caches(caches)
            if progress is not None:
                progress(i + 1, len(samples))
    finished = {}
    for name, part, total in zip(names, parts, ranks.total(totals), strict=True):
        finished[name] = parts_added(
            accumulation.finish(part.to(total.dtype), total, count or len(samples)), weights[name]
        )
        finite(finished[name], f"the gradient of {name} is not finite", name)
    return finished


def _seen_by_earlier_ranks(samples: Sequence[Sample], model: nn.Module, ranks: Alone) -> Counter[int]:
    """How often each content occurs among the samples of the ranks before this one."""
    if ranks.size == 1:
        return Counter()
    mine = [checksum(to_model(sample, model).inputs) for sample in samples]
    return Counter(content for told in ranks.all("contents", mine)[: ranks.rank] for content in told)


def finite(tensor: Tensor, what: str, where: str) -> None:
    """Raise ScorerError ``what`` unless every element is finite."""
    # A sum is finite only if every element is; where it is not, it may have overflowed. NaN and infinity both come
    # through the extremes, and no mask as large as the tensor is made.
    if (
        tensor.numel()
        and not bool(torch.isfinite(tensor.sum()))
        and not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(reals(tensor)))
    ):
        raise ScorerError(what, where=where, hint="check the checkpoint and the data")


def gradients(loss: Tensor, weights: Sequence[Tensor], scales: Sequence[float]) -> list[Tensor | None]:
    """Gradients of the loss in float32 at least; None where the loss does not reach a weight."""
    found: list[Tensor | None] = []
    for scale in scales:
        last = scale == scales[-1]
        raw = torch.autograd.grad(loss, weights, torch.full_like(loss, scale), retain_graph=not last, allow_unused=True)
        found = [None if g is None else g.detach().to(wide(g)) / scale for g in raw]
        if last or all(bool(torch.isfinite(g).all()) for g in found if g is not None):
            break
    return found


def parts_added(parts: Tensor, like: Tensor) -> Tensor:
    """What was found for ``reals(like)`` as one number for each element of ``like``."""
    return parts.sum(-1) if like.is_complex() else parts


def wide(tensor: Tensor) -> torch.dtype:
    """The tensor's own type, or float32 where that is wider."""
    return torch.promote_types(tensor.dtype, torch.float32)


def checked(loss: Tensor, index: int) -> Tensor:
    """The loss as a 0-d tensor. Raises ScorerError unless it is a finite scalar that depends on a parameter."""
    where = f"calibration sample {index}"
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise ScorerError("the loss is not a scalar floating tensor", where=where, hint="reduce it with .mean()")
    if not loss.requires_grad:
        raise ScorerError(
            "the loss does not depend on any parameter that is scored",
            where=where,
            hint="does the forward pass run under torch.no_grad, or detach its output?",
        )
    finite(loss, "the loss is not finite", where)
    return loss.reshape(())


def to_model(sample: Sample, model: nn.Module) -> Sample:
    """The sample on the device of the model's first parameter."""
    device = next(model.parameters()).device
    if device.type == "meta":
        raise ScorerError("the model has no weights: it is on the meta device", hint="load it on the CPU or a GPU")
    inputs: Inputs = map_tensors(sample.inputs, lambda t: t.to(device))
    return Sample(inputs, map_tensors(sample.target, lambda t: t.to(device)))


def checksum(inputs: Inputs) -> int:
    """A 63-bit number of the values in the inputs. Integer sums wrap and commute, so devices agree on it."""
    total = 0
    for position, tensor in enumerate(tensors_in(inputs)):
        bits = reals(tensor.detach()).flatten().double().view(torch.int64)
        places = torch.arange(1, 2 * bits.numel(), 2, device=bits.device) * 0x5851F42D4C957F2D
        mixed = (bits ^ (bits >> 29)) * places
        total = total * 31 + position + int((mixed ^ (mixed >> 32)).sum())
    return total % 2**63
