"""The last step of every criterion that is made of products weight x gradient."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.scorers.reducers import Reducer, Within, reducer, rows


def score_products(group: Group, products: Mapping[str, Tensor], across: str | Reducer, within: Within) -> Tensor:
    """Importance (group.size,) from products per parameter. Raises ScorerError where one was not computed."""

    def values(name: str) -> Tensor:
        if name not in products:
            raise ScorerError(
                f"no products were computed for {name}",
                where=group.name,
                hint="name it in Statistics(parameters=...)",
            )
        return products[name]

    return reducer(across)(rows(group, values, within))
