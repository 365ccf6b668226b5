"""Whether a model takes back what its trace says that it returns for its next call: it is given it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prunekit.coupling.structure import Structure
from prunekit.errors import InputError, TraceError
from prunekit.inputs import Inputs
from prunekit.scorers.undisturbed import untouched
from prunekit.tracing.recalled import continued_places
from prunekit.tracing.recorder import record


def check_given_back(model: nn.Module, structure: Structure) -> None:
    """Raises InputError where no argument that forward can do without continues what was returned by position.

    A cache that is returned under the name of an argument is one by its name, and one that continues an input is seen
    to be one.
    """
    trace = structure.trace
    recalled = {ref.id for ref in trace.recalled}
    if not recalled or trace.named or continued_places(trace, trace.optional):
        return
    placed = zip(trace.places, trace.outputs, strict=True)
    tops = {place.partition(".")[0] for place, ref in placed if ref.id in recalled}
    inputs = structure.inputs
    with untouched(model, ()), torch.no_grad():
        result = model(*inputs.args, **inputs.kwargs)
    for top in sorted(tops):
        for name in trace.takes:
            if name not in inputs.kwargs and _is_continued(model, inputs, name, top, result):
                return
    raise InputError(
        f"the model returns keys or values of its attentions (at {', '.join(sorted(tops))}), and no argument of its "
        f"own takes them back (tried {', '.join(trace.takes)})",
        where="target",
        hint="pass a cache that it returned among example_inputs, or limit memory or activations",
    )


def _is_continued(model: nn.Module, inputs: Inputs, name: str, top: str, result: Any) -> bool:
    """Whether what is returned at ``top`` is concatenated with when it is given as the argument ``name``."""
    try:
        part = result[int(top)] if isinstance(result, (tuple, list)) else dict(vars(result) | dict(result))[top]
        again = record(model, Inputs(inputs.args, {**inputs.kwargs, name: part}))
    except (TraceError, TypeError, ValueError, KeyError):
        return False
    return any(place.partition(".")[0] == top for place in continued_places(again, again.optional))
