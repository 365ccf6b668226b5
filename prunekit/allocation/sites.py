"""Sites and their variants: what may be chosen among, and what each choice would cost and damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from prunekit.plans.contents import Plan


@dataclass(frozen=True, eq=False)
class Variant:
    """One way that a site may be: the units that its groups keep, and the plan that makes only this.

    A site that is whole keeps all units and has no plan. Whatever a plan can say is a variant: a narrower width, or
    something dropped. ``share`` is what is left of the site's units.
    """

    kept: Mapping[str, Tensor]
    plan: Plan | None
    share: float

    @property
    def counts(self) -> dict[str, int]:
        """Units by group."""
        return {name: len(units) for name, units in self.kept.items()}


@dataclass(frozen=True, eq=False)
class Site:
    """Groups whose widths are chosen as one: a group, tied ones, or ones that the model's own arithmetic joins.

    ``variants`` are in descending order of what they keep; the first one is the whole site.
    """

    groups: tuple[str, ...]
    variants: tuple[Variant, ...]

    @property
    def name(self) -> str:
        return self.groups[0]


def kept_by(sites: Sequence[Site], choice: Sequence[int]) -> dict[str, Tensor]:
    """The units of all groups when every site is the variant of that number."""
    return {
        name: units
        for site, number in zip(sites, choice, strict=True)
        for name, units in site.variants[number].kept.items()
    }
