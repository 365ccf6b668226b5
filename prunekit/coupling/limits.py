"""Choices within choices: the best groups of experts, and the best experts among theirs."""

from __future__ import annotations

from prunekit.graph.nodes import Trace
from prunekit.labels.labelling import Labelling


def limit_choices(c: Labelling, trace: Trace) -> None:
    """Keeps the groups that a choice is limited to, so that all of them shrink alike.

    Where forward chooses g of G groups of C experts each and then k experts among theirs, every group keeps as many
    experts as the others, and no fewer than k / g.
    """
    read = {ref.id for op in trace.ops for ref in op.inputs}
    for grid in c.labels.grids:
        if len(grid.axes) != 2:
            continue
        rows, columns = grid.axes
        limits = [choice.count for choice in c.choices if choice.axis is rows and choice.positions in read]
        if not limits:
            continue
        c.freeze(rows, "what is chosen is limited to parts along it")
        for choice in [choice for choice in c.choices if choice.axis.size == grid.cells.size]:
            c.choose(columns, -(-choice.count // min(limits)))
