"""Recipes run: their stages in order over one model, and what there is to say about it afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunekit.runs.outcome import Event, Listener, Run
    from prunekit.runs.runner import run
else:
    from prunekit.deferred import deferred_names

    # most rooms here train or cut; whoever reads what a run said needs none of them
    __getattr__, __dir__ = deferred_names(
        __name__,
        {**dict.fromkeys(("Event", "Listener", "Run"), "prunekit.runs.outcome"), "run": "prunekit.runs.runner"},
    )

__all__ = ["Event", "Listener", "Run", "run"]
