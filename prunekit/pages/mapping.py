"""The map of a model: its groups by block, with what a tile shows and what it says when it is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prunekit.plans.contents import Plan, Width
from prunekit.roles import named

SHOWN = 12  # axes that a tile lists
HEIGHT = 38.0


def map_of(plan: Plan, story: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(roles, blocks): every role with its meaning, and every block with its groups in the order of the model."""
    about = {each["name"]: each for each in story.get("groups", ())}
    known = {width.group for width in plan.widths}
    order = [*(name for name in about if name in known), *(w.group for w in plan.widths if w.group not in about)]
    widths = {width.group: width for width in plan.widths}
    roles = list(dict.fromkeys(str(widths[name].role) for name in order))
    blocks: dict[str, list[dict[str, Any]]] = {}
    for name in order:
        tile = _tile(widths[name], about.get(name, {}), story.get("scores", {}).get(name), roles)
        blocks.setdefault(block_of(name), []).append(tile)
    meanings = [{"name": role, "meaning": getattr(named(role), "meaning", "")} for role in roles]
    return meanings, [{"name": name or "the model", "groups": groups} for name, groups in blocks.items()]


def block_of(group: str) -> str:
    """The path of a group's first tensor up to the first part with a number in it: ``blocks.3``, ``layer1``."""
    parts = group.rpartition(":")[0].split(".")[:-1]
    for at, part in enumerate(parts):
        if re.search(r"\d", part):
            return ".".join(parts[: at + 1])
    return parts[0] if parts else ""


def _tile(width: Width, about: Mapping[str, Any], score: Mapping[str, Any] | None, roles: list[str]) -> dict[str, Any]:
    facts: list[tuple[str, str]] = []
    if score:
        least = "none" if score["least_kept"] is None else f"{score['least_kept']:.4g}"
        facts.append(("cut", f"greatest removed {score['most_removed']:.4g}, least kept {least} ({score['stage']})"))
    gone = sorted({*range(width.before)} - {*width.kept})
    facts.append(("removed", _some_of([str(unit) for unit in gone], len(gone)) or "none"))
    if about:
        facts.append(("axes", _some_of(about["reaches"], about["axes"])))
        facts += [("tied to", text) for text in about["ties"]]
        if about["normalised"]:
            facts.append(("note", "a norm, softmax or mean reads it"))
    curve = score["curve"] if score else []
    return {
        "name": width.group,
        "role": width.role,
        "colour": roles.index(str(width.role)),
        "before": width.before,
        "after": width.after,
        "percent": round(100 * width.after / width.before, 1),
        "drawing": _drawn(curve),
        "cut": round(100 * (1 - score["kept"] / score["units"]), 1) if score else 0,
        "gone": score["units"] - score["kept"] if score else 0,
        "score_units": score["units"] if score else 0,
        "facts": facts,
    }


def _drawn(curve: list[float]) -> str:
    """Points of a line in a box of 100 by 40; "" for less than two."""
    if len(curve) < 2:
        return ""
    low, high = min(curve), max(curve)
    span = (high - low) or 1.0
    places = [100 * at / (len(curve) - 1) for at in range(len(curve))]
    return " ".join(f"{x:.1f},{1 + HEIGHT * (1 - (y - low) / span):.1f}" for x, y in zip(places, curve, strict=True))


def _some_of(names: list[str], count: int) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown + (f", and {count - SHOWN} more" if count > SHOWN else "")
