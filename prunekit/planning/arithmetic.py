"""The model's own arithmetic at widths that change a few at a time: only what reads them is solved again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from prunekit.coupling.structure import Structure
from prunekit.planning.solving import solved


class Arithmetic:
    """Which equations no value of the attributes makes true, while groups keep ever other units."""

    def __init__(self, structure: Structure, kept: Mapping[str, Tensor]) -> None:
        self.structure, self.systems = structure, structure.systems
        self.lengths = structure.lengths(kept)
        self._unsolved = set(range(len(self.systems.each)))
        self._wrong: dict[int, list[int]] = {}

    def keep(self, kept: Mapping[str, Tensor]) -> None:
        """From now on these groups keep these units; the others what they kept."""
        for row in self.lengths.keep(kept):
            self._unsolved.update(self.systems.of_row.get(row, ()))

    def violated(self) -> list[int]:
        """The places of the equations that fail, ascending."""
        for number in self._unsolved:
            self._wrong.pop(number, None)
            wrong = self._failing(self.systems.each[number])
            if wrong:
                self._wrong[number] = wrong
        self._unsolved.clear()
        return sorted(place for places in self._wrong.values() for place in places)

    def fails(self, place: int) -> bool:
        """Whether one equation fails, beside those alone that share an attribute with it."""
        return place in self._failing(self.systems.near[place])

    def _failing(self, places: tuple[int, ...]) -> list[int]:
        equations = [self.structure.equations[place] for place in places]
        wrong = {id(e) for e in solved(self.structure, self.lengths, equations)[1]}
        return [place for place, e in zip(places, equations, strict=True) if id(e) in wrong]
