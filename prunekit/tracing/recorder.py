"""Records one eager forward pass on the meta device: every ATen operator, and the Python arguments behind it."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from prunekit.errors import PrunekitError, TraceError
from prunekit.graph.nodes import Trace
from prunekit.graph.provenance import listening
from prunekit.inputs import Inputs
from prunekit.modules.attention import free_inner_widths
from prunekit.modules.containers import containers_of
from prunekit.modules.emptied import Place, tables_met
from prunekit.modules.write_guard import originals_of
from prunekit.tracing.modes import CallMode, ListMode, OpMode, python_functionals_open
from prunekit.tracing.modules import module_calls
from prunekit.tracing.numbers import Numbers, Replay, ValueMode
from prunekit.tracing.questions import answered_as
from prunekit.tracing.recalled import recalled_outputs
from prunekit.tracing.standin import AttributeKey, stand_in
from prunekit.tracing.tape import VALUE_LIMIT, Recording, is_foreign

logger = logging.getLogger(__name__)

_LOCK = threading.RLock()


def record(
    model: nn.Module,
    inputs: Inputs,
    *,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    attributes: Mapping[AttributeKey, float] | None = None,
    opaque: Sequence[str] = (),
    brief: bool = False,
    lists: bool = False,
    decisions: Sequence[tuple[str, Any]] = (),
    tables: Collection[Place] = (),
    follow_values: bool = True,
    max_ops: int = 200_000,
    max_seconds: float = 300.0,
) -> Trace:
    """Trace of ``model(*inputs.args, **inputs.kwargs)`` in eval mode, without touching a weight.

    Args:
        sizes, attributes: for a rehearsal, the shapes of state tensors and the values of attributes that the
            model would have; what is not named keeps its own.
        opaque: modules that are followed from the outside only, see ``Trace.opaque``.
        brief: only operators and shapes, without Python calls, module calls and source lines.
        lists: a brief trace follows lists of indices, see ``Trace.lists``.
        decisions: what a brief trace reads where forward reads values, see ``Trace.decisions``.
        tables: dicts of tensors that forward does not fill itself, where they are known, see ``Trace.tables``.
        follow_values: whether a forward that reads values is followed on real numbers; else the modules that read them
            are opaque, see ``Trace.opaque``.
        max_ops, max_seconds: limits; a trace that passes them is refused with the module that it stood in.

    Raises:
        TraceError: if forward fails or cannot be followed; the model is as it was.
    """
    limits = (max_ops, max_seconds)
    if brief:
        replay = Replay(decisions) if decisions else None
        recording = Recording(model, *limits, sizes or {}, opaque, True, None, replay, tables)
        return _recorded(model, inputs, recording, attributes, lists)
    known: set[Place] = set(tables)
    while True:
        plain = Recording(model, *limits, {}, opaque, False, tables=sorted(known))
        try:
            found: Trace | TraceError = _recorded(model, inputs, plain, None, lists)
        except TraceError as error:
            found = error
        if plain.tables_met <= known:
            break
        known |= plain.tables_met  # it was followed without what it reads there
    if isinstance(found, Trace) and not found.opaque:
        return found
    numbered = _on_numbers_too(model, inputs, limits, sorted(known)) if follow_values else None
    if numbered is not None:
        logger.info("forward read %d values: other inputs may decide otherwise", len(numbered.decisions))
        return numbered
    if isinstance(found, TraceError):
        raise found
    return found


def _on_numbers_too(
    model: nn.Module, inputs: Inputs, limits: tuple[int, float], tables: Collection[Place]
) -> Trace | None:
    """The trace of a forward that reads values, on the real weights and the example inputs; None where it fails too."""
    tensors = [*model.parameters(), *model.buffers()]
    if not tensors or any(t.is_meta for t in tensors):
        return None
    numbers = Numbers(tensors[0].device, originals_of(model))
    recording = Recording(model, *limits, {}, (), False, numbers, tables=tables)
    try:
        trace = _recorded(model, inputs, recording, None, False)
    except TraceError as error:
        logger.debug("it cannot be followed on real numbers either: %s", error)
        return None
    finally:
        numbers.originals.put_back()
    trace.decisions = tuple(numbers.decisions)
    return trace


def _recorded(
    model: nn.Module, inputs: Inputs, recording: Recording, attributes: Mapping[AttributeKey, float] | None, lists: bool
) -> Trace:
    trace = recording.trace

    def as_input(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        meta = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        known = not x.is_floating_point() and not x.is_meta and x.numel() <= VALUE_LIMIT
        recording.new_ref(meta, "input", value=x.detach().cpu().clone() if known else None)
        if recording.numbers is not None:
            recording.numbers.attach(meta, x.detach().to(recording.numbers.device, copy=True))
        return meta

    with _LOCK, contextlib.ExitStack() as scope:
        args, kwargs = tree_map(as_input, (inputs.args, inputs.kwargs))
        _enter(scope, recording, attributes or {}, lists=lists)
        try:
            result = model(*args, **kwargs)
        except PrunekitError:
            raise
        except Exception as error:  # forward is the user's code: whatever it raises is reported as one typed error
            raise TraceError(
                f"forward failed: {type(error).__name__}: {_first_line(error)}",
                where=f"{recording.failed_in} {_innermost(error)}".strip(),
                hint="check that model(*example_inputs) runs, or pass other example_inputs",
            ) from error
        finally:
            recording.tables_met = tables_met(recording.modules)
    trace.containers = {} if recording.brief else containers_of(recording.modules)
    found = named_outputs(result)
    trace.outputs, trace.places = tuple(recording.ref(t) for _, t in found), tuple(path for path, _ in found)
    if not trace.outputs:
        raise TraceError("the model's output holds no tensor", hint="return tensors, or a pytree or dataclass of them")
    if not recording.brief:
        trace.takes = _optional_arguments(model)
        trace.optional = _given_for(trace.takes, model, args, kwargs, recording)
        trace.recalled = recalled_outputs(trace, trace.optional)
    return trace


def _enter(
    scope: contextlib.ExitStack, recording: Recording, attributes: Mapping[AttributeKey, float], *, lists: bool
) -> None:
    """Everything that forward runs in: on stand-ins, without gradients, on the meta device, seen by the modes."""
    trace, brief = recording.trace, recording.brief
    scope.enter_context(free_inner_widths(recording.modules))
    known: dict[str, Any] = {"modules": recording.modules, "state": recording.real, "tables": trace.tables}
    standing = stand_in(recording.model, recording.state, attributes, is_traced=not brief, **known)
    trace.attributes = scope.enter_context(standing)
    scope.enter_context(python_functionals_open())
    scope.enter_context(module_calls(recording))
    scope.enter_context(torch.no_grad())
    scope.enter_context(answered_as(next((t.device.type for t in recording.real.values() if not t.is_meta), "cpu")))
    scope.enter_context(torch.device("meta"))
    if brief and lists:
        scope.enter_context(ListMode(recording))
    if not brief:
        trace.agreed = scope.enter_context(listening())
        scope.enter_context(CallMode(recording))
    if recording.numbers is not None or recording.replay is not None:
        read = recording.note_read
        scope.enter_context(ValueMode(recording.numbers, recording.replay, recording.to_meta, read))
    scope.enter_context(OpMode(recording))


def _optional_arguments(model: nn.Module) -> tuple[str, ...]:
    try:
        taken = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # none is told
        return ()
    return tuple(each.name for each in taken if each.default is None)


def _given_for(
    names: Collection[str], model: nn.Module, args: Any, kwargs: Any, recording: Recording
) -> frozenset[int]:
    """Ids of the tensors that were given as these arguments."""
    if not names:
        return frozenset()
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    values = [given[name] for name in names if name in given]
    return frozenset(recording.ref(tensor).id for value in values for tensor in output_tensors(value))


def output_tensors(tree: Any) -> list[Tensor]:
    """Tensors of an output of any nesting: pytrees, mappings, dataclasses and plain objects that hold them."""
    return [tensor for _, tensor in named_outputs(tree)]


def named_outputs(tree: Any) -> list[tuple[str, Tensor]]:
    """The tensors of an output, each with its place in it, such as ``past_key_values.layers.0.keys``."""
    found: list[tuple[str, Tensor]] = []
    seen: set[int] = set()

    def walk(x: Any, path: str) -> None:
        if isinstance(x, Tensor):
            found.append((path, x))
            return
        if isinstance(x, dict):
            items = list(x.items())
        elif isinstance(x, (list, tuple, set)):
            items = list(enumerate(x))
        elif hasattr(x, "__dict__") and not isinstance(x, (type, nn.Module)):
            items = list(vars(x).items())
        else:
            return
        if id(x) not in seen:
            seen.add(id(x))
            for key, value in items:
                walk(value, f"{path}.{key}" if path else str(key))

    walk(tree, "")
    return found


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).strip().split("\n") if line.strip()), "")[:300]


def _innermost(error: BaseException) -> str:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_foreign(file):
            place = f"{file.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


__all__ = ["output_tensors", "record"]
