"""What plug-ins show of single samples, as a page holds it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunekit.registry.building import Built
    from prunekit.runs import Run


def exhibits_of(built: Built, result: Run) -> list[dict[str, Any]]:
    """JSON values of every exhibit of the model's plug-in, pictures in base64."""
    if not built.entry or not built.plugin:
        return []
    found = []
    for name in built.entry.exhibitors:
        for exhibit in built.plugin.exhibitors[name](result.before, result.model, result.val):
            pictures = [
                {"caption": each.caption, "png": base64.b64encode(each.png).decode(), "figures": dict(each.figures)}
                for each in exhibit.pictures
            ]
            found.append({"name": exhibit.name, "pictures": pictures})
    return found
