"""Finds the entries of a configuration by what they do: which numbers make the class build these widths."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from prunekit.plugins import Place, Spoken
from prunekit_hf.blueprint import Blueprint, Entry, Number, built, changed, entries
from prunekit_hf.proportions import factors

logger = logging.getLogger(__name__)

TRIALS = 120  # configurations that are built at most for one answer
QUICK_TRIALS = 16  # while plans are compared, or none can be right: the first choices are the nearest
KEPT = 64  # answers, and configurations that were built
CANDIDATES = 4  # values that are tried for one entry
_OF_ALL = frozenset(vars(PreTrainedConfig()))  # what every configuration has, such as ``dtype``, gives no width


@dataclass(frozen=True)
class Wording:
    """Entries and their new values, what the class builds from them, and the places that are still wrong."""

    edits: Mapping[Entry, Number]
    blueprint: Blueprint
    wrong: frozenset[Place]


class Vocabulary:
    """What a class makes of its configuration. An entry whose number is doubled, or halved, shows what follows it.

    ``layers`` are new values of entries that count layers, where some are gone: everything else is said beside them.
    """

    def __init__(
        self, kind: type[PreTrainedModel], config: PreTrainedConfig, layers: Mapping[Entry, Number] | None = None
    ) -> None:
        self.kind, self.layers = kind, dict(layers or {})
        self.config = changed(config, self.layers)
        self.original = Blueprint.of(built(kind, self.config))
        self._opened: dict[tuple[Entry, int], Blueprint | None] = {}
        self._answers: dict[frozenset[tuple[Place, int]], Wording] = {}
        self._made: dict[frozenset[tuple[Entry, Number]], Blueprint | None] = {}

    @cached_property
    def moved(self) -> dict[Entry, tuple[Number, Blueprint]]:
        """For each entry its number, and what the class builds with another one; entries that count layers are out."""
        found: dict[Entry, tuple[Number, Blueprint]] = {}
        for entry, value in entries(self.config):
            if value is None or (isinstance(value, int) and value < 2):
                continue
            for other in (value * 2, value // 2 if isinstance(value, int) else value / 2):
                blueprint = self._built({entry: other})
                if blueprint is not None and blueprint.sizes.keys() == self.original.sizes.keys():
                    found[entry] = value, blueprint
                    break
        return found

    def _left_open(self, differing: set[Place]) -> dict[Entry, tuple[Number, Blueprint]]:
        """Entries without a number, as an inner width that is four times another one's unless it is given.

        One that is given stands for a size where twice that size in it doubles the size.
        """
        found: dict[Entry, tuple[Number, Blueprint]] = {}
        sizes = {self.original.sizes[place] for place in differing if place in self.original.sizes}
        for entry in [entry for entry, value in entries(self.config) if value is None and entry[-1] not in _OF_ALL]:
            for size in sorted(sizes):
                if (entry, size) not in self._opened:
                    self._opened[entry, size] = self._built({entry: 2 * size})
                blueprint = self._opened[entry, size]
                if blueprint is None or blueprint.sizes.keys() != self.original.sizes.keys():
                    break  # it is no width
                moved = self.original.apart(blueprint)
                if moved and all(self.original.sizes[p] == size and blueprint.sizes[p] == 2 * size for p in moved):
                    found[entry] = size, blueprint
                    break
        return found

    def followers(self) -> tuple[frozenset[Place], ...]:
        """For each entry the places whose sizes follow it."""
        found = (frozenset(self.original.apart(blueprint)) for _, blueprint in self.moved.values())
        return tuple(places for places in found if places)

    def say(self, sizes: Mapping[Place, int]) -> Spoken:
        """The nearest that the configuration can say."""
        key = frozenset(sizes.items())
        if key not in self._answers:
            first = self.wordings(Blueprint(sizes, {}), QUICK_TRIALS)
            self._answers[key] = next(first)  # there is one at least: the nearest
            _forget_first(self._answers)
        answer = self._answers[key]
        return Spoken(answer.blueprint.numbers, answer.wrong)

    def wordings(self, wanted: Blueprint, trials: int = TRIALS) -> Iterator[Wording]:
        """Configurations that make the class build ``wanted``, the likeliest first; if none does, the nearest one."""
        differing = self.original.apart(wanted)
        if not differing:
            yield Wording({}, self.original, frozenset())
            return
        nearest, said = Wording({}, self.original, frozenset(differing)), False
        for more in (False, True):
            known = self.moved | (self._left_open(differing) if more else {})
            candidates = {entry: self._candidates(*known[entry], differing, wanted) for entry in known}
            values = {entry: found for entry, found in candidates.items() if found}
            by = factors(self.original.sizes, wanted.sizes, [blueprint.sizes for _, blueprint in known.values()])
            choices = itertools.islice(_combined(values), QUICK_TRIALS if by is None else trials)
            first = [] if by is None else [_nearest(values, dict(zip(known, by, strict=True)))]
            for edits in itertools.chain(first, choices):
                blueprint = self._built(edits)
                wrong = frozenset(differing if blueprint is None else blueprint.apart(wanted))
                if blueprint is not None and not wrong:
                    said = True
                    yield Wording(edits, blueprint, wrong)
                elif blueprint is not None and len(wrong) < len(nearest.wrong):
                    nearest = Wording(edits, blueprint, wrong)
            if said:
                return
        yield nearest

    def _built(self, edits: Mapping[Entry, Number]) -> Blueprint | None:
        """What the class builds with these numbers, None where it refuses; built once, since that takes its time."""
        if not edits:
            return self.original
        key = frozenset(edits.items())
        if key not in self._made:
            self._made[key] = self._tried(edits)
            _forget_first(self._made)
        return self._made[key]

    def _tried(self, edits: Mapping[Entry, Number]) -> Blueprint | None:
        try:
            return Blueprint.of(built(self.kind, changed(self.config, edits)))
        except Exception as error:  # the class refuses these numbers, in its own words
            logger.debug("%s refuses %s: %s", self.kind.__name__, dict(edits), error)
            return None

    def _candidates(self, value: Number, moved: Blueprint, differing: set[Place], wanted: Blueprint) -> list[Number]:
        """Values for an entry by the sizes that follow it, the most frequent first; its own comes last.

        An entry that no size follows, as a number of heads in a fixed width, may have to change too: by what its number
        became wherever a module keeps it.
        """
        votes: Counter[Number] = Counter()
        for place in sorted(differing):  # of equal votes the first wins, whatever order a set is in
            before, after = self.original.sizes.get(place), wanted.sizes.get(place)
            if before is None or after is None or moved.sizes.get(place) == before:
                continue
            if isinstance(value, float):
                votes[value * after / before] += 1
            elif value * after % before == 0:
                votes[value * after // before] += 1
        for key, number in self.original.numbers.items():
            became = wanted.numbers.get(key, number)
            if number == value and became != number and moved.numbers.get(key) != number:
                votes[type(value)(became)] += 1
        found = [new for new, _ in votes.most_common(CANDIDATES) if new > 0 and new != value]
        return [*found, value] if found else []


def _nearest(values: Mapping[Entry, Sequence[Number]], by: Mapping[Entry, float | None]) -> dict[Entry, Number]:
    """Of each entry's candidates, of which its own number is the last, that nearest to its factor; else the first."""
    found: dict[Entry, Number] = {}
    for entry, candidates in values.items():
        own, factor = candidates[-1], by[entry]
        chosen = candidates[0] if factor is None else min(candidates, key=lambda new: abs(new / own - factor))
        if chosen != own:
            found[entry] = chosen
    return found


def _forget_first(known: dict[Any, Any]) -> None:
    """Of much that was found out the latest is kept: what is forgotten is found out again."""
    while len(known) > KEPT:
        del known[next(iter(known))]


def _combined(values: Mapping[Entry, Sequence[Number]]) -> Iterator[dict[Entry, Number]]:
    """Combinations of candidates, those of first choices first; an entry's last choice is what it was."""
    names = list(values)
    ranks = sorted(
        itertools.islice(itertools.product(*(range(len(values[name])) for name in names)), 20 * TRIALS),
        key=lambda rank: (sum(rank), rank),
    )
    for rank in ranks:
        yield {name: values[name][at] for name, at in zip(names, rank, strict=True) if at < len(values[name]) - 1}
