"""What a page says of a model's structure: its groups and why others are frozen, as JSON values."""

from __future__ import annotations

from typing import Any

from prunekit.coupling.structure import Structure

REACHED = 60  # axes of a group that are kept by name; the count says how many there are


def anatomy_of(structure: Structure) -> dict[str, Any]:
    """``groups``: name, role, size, block, the axes that shrink with it, and what it is tied to."""
    ties: dict[str, list[str]] = {}
    for tie in structure.ties:
        for name in tie.groups:
            ties.setdefault(name, []).append(f"{', '.join(n for n in tie.groups if n != name)}: {tie.reason}")
    groups = [
        {
            "name": group.name,
            "role": str(group.role),
            "size": group.size,
            "block": group.block,
            "normalised": group.normalised,
            "reaches": [f"{member.tensor}:{member.axis}" for member in group.members[:REACHED]],
            "axes": len(group.members),
            "ties": ties.get(group.name, []),
        }
        for group in structure.groups
    ]
    return {"groups": groups}
