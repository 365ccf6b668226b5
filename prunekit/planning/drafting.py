"""A plan in the making: groups are chosen, scored and selected; the model's own code is asked whether it follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import InputError
from prunekit.inputs.per_rank import kept_to_read_again
from prunekit.options import Options
from prunekit.options.measured import as_measured
from prunekit.planning.clocked import Make, clocked_draft
from prunekit.planning.depth_by_damage import as_draft, depth_within_target
from prunekit.planning.depth_criteria import for_blocks
from prunekit.planning.depth_options import check_depth_options
from prunekit.planning.depth_search import deep_draft
from prunekit.planning.parting import Parted, parted
from prunekit.planning.sharing import shared_target
from prunekit.planning.width_drafts import Draft, check_allocation, widths_after, widths_draft
from prunekit.quantities.gauge import Baseline


def draft(
    model: nn.Module,
    structure: Structure,
    options: Options,
    *,
    data: Iterable[Any] | None = None,
    progress: Any = None,
    baseline: Baseline | None = None,
    sizes: Mapping[str, int] | None = None,
    gone: Mapping[str, int] | None = None,
) -> Draft:
    """A plan with everything that led to it.

    ``baseline`` is what a relative target refers to, if not ``structure``; ``sizes`` what a ratio refers to, see
    ``Conditions``, and ``gone`` how many of them went earlier, of depth, by group and role. Raises
    NothingToPruneError, and with ``uniform`` ConfigError where no plan can be said.
    """
    parts = parted(options)
    _check_maps(parts)
    searched = parts.depth is not None or as_measured(options.choice.allocation) is not None
    held: Any = kept_to_read_again(data) if data is not None and searched else data
    known: dict[str, Any] = {"data": held, "progress": progress, "sizes": sizes, "gone": gone}
    target = options.scope.target
    if not searched or target is None:
        return _one_choice(model, structure, options, baseline, **known)
    make: Make = partial(_one_choice, model, structure, **known)
    baseline = baseline or Baseline.of(model, structure, target, options.cutting.latency)
    return clocked_draft(model, structure, options, baseline, make)


def _one_choice(
    model: nn.Module,
    structure: Structure,
    options: Options,
    baseline: Baseline | None,
    *,
    data: Any,
    progress: Any,
    sizes: Mapping[str, int] | None,
    gone: Mapping[str, int] | None,
) -> Draft:
    """One choice of what goes."""
    parts = parted(options)
    if parts.depth is not None:
        if parts.widths is None:
            check_depth_options(model, parts.depth)
            check_allocation(parts.depth, structure)
        if parts.widths is not None and options.scope.target is not None:
            return shared_target(model, structure, parts.depth, parts.widths, data, progress, baseline)
        how = as_measured(parts.depth.choice.allocation)
        if parts.widths is None and how is not None:
            return depth_within_target(model, structure, parts.depth, how, data, progress, baseline)
        asked = parts.depth if parts.widths is None else for_blocks(parts.depth)
        before: dict[str, Any] = {"baseline": baseline, "sizes": sizes, "gone": gone}
        deep = depth_draft(model, structure, asked, data=data, progress=progress, **before)
        return deep if parts.widths is None else widths_after(model, structure, deep, parts.widths, data, progress)
    return widths_draft(model, structure, options, data=data, progress=progress, baseline=baseline, sizes=sizes)


def _check_maps(parts: Parted) -> None:
    """Raises InputError where affine maps are asked for and nothing goes whole, or widths in the same plan."""
    asked = parts.widths
    if asked is None or asked.cutting.replace is None:
        return
    if parts.depth is not None and asked.scope.target is not None:
        return  # maps are measured there as what they cost and damage
    what = "nothing that it could stand for" if parts.depth is None else "widths of what is left in the same plan"
    raise InputError(
        f"replace={asked.cutting.replace!r} is asked for, and {what}",
        where="replace",
        hint='prune with roles=["depth.block"] or ["depth.mlp"], and widths in a call of its own',
    )


def depth_draft(model: nn.Module, structure: Structure, options: Options, **given: Any) -> Draft:
    """The plan of ``deep_draft``, whose errors it raises, as a draft."""
    return as_draft(deep_draft(model, structure, options, **given), structure)
