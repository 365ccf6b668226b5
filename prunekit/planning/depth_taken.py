"""Units of depth taken one after another until enough are gone, and again without those that have to stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prunekit.coupling.groups import Frozen
from prunekit.coupling.structure import Structure
from prunekit.errors import NothingToPruneError, SelectionError
from prunekit.options import Options
from prunekit.planning.depth_amount import Until
from prunekit.planning.depth_bounds import least_of, most_of, too_few
from prunekit.planning.depth_choice import DepthChoice
from prunekit.plans.contents import Plan
from prunekit.quantities.gauge import Gauge
from prunekit.removal.certificate import Certificate
from prunekit.removal.covering import Unit
from prunekit.removal.ranking import Order


def settled_units(
    choice: DepthChoice, order: Order, structure: Structure, options: Options, enough: Until
) -> tuple[Plan, Certificate, list[Unit]]:
    """Takes units until it is enough, and again without those that turn out to have to stay."""
    most, least = most_of(choice.groups, structure, options), least_of(choice.groups, options)
    while True:
        gone: list[Unit] = []
        for name, count in least.items():
            gone += order.taken(gone, choice.never, {at: count if at == name else 0 for at in most})
            if sum(at == name for at, _ in choice.cover.closed(gone)) < count or count > most[name]:
                raise too_few(name, count, choice.refused)
        for pool in enough.pools:
            upcoming = order.taken(gone, choice.never, {name: most[name] if name in pool else 0 for name in most})
            while not enough(pool, choice.cover.closed(gone), choice.kept(gone)):
                unit = next(upcoming, None)
                if unit is None:
                    break
                gone.append(_last_or(unit, gone, choice, order, enough, most))
        if not gone:
            raise _nothing_goes(choice, structure, options)
        done = choice.certified(gone)
        if done is None:
            continue
        if enough.gauge is not None and not enough.gauge.met(enough.gauge.exactly(choice.kept(gone))):
            raise _out_of_reach(choice, gone, enough.gauge)
        return (*done, gone)


def _last_or(
    unit: Unit, gone: Sequence[Unit], choice: DepthChoice, order: Order, enough: Until, most: Mapping[str, int]
) -> Unit:
    """``unit``, or where it meets the target and is larger than it need be, the one that damages least of such."""
    gauge = enough.gauge
    if gauge is None or not choice.cover.inside:
        return unit

    def ends(other: Unit) -> bool:
        return gauge.met(gauge.exactly(choice.kept([*gone, other])))

    return (order.last(gone, choice.never, most, ends) if ends(unit) else None) or unit


def no_blocks(structure: Structure, refused: Sequence[Frozen]) -> NothingToPruneError:
    """What says why every unit stays: those that were found and ``refused``, each with its reason."""
    rows = [*structure.depth.frozen, *refused]
    lines = [f"{f.name}: {f.reason}" for f in rows[:40]] or ["no list of modules has a residual block as its entry"]
    return NothingToPruneError("no block can go:\n    " + "\n    ".join(lines), hint="prune widths: leave roles out")


def _nothing_goes(choice: DepthChoice, structure: Structure, options: Options) -> NothingToPruneError:
    if choice.refused or len(choice.never) == sum(g.size for g in choice.groups):
        return no_blocks(structure, choice.refused)
    every = sum(group.size for group in choice.groups)
    return NothingToPruneError(
        f"the ratio or target takes none of {every} blocks",
        where=f"ratio={options.scope.share}" if options.scope.target is None else f"target={options.scope.target}",
        hint=f"a ratio of {1 / every:.2g} takes one block",
    )


def _out_of_reach(choice: DepthChoice, gone: Sequence[Unit], gauge: Gauge) -> SelectionError:
    usage = gauge.exactly(choice.kept(gone))
    places = {(g.name, u): path for g in choice.groups for u, path in enumerate(g.places)}
    over = ", ".join(f"{name} {usage[name]:.6g}" for name, most in gauge.limits.items() if usage[name] > most)
    set_gone = ", ".join(places[unit] for unit in gone)
    return SelectionError(
        f"the target is out of reach by depth alone: without {set_gone} there are still {over}",
        where=", ".join(f"{name}<={most:.6g}" for name, most in gauge.limits.items()),
        hint="raise the limit, or prune widths of what is left",
    )
