"""What a cut did to each layer: parameters and multiply-adds before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """A module that has parameters or multiplies, before and after."""

    module: str
    params: tuple[int, int]
    macs: tuple[int, int]


def layers_of(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> tuple[Layer, ...]:
    """Every module of ``before``, each (parameters, multiply-adds), beside what is left of it; then what is new."""
    names = dict.fromkeys((*before, *after))
    pairs = ((name, before.get(name, (0, 0)), after.get(name, (0, 0))) for name in names)
    return tuple(Layer(name, (was[0], now[0]), (was[1], now[1])) for name, was, now in pairs)


def layer_table(layers: Sequence[Layer]) -> str:
    """A row a layer, and the sum, as text in columns."""
    total = Layer("all", _sum([each.params for each in layers]), _sum([each.macs for each in layers]))
    rows = [("layer", "params", "", "macs", "")]
    rows += [(each.module or "(the model)", *_cells(each.params), *_cells(each.macs)) for each in (*layers, total)]
    wide = [max(len(row[k]) for row in rows) for k in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, wide, strict=True)))
        for row in rows
    )


def _cells(counts: tuple[int, int]) -> tuple[str, str]:
    return f"{counts[0]:,}", f"-> {counts[1]:,}"


def _sum(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
