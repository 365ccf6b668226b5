"""``align="auto"``: a step for every group by what the device's kernels want."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from prunekit.coupling.groups import Group
from prunekit.options import Options
from prunekit.quantities.kernels import Kernels, known_kernels
from prunekit.roles import CHANNELS

LEAST_WIDTHS = 4  # that a step leaves of a group: a step must not be coarser than the choice that is left


def with_liked_widths(model: nn.Module, groups: Sequence[Group], options: Options) -> tuple[Options, tuple[str, ...]]:
    """``options`` with a step for each group in the place of ``auto``, and what to tell of it; others as they are.

    What counts whole blocks, such as heads, keeps a step of one: heads stay whole. Positions within a head take eights.
    A group takes the largest part of the step that leaves it four widths.
    """
    if options.choice.align != "auto":
        return options, ()
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None:
        return options.replaced(align=None), ()
    kernels = known_kernels(weight.device, weight.dtype)
    steps = {group.name: liked_step(group, kernels) for group in groups}
    return options.replaced(align=steps), (f"align=auto: {kernels}",)


def liked_step(group: Group, kernels: Kernels) -> int:
    """The step of one group."""
    if group.role.counted:
        return 1
    step = kernels.steps["convolution" if group.role == CHANNELS else "linear"]
    step = step if group.role.default_step else min(step, 8)
    while step > 1 and LEAST_WIDTHS * step > group.size:
        step //= 2
    return step
