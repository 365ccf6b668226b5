"""What a folder says about the library that builds its model, and the model built from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from prunekit.plans.contents import Plan, Removal
from prunekit.plugins.homes import Recorded
from prunekit.registry.homes import rebuilt_from
from prunekit.surgery.cutting import apply_unfitted
from prunekit.surgery.history import remember


def home_said(name: str, recorded: Recorded, part: str, plans: Sequence[Plan]) -> dict[str, Any] | None:
    """JSON values for ``housed``; None where what the library builds is no model that one of ``plans`` begins with.

    ``plans`` lead to the model as it is: all cuts so far, and the last one. The library's configuration may say the
    widths of the original or, where only some cuts could be said to it, those in between.
    """
    said = {"name": name, "values": dict(recorded.values), "says_widths": recorded.says_widths}
    if recorded.says_widths:
        return said
    for number, plan in enumerate(plans):
        begins = all(recorded.sizes.get((_whole(part, cut.tensor), cut.axis)) == cut.size for cut in plan.cuts)
        if begins and all(
            _has_entries(recorded, _whole(part, removal.container), removal) for removal in plan.removals
        ):
            return said if number == 0 else {**said, "plan": plan.to_json()}
    return None


def housed(said: Mapping[str, Any], part: str, plan: Plan) -> nn.Module:
    """The model without its weights, with the widths that ``plan``, all cuts so far, leads to.

    Raises RegistryError for a library that no plug-in knows, CheckpointError for what does not build, PlanError for a
    plan that does not fit, AttributeError where there is no such part.
    """
    model = rebuilt_from(said["name"], said["values"])
    inner = model.get_submodule(part)
    if said["says_widths"]:
        remember(inner, plan, [])
    else:
        apply_unfitted(inner, Plan.from_json(said["plan"]) if "plan" in said else plan)
    return model


def _has_entries(recorded: Recorded, path: str, removal: Removal) -> bool:
    """Whether the container that ``removal`` begins with is the one that is built."""
    prefix = f"{path}." if path else ""
    held = {name.removeprefix(prefix).partition(".")[0] for name, _ in recorded.sizes if name.startswith(prefix)}
    return held == set(removal.names)


def _whole(part: str, tensor: str) -> str:
    return f"{part}.{tensor}" if part and tensor else part or tensor
