"""Rows in which whole blocks go: alone, by chance, or together with hidden units within one target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

import prunekit
from prunekit.scorers import Damage, Random

ROWS = ("depth", "depth-random", "mixed")
SAMPLES = 8  # windows that damage is measured on


def cut_deep(
    model: nn.Module, name: str, level: float, data: Sequence[Any], *, refit: str, seed: int, store: Path
) -> list[str]:
    """Cuts ``model`` until ``level`` of all parameters is gone.

    ``depth``: blocks by the damage of their absence, measured again after each. ``mixed``: blocks and hidden units, the
    number of blocks by measurement, the units by Wanda, or by OBS where a refit follows; its rows read each other's
    damages in ``store``. Returns what the report notes.
    """
    asked: dict[str, Any] = {"data": list(data), "target": f"params<={100 - 100 * level:g}%", "verify": "shapes"}
    if name == "mixed":
        how = prunekit.Measured(samples=SAMPLES, widths=(0.875, 0.75, 0.625, 0.5), sets=2, rounds=0, store=store)
        asked |= {
            "roles": ["depth.block", "mlp.hidden"],
            "scorer": "wanda" if refit == "none" else "obs",
            "allocation": how,
        }
        asked["compensate"] = None if refit == "none" else refit
    else:
        asked |= {"roles": ["depth.block"]}
        asked["scorer"] = Random(seed=seed) if name == "depth-random" else Damage(greedy=True, samples=SAMPLES)
    return list(prunekit.prune(model, data[0], **asked).report.notes)
