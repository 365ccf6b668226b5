"""Parameters that forward did not read because of what it decided, such as experts that no token was sent to.

Under other decisions they are read. What reads and writes them then is what does so with a sibling of theirs, a
parameter of the same shape whose path differs in one name: the two are coupled axis by axis. Where nothing like it was
read either, it may be bound to any width of its size, so that all of these stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import takewhile

from prunekit.coupling.fates import resolve
from prunekit.graph.nodes import Ref, Trace
from prunekit.labels.labelling import Labelling
from prunekit.labels.vectors import Axis

logger = logging.getLogger(__name__)
_KERNEL = 2  # axes in front of those of a convolution's kernel, which no width of a feature is read in step with


def couple_unread(c: Labelling, trace: Trace) -> None:
    """Couples every parameter that was not read with its sibling; freezes every width of the size of one without."""
    read = {ref.id for op in trace.ops for ref in op.inputs}
    parameters = {name: ref for name, ref in trace.state.items() if ref.kind == "parameter"}
    visited = {name for name, ref in parameters.items() if ref.id in read}
    alone = []
    for name, ref in parameters.items():
        if name in visited:
            continue
        sibling = _sibling(name, parameters, visited)
        if sibling is None:
            alone.append(name)
            continue
        for mine, theirs in zip(c.of(ref), c.of(parameters[sibling]), strict=True):
            c.unite(mine, theirs, "a sibling of it, which these inputs did not reach, does")
    if alone:
        logger.info("not read for these inputs, nor anything like them: %s", ", ".join(alone[:5]))
        _freeze_sizes(c, trace, {parameters[name].shape for name in alone}, alone[0])


def has_unread(trace: Trace) -> bool:
    """Whether forward leaves a parameter unread."""
    read = {ref.id for op in trace.ops for ref in op.inputs}
    return any(ref.kind == "parameter" and ref.id not in read for ref in trace.state.values())


def couple_alike(c: Labelling, trace: Trace, alike: Collection[frozenset[tuple[str, int]]]) -> None:
    """Couples parameters that forward does not read, as a token for masks in training, by what their class says.

    Of the places that the class makes as wide, most belong to one width, such as a residual stream: it is that one.
    """
    read = {ref.id for op in trace.ops for ref in op.inputs}
    known = {name: ref for name, ref in trace.state.items() if ref.id in read}
    fate = resolve(c.labels).fate
    for places in alike:
        votes: Counter[int] = Counter()
        example: dict[int, Axis] = {}
        for name, at in places:
            axis = c.of(known[name])[at] if name in known else None
            if axis is not None:
                example.setdefault(int(fate[axis[0]]), axis)
                votes[int(fate[axis[0]])] += 1
        for name, at in places:
            ref = trace.state.get(name)
            if not votes or ref is None or name in known or ref.kind != "parameter":
                continue
            mine, theirs = c.of(ref)[at], example[votes.most_common(1)[0][0]]
            if mine is not None and theirs is not None and mine.size == theirs.size:
                c.unite(mine, theirs, "the class makes them equally wide")


def _freeze_sizes(c: Labelling, trace: Trace, shapes: Collection[tuple[int, ...]], example: str) -> None:
    sizes = {size for shape in shapes for size in shape[:_KERNEL] if size > 1}
    for ref in trace.state.values():
        for size, axis in zip(ref.shape, c.of(ref), strict=True):
            if size in sizes:
                c.freeze(axis, f"{example}, which was not read for these inputs, may be bound to it")


def _sibling(name: str, parameters: Mapping[str, Ref], visited: Collection[str]) -> str | None:
    """The visited parameter of the same shape whose path differs in one name, the most alike."""
    path = name.split(".")
    best: tuple[int, str] | None = None
    for other in visited:
        theirs = other.split(".")
        if len(theirs) != len(path) or parameters[other].shape != parameters[name].shape:
            continue
        apart = [k for k, (a, b) in enumerate(zip(path, theirs, strict=True)) if a != b]
        if len(apart) == 1 and apart[0] < len(path) - 1:
            both = zip(path[apart[0]], theirs[apart[0]], strict=False)
            alike = len(list(takewhile(lambda pair: pair[0] == pair[1], both)))
            if best is None or (alike, other) > best:
                best = (alike, other)
    return None if best is None else best[1]
