"""Second moments of what products with parameters read: sums over the rows of one sweep over the samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.errors import PrunekitError, ScorerError
from prunekit.inputs import Inputs, sample_named
from prunekit.modules.moments import Split, drawn_rows, lies_in_plan, on_device, row_count
from prunekit.modules.observing import Product, as_matrix, observed, rows_of
from prunekit.modules.soundness import all_finite
from prunekit.scorers.undisturbed import restore_caches, tensor_caches, untouched

LEAST_ROWS, ROWS_A_FEATURE = 4096, 16  # that are read where nothing is said


@dataclass(eq=False)
class Reads:
    """What one part of a parameter reads: sums of its rows, one for all calls; ``like`` is a call of it."""

    like: Product
    split: Split = field(default_factory=Split)
    mean_of: str | None = None  # the running mean that takes the intercept where there is no bias
    ends: int = 0  # calls that end in that norm
    calls: int = 0


def swept(
    model: nn.Module,
    wanted: Callable[[Product], bool],
    samples: Sequence[Inputs],
    *,
    rows: int | None = None,
    seed: int = 0,
    first: int = 0,
    of: int | None = None,
    refuse: type[PrunekitError] = ScorerError,
) -> list[Reads]:
    """What every part of the parameters of ``wanted`` products reads, over all samples; a quarter of them is held out.

    At most ``rows`` of each, drawn by ``seed``, over ``of`` samples, of which these begin at number ``first``. The
    model is left as it was. Raises ``refuse`` where what is read is not finite.
    """
    weights = dict(model.named_parameters())
    means = {buffer.data_ptr(): name for name, buffer in model.named_buffers()}
    found: dict[tuple[Any, ...], Reads] = {}
    last: list[Any] = []
    met: Counter[tuple[Any, ...]] = Counter()  # in one sample, so that a draw does not depend on those before it
    number, count = first, len(samples) if of is None else of

    def see(product: Product, output: Tensor) -> None:
        last.clear()
        weight = weights[product.name]
        if not wanted(product) or not lies_in_plan(product, weight) or not output.is_floating_point():
            return
        key = (product.name, product.start, product.outputs, product.feature_axis, product.groups)
        reads = found.setdefault(key, Reads(product))
        reads.calls += 1
        met[key] += 1
        most = rows or max(LEAST_ROWS, ROWS_A_FEATURE * as_matrix(product, weight).shape[2])
        taken = drawn_rows(row_count(product, output), -(-most // count), seed + 7920 * number + met[key])
        read = rows_of(product, weight, taken.to(weight.device))
        if not all_finite(read):
            where = f"calibration sample {number}"
            raise refuse(f"what {product.name} reads is not finite", where=where, hint="check the data")
        _held_out(reads.split, read, number if count >= 4 else None)
        last[:] = [reads, output]

    def norm(given: Tensor, mean: Tensor) -> None:
        if last and given is last[1] and mean.data_ptr() in means:
            reads = last[0]
            reads.mean_of, reads.ends = means[mean.data_ptr()], reads.ends + 1

    with untouched(model, ()), torch.no_grad():
        caches = tensor_caches(model)
        for sample in samples:
            moved = on_device(sample, model)
            with sample_named(number), observed(model, after=see, norm=norm):
                model(*moved.args, **moved.kwargs)
            restore_caches(caches)
            met.clear()
            number += 1
    return list(found.values())


def _held_out(split: Split, rows: Tensor, number: int | None) -> None:
    """Takes rows (G, R, K) of sample ``number`` in; of few samples a quarter of each is held out."""
    if number is not None:
        (split.held if number % 4 == 3 else split.tried).add(rows)
        return
    tried = rows.shape[1] - rows.shape[1] // 4
    split.tried.add(rows[:, :tried])
    split.held.add(rows[:, tried:])
