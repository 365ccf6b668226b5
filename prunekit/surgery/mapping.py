"""Affine maps in the place of modules that go, fitted by least squares to what these did to their streams.

    min over A, b of |r - A x - b|^2 + lambda |A|^2

x is what reaches the map, r what the module added to its stream (of a branch its output, of a block what it returned
less what it was given). Only sums of x x^T, x r^T, x and r enter, of one sample after another; lambda is the one that
does best on a quarter of the rows, which may be infinite: then the mean of r is all that is left. Maps are fitted in
the order of the model, each on what those before it give. Where the same plan cuts the stream of a map, or something
else that the module is given, all is read off before anything is cut, and only the features that are left enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.compensation.ridge import refitted
from prunekit.coupling.groups import Absence
from prunekit.errors import InputError, PlanError
from prunekit.graph.tree import of_type
from prunekit.inputs import Inputs, normalise, sample_named
from prunekit.modules.absent import MAP, STREAM, Absent
from prunekit.modules.moments import Split, drawn_rows, on_device
from prunekit.modules.snapshot import write_into
from prunekit.scorers.undisturbed import untouched

MAP_SAMPLES = 128  # that are read at most
_ROWS = 8192  # of all samples together, or 16 a feature


def map_inputs(data: Any) -> list[Inputs]:
    """What maps are fitted on. Raises InputError where there is nothing."""
    samples = [normalise(item) for item in islice(data or (), MAP_SAMPLES)]
    if not samples:
        raise InputError(
            "an affine map is fitted on calibration inputs, and there are none", where="data", hint="pass data="
        )
    return samples


def fitted_map(
    model: nn.Module, absence: Absence, samples: Sequence[Inputs], put_in: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """Weight (N, N) and bias (N,) of the map that ``put_in`` puts in the place of a module, with those before it.

    Raises PlanError where what reaches it has another shape than what it stands for, or a value is not finite.
    """
    kind, axis, size = _told_of(absence)
    rows = partial(_rows_met, model, absence.module, samples, axis, size)
    added = rows(lambda given, made: made - given if kind == STREAM else made)
    put_in()
    return _fitted_to(rows(lambda given, made: given), added, absence, few=len(samples) < 4)


def fitted_uncut(model: nn.Module, together: Sequence[Absence], samples: Sequence[Inputs]) -> tuple[Tensor, Tensor]:
    """Weight (N, N) and bias (N,) of the map of ``together[-1]`` on the N features that are left of its stream.

    ``model`` is whole: what reaches the first of ``together`` is what the map will be given. Raises as ``fitted_map``.
    """
    first, last = together[0], together[-1]
    kind, axis, size = _told_of(last)
    kept = torch.tensor(last.kept or range(size), device="cpu")

    def left(value: Tensor) -> Tensor:
        return value.index_select(axis, kept.to(value.device))

    reached = _rows_met(model, first.module, samples, axis, size, lambda given, made: left(given))
    added = _rows_met(
        model, last.module, samples, axis, size, lambda given, made: left(made - given if kind == STREAM else made)
    )
    return _fitted_to(reached, added, last, few=len(samples) < 4)


def given_otherwise(
    model: nn.Module, named_then: Mapping[str, str], sample: Inputs, cut: Callable[[], Callable[[], None]]
) -> set[str]:
    """Of the modules, by name and the name after ``cut``, those that are given tensors of other shapes then.

    What was given a second tensor, such as the encoder's states, cannot run where the plan cuts that one. The cut is
    taken back.
    """
    whole = _shapes_given(model, list(named_then), sample)
    several = [path for path, calls in whole.items() if any(len(shapes) > 1 for shapes in calls)]
    if not several:
        return set()
    take_back = cut()
    try:
        narrow = _shapes_given(model, [named_then[path] for path in several], sample)
    finally:
        take_back()
    return {path for path in several if narrow[named_then[path]] != whole[path]}


def _shapes_given(model: nn.Module, paths: Iterable[str], sample: Inputs) -> dict[str, list[list[torch.Size]]]:
    """By module and call the shapes of the tensors that it is given."""
    found: dict[str, list[list[torch.Size]]] = {path: [] for path in paths}

    def before(path: str, _: nn.Module, args: Any, kwargs: Any) -> None:
        found[path].append([tensor.shape for tensor in of_type((args, kwargs), Tensor)])

    hooks = [model.get_submodule(p).register_forward_pre_hook(partial(before, p), with_kwargs=True) for p in found]
    try:
        with untouched(model, ()), torch.no_grad(), sample_named(0):
            moved = on_device(sample, model)
            model(*moved.args, **moved.kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _told_of(absence: Absence) -> tuple[str, int, int]:
    """(kind, axis of the features, how many) of a map."""
    kind, _, place = absence.leaves[0].partition(":")
    axis, size = (int(part) for part in place.split("="))
    return kind, axis, size


def _fitted_to(
    reached: Sequence[Tensor], added: Sequence[Tensor], absence: Absence, *, few: bool
) -> tuple[Tensor, Tensor]:
    """``few``: the rows of each sample are divided into those to fit on and those to choose lambda by."""
    if [len(x) for x in reached] != [len(r) for r in added]:
        raise PlanError("what reaches the map has another shape than what it stands for", where=absence.module)
    size, split = added[0].shape[1], Split()
    for number, pair in enumerate(zip(reached, added, strict=True)):
        both = torch.cat(pair, 1)[None]
        held = both.shape[1] // 4 if few else both.shape[1] * (number % 4 == 3)
        split.tried.add(both[:, : both.shape[1] - held])
        split.held.add(both[:, both.shape[1] - held :])
    device = added[0].device
    reads = torch.cat([torch.zeros(size, size, device="cpu"), torch.eye(size, device="cpu")], 1).to(device)
    fit = refitted(split, 0, reads, torch.arange(size, device=device), True, None)
    if not bool(torch.isfinite(fit.change).all() and torch.isfinite(fit.intercept).all()):
        raise PlanError("the affine map is not finite", where=absence.module, hint="check the data")
    return fit.change, fit.intercept


def write_map(absent: Absent, weight: Tensor, bias: Tensor) -> None:
    """Puts what was fitted into the map."""
    held = absent.get_submodule(MAP)
    for name, value in (("weight", weight), ("bias", bias)):
        write_into(held.get_parameter(name), value)


def _rows_met(
    model: nn.Module,
    path: str,
    samples: Sequence[Inputs],
    axis: int,
    size: int,
    of: Callable[[Tensor, Tensor], Tensor],
) -> list[Tensor]:
    """Of every sample some rows (R, size) of what ``of`` makes of the first tensor given and the first returned."""
    found: list[Tensor] = []
    given: list[Tensor] = []
    most = -(-max(_ROWS, 16 * size) // len(samples))

    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        given[:] = [next(of_type((args, kwargs), Tensor)).detach().clone()]

    def after(_: nn.Module, args: Any, output: Any) -> None:
        value = of(given[0], next(of_type(output, Tensor)).detach())
        if value.shape[axis] != size:
            raise PlanError(f"a map of {size} features meets {tuple(value.shape)}", where=path)
        rows = value.movedim(axis, -1).reshape(-1, size)
        found.append(rows[drawn_rows(len(rows), most, len(found)).to(rows.device)].clone())

    module = model.get_submodule(path)
    hooks = [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
    try:
        with untouched(model, ()), torch.no_grad():
            for number, sample in enumerate(samples):
                moved = on_device(sample, model)
                with sample_named(number):
                    model(*moved.args, **moved.kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
