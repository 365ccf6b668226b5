"""Which axes of which parameters may read units, and how many of them second moments have room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from prunekit.coupling.groups import Group
from prunekit.errors import ScorerError
from prunekit.modules.observing import Product, as_matrix

Place = tuple[str, int]  # parameter, axis
SUMS = 16  # bytes of an element: what is tried and what is held out, float64


def read_axes(group: Group, weights: Mapping[str, Tensor]) -> list[Place]:
    """Axes of parameters that units of ``group`` lie along, and that features may."""
    return [(m.tensor, m.axis) for m in group.parameters if may_read(weights[m.tensor], m.axis)]


def may_read(weight: Tensor, axis: int) -> bool:
    """Whether features may lie along ``axis``: of kernels and of experts side by side not along the first."""
    return weight.ndim > 1 and weight.is_floating_point() and (weight.ndim == 2 or axis > 0)


def places_within(memory: int, groups: Iterable[Group], weights: Mapping[str, Tensor]) -> set[Place]:
    """All of the first group's, and of the others' in their order as many as have room in ``memory`` bytes."""
    found: set[Place] = set()
    taken = 0
    for group in groups:
        more = {place for place in read_axes(group, weights) if place not in found}
        taken += sum(bytes_of_sums(weights[name], axis) for name, axis in more)
        if found and taken > memory:
            break
        found |= more
    return found


def asked_within(memory: int, wanted: set[Place], weights: Mapping[str, Tensor]) -> Callable[[Product], bool]:
    """Whether a product is one of ``wanted``. Raises ScorerError where its sums alone have no room."""

    def asked(product: Product) -> bool:
        if (product.name, product.feature_axis) not in wanted:
            return False
        products, _, features = as_matrix(product, weights[product.name]).shape
        if SUMS * products * features**2 > memory:
            raise ScorerError(
                f"second moments of the {features} features that {product.name} reads take "
                f"{SUMS * products * features**2 / 1e9:.1f} GB, and {memory / 1e9:.1f} GB are allowed",
                where=product.name,
                hint="leave the width out with exclude=, or allow more with OBS(memory=)",
            )
        return True

    return asked


def bytes_of_sums(weight: Tensor, axis: int) -> int:
    """Bytes that sums of what ``axis`` of a parameter reads may take, whether it reads or not."""
    experts = weight.shape[0] if weight.ndim == 3 else 1
    return SUMS * experts * (weight.shape[axis] * (weight[0, 0].numel() if weight.ndim > 3 else 1)) ** 2
