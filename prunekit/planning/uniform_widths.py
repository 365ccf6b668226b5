"""One width a role over all layers, and only widths that the model's own configuration can say.

What a class imposes between widths, as hidden = heads x head_dim, is not known here: plans are made, and the class is
asked whether it builds them. Groups that it builds otherwise are left out, and a ratio that roundings break is taken
in steps that all roles share.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol, TypeVar

from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import ConfigError, InputError, PrunekitError
from prunekit.options import Options
from prunekit.planning.candidates import choose
from prunekit.planning.wording import sizes_after
from prunekit.plans.contents import Plan
from prunekit.plugins.homes import Place, Words
from prunekit.registry.homes import settled, words_of
from prunekit.roles import EMBEDDING, HEAD_DIM, HEADS
from prunekit.surgery.cutting import applied

logger = logging.getLogger(__name__)

ROUNDS = 6  # how often groups are left out of one attempt


class Drafted(Protocol):
    """What is compared: a draft's plan."""

    @property
    def plan(self) -> Plan: ...


D = TypeVar("D", bound=Drafted)


def uniform_draft(model: nn.Module, structure: Structure, options: Options, make: Callable[[Options], D]) -> D:
    """Of the drafts that the configuration can say, the one that removes most, or, within a target, the widest.

    Raises:
        InputError: if no plug-in knows the library of the model.
        ConfigError: if the configuration can say none of them; lists what it builds otherwise.
    """
    words = known_words(model)
    best: tuple[int, D] | None = None
    troubles: list[str] = []
    for attempt in _attempts(structure, options):
        found = _sayable(model, structure, attempt, make, words, troubles)
        if found is not None:
            worth = _removed(structure, found.plan) * (1 if options.scope.target is None else -1)
            best = (worth, found) if best is None or worth > best[0] else best
    if best is None:
        raise ConfigError(
            "the configuration can say none of the widths: " + "; ".join(dict.fromkeys(troubles)),
            hint="name other roles or another ratio; or leave uniform out, and load the saved folder by prunekit.load",
        )
    return best[1]


def known_words(model: nn.Module) -> Words:
    """What the model's own configuration can say. Raises InputError where no plug-in knows its library."""
    words = words_of(model)
    if words is None:
        raise InputError(
            f"nobody knows a configuration of {type(model).__name__} that could say widths",
            where="uniform",
            hint="install the plug-in for its library, such as prunekit-hf; else leave uniform out",
        )
    return words


def _attempts(structure: Structure, options: Options) -> Iterator[Options]:
    """What is asked, then with whole heads instead of parts of all, in steps that roles share, without the stream."""
    groups = structure.groups
    parts = [g.name for g in groups if g.role == HEAD_DIM]
    stream = [g.name for g in groups if g.role == EMBEDDING]
    for left_out in ([], parts, stream, [*parts, *stream]):
        narrowed = _without(options, left_out)
        yield narrowed
        scope, share = options.scope, options.scope.share
        if scope.target is None and isinstance(share, float | int):
            try:
                chosen = choose(structure, narrowed.scope)
            except PrunekitError:
                continue
            bound = [g for g in chosen if g.role in (EMBEDDING, HEADS, HEAD_DIM)]
            steps = math.gcd(*(g.size for g in bound)) if bound else 1
            if steps > 1 and (common := math.floor(share * steps + 1e-9) / steps) > 0:
                roles = dict.fromkeys({str(g.role) for g in bound}, common)
                yield narrowed.replaced(ratio={"*": share, **roles}, align=dict.fromkeys(roles, 1))


def _sayable(
    model: nn.Module,
    structure: Structure,
    options: Options,
    make: Callable[[Options], D],
    words: Words,
    troubles: list[str],
) -> D | None:
    """The draft, without groups that the configuration cannot say; None where nothing is left."""
    for _ in range(ROUNDS):
        try:
            made = make(options)
        except PrunekitError as error:
            logger.debug("an attempt at uniform widths fails: %s", error)
            return None
        if options.scope.target is not None and (even := _even(structure, options, made.plan)) is not None:
            try:
                made = make(even)
            except PrunekitError as error:
                logger.debug("even widths fail: %s", error)
                return None
        wrong = words.say(sizes_after(structure, made.plan)).wrong
        if wrong:
            troubles.append(_places_listed(wrong, sizes_after(structure, made.plan)))
            culprits = _groups_at(structure, made.plan, wrong)
        else:
            with applied(model, made.plan):
                settlement = settled(model, structure.inputs)
                if settlement is not None:
                    settlement.undo()
            if settlement is None or not settlement.trouble:
                return made
            troubles.append(settlement.trouble)
            axes = range(max(len(ref.shape) for ref in structure.trace.state.values()))
            culprits = _groups_at(structure, made.plan, {(name, axis) for name in settlement.wrong for axis in axes})
        if not culprits:
            return None
        options = _without(options, culprits)
    return None


def _even(structure: Structure, options: Options, plan: Plan) -> Options | None:
    """The least width that a target left any group of a role and size, for all of them; None where they have it."""
    after = {width.group: width.after for width in plan.widths}
    least: dict[tuple[str, int], int] = {}
    for group in structure.groups:
        if group.name in after:
            key = group.role, group.size
            least[key] = min(least.get(key, group.size), after[group.name])
    chosen = [g for g in choose(structure, options.scope) if (g.role, g.size) in least]
    wanted = {g.name: least[g.role, g.size] for g in chosen}
    if all(after.get(name, -1) == width for name, width in wanted.items()):
        return None
    ratio = {g.name: 1 - wanted[g.name] / g.size for g in chosen}
    return options.replaced(target=None, ratio=ratio, align=dict.fromkeys(ratio, 1))


def _places_listed(wrong: Collection[Place], sizes: Mapping[Place, int]) -> str:
    places = sorted(wrong)
    some = ", ".join(f"{name} axis {axis} of {sizes.get((name, axis), 'none')}" for name, axis in places[:8])
    return some + (f" and {len(places) - 8} more" if len(places) > 8 else "")


def _groups_at(structure: Structure, plan: Plan, wrong: Collection[Place]) -> list[str]:
    cut = {width.group for width in plan.widths}
    return [
        group.name
        for group in structure.groups
        if group.name in cut and any((member.tensor, member.axis) in wrong for member in group.members)
    ]


def _without(options: Options, names: list[str]) -> Options:
    if not names:
        return options
    exclude = options.scope.exclude
    given = [exclude] if isinstance(exclude, str) else list(exclude or ())
    return options.replaced(exclude=[*given, *names])


def _removed(structure: Structure, plan: Plan) -> int:
    before = {name: ref.shape for name, ref in structure.trace.state.items()}
    after = sizes_after(structure, plan)
    return sum(
        math.prod(shape) - math.prod(after[name, axis] for axis in range(len(shape))) for name, shape in before.items()
    )
