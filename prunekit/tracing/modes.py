"""The two modes that see a forward pass: ATen operators, and the Python calls behind them."""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from prunekit.errors import TraceError
from prunekit.graph.nodes import Call, Op, Ref
from prunekit.graph.provenance import TracedInt
from prunekit.graph.tree import mapped, meta_tensors, of_type
from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.fast_path import without_fast_path
from prunekit.tracing import packing, quick
from prunekit.tracing.numbers import MISSING, READS, on_zeros
from prunekit.tracing.tape import VALUE_LIMIT, Recording, source


class DataDependentError(TraceError):
    """The forward pass reads a value, or takes a shape, that depends on the input or the weights."""


class OpMode(DispatchMode):
    """Runs every operator on meta tensors and writes it down."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = recording

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing compiles this: torch would import its compiler to be told so, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not torch._C._len_torch_function_stack():
            return self._dispatched(func, args, kwargs)
        with torch._C.DisableTorchFunction():  # no Python function led here, as in scripted code: this is no call
            return self._dispatched(func, args, kwargs)

    def _dispatched(self, func: Any, args: Any, kwargs: Any) -> Any:
        r = self.recording
        r.check_budget()
        inputs: list[Ref] = []
        (args, told), (kwargs, named) = r.taken_in(args, inputs), r.taken_in(kwargs or {}, inputs)
        stripped = told, named
        known = self._evaluate(func, *stripped, inputs)
        real = MISSING if r.numbers is None else r.numbers.evaluate(func, args, kwargs)
        dynamic = _is_dynamic(func)  # it may be: an index of numbers keeps its shape
        if func in READS:
            if r.call is None or r.call.name != "__getitem__":  # an index: the rule of the selection sees it
                r.trace.reads += inputs
            return self._told(func, args, known, real)
        if func is packing.PACK:
            result, r.packs = packing.packed(args, self._lengths(args[1])), True
        else:
            result = self._by_number(func, args, kwargs, real, dynamic)
        if result is not NotImplemented:
            pass
        elif r.packs and packing.is_for_lengths(func, kwargs):
            result = func(*args, **kwargs)
        elif dynamic and known is not None:
            result = mapped(known, lambda t: torch.empty_like(t, device="meta") if isinstance(t, Tensor) else t)
        else:
            result = quick.result(func, args, kwargs)
            if result is NotImplemented:
                if kwargs.get("device") is not None:
                    kwargs = {**kwargs, "device": torch.device("meta")}
                result = self._run(func, args, kwargs, dynamic)
        if r.numbers is not None and real is not MISSING:
            r.numbers.carry(result, real)
        return self._noted(func, stripped, result, known, inputs)

    def _told(self, func: Any, args: Any, known: Any, real: Any) -> Any:
        """What forward reads as a Python number."""
        r = self.recording
        if r.replay is not None:
            return r.replay.result(func, args)
        value = known if real is MISSING else real
        if value is None:
            raise self._unreadable(func)
        if r.numbers is not None:
            is_index = r.call is not None and r.call.name == "__getitem__"
            r.numbers.decided(func, 0 if is_index else value)  # whichever is selected has the same shape
        return value

    def _lengths(self, tensor: Tensor) -> Tensor:
        """How long the sequences are that are packed."""
        r = self.recording
        if r.replay is not None and str(packing.PACK) in r.replay.names:
            return torch.tensor(r.replay.next(str(packing.PACK)), device="cpu")
        found = r.ref(tensor).value
        if found is None and r.numbers is not None:
            found = r.numbers.of(tensor)
        if found is None:
            raise self._unreadable(packing.PACK)
        if r.numbers is not None:
            r.numbers.decisions.append((str(packing.PACK), found.tolist()))
        return found

    def _by_number(self, func: Any, args: Any, kwargs: Any, real: Any, dynamic: bool) -> Any:
        """The result of an operator whose shape depends on values: from the real one, or as it was then."""
        r = self.recording
        if r.replay is not None:
            return r.replay.result(func, args) if str(func) in r.replay.names else NotImplemented
        if r.numbers is None or real is MISSING or not (dynamic or not _runs_on_meta(func, args, kwargs)):
            return NotImplemented
        r.numbers.decided(func, real)
        return mapped(real, lambda t: torch.empty_like(t, device="meta") if isinstance(t, Tensor) else t)

    def _noted(self, func: Any, stripped: tuple[Any, Any], result: Any, known: Any, inputs: list[Ref]) -> Any:
        """Writes the operator down, and gives its result."""
        r = self.recording
        outputs = self._outputs(result, known, any(i.kind != "constant" for i in inputs))
        where = r.call.source if r.call is not None else "" if r.brief else source(r.entered)
        r.trace.ops.append(Op(func, *stripped, outputs, r.call, r.module, where, tuple(inputs)))
        return result

    def _run(self, func: Any, args: Any, kwargs: Any, dynamic: bool) -> Any:
        try:
            return func(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if dynamic:
                raise self._unreadable(func) from error
            if isinstance(error, NotImplementedError) and func.namespace == "aten":
                return on_zeros(func, args, kwargs)  # there is no kernel that knows shapes alone
            raise

    def _unreadable(self, func: Any) -> DataDependentError:
        r = self.recording
        return DataDependentError(
            f"the forward pass reads a value that depends on the input or the weights ({func.overloadpacket})",
            where=f"{r.module} {source()}".strip(),
            hint="such control flow cannot be followed without data; exclude it or export a fixed variant",
        )

    def _outputs(self, result: Any, known: Any, computed: bool) -> tuple[Ref, ...]:
        if isinstance(result, Tensor):
            return (self._output(result, known, computed),)
        values = list(of_type(known, Tensor)) if known is not None else []
        tensors = list(of_type(result, Tensor))
        if len(values) != len(tensors):
            values = [None] * len(tensors)
        return tuple([self._output(t, v, computed) for t, v in zip(tensors, values, strict=True)])

    def _output(self, tensor: Tensor, value: Any, computed: bool) -> Ref:
        old = getattr(tensor, "_prunekit_ref", None)
        if isinstance(old, Ref) and old.shape == tuple(tensor.shape):
            return old  # an in-place operator returned its own argument
        known = value if isinstance(value, Tensor) else None
        return self.recording.new_ref(tensor, "computed" if computed else "constant", value=known)

    def _evaluate(self, func: Any, args: Any, kwargs: Any, inputs: list[Ref]) -> Any:
        """The operator's real result where all its inputs are known constants, else None.

        In-place operators run on the known values too; what an unknown value is written into becomes unknown,
        with every view of the same storage.
        """
        if not inputs and func not in _FACTORIES:
            return None
        stale = self.recording.stale
        values = [i.value for i in inputs if i.value is not None]
        known = len(values) == len(inputs) and not any(_storage(v) in stale for v in values)
        if not known or torch.Tag.nondeterministic_seeded in func.tags:
            if values and func._schema.is_mutable:
                stale.update(_storage(v) for v in values)
            return None
        args, kwargs = mapped(args, _value), mapped(kwargs, _value)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        try:
            result = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError, IndexError):
            return None  # no kernel for this constant: it stays unknown, and what needs it is refused by name
        return None if sum(t.numel() for t in of_type(result, Tensor)) > VALUE_LIMIT else result


@functools.cache
def _is_dynamic(func: Any) -> bool:
    return torch.Tag.dynamic_output_shape in func.tags


def _runs_on_meta(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operator of another library than torch has a kernel that knows shapes without numbers."""
    if func.namespace in ("aten", "prims"):
        return True
    try:
        func(*args, **kwargs)
    except Exception:  # whatever a foreign kernel raises: it needs numbers
        return False
    return True


def _value(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, Ref) else leaf


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


_aten = torch.ops.aten
_FACTORIES = {
    _aten.arange.default,
    _aten.arange.start,
    _aten.arange.start_step,
    _aten.zeros.default,
    _aten.ones.default,
    _aten.full.default,
    _aten.linspace.default,
    _aten.eye.default,
    _aten.eye.m,
    _aten.scalar_tensor.default,
    _aten.tril_indices.default,
    _aten.triu_indices.default,
}

_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]
_SIZE = Tensor.size
_NUMEL = {Tensor.numel, Tensor.nelement}
_QUIET = {Tensor.dim, Tensor.device.__get__, Tensor.dtype.__get__, Tensor.is_floating_point}  # type: ignore[attr-defined]


class CallMode(TorchFunctionMode):
    """Sees C-level torch functions with their Python arguments; sizes come back as traced ints."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        r = self.recording
        if func == _SHAPE:  # a new wrapper object at every access
            return self._sizes(args[0])
        if func == _SIZE:
            sizes = self._sizes(args[0])
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return sizes if dim is None else sizes[dim]
        if func in _NUMEL:
            sizes = self._sizes(args[0])
            return functools.reduce(operator.mul, sizes) if sizes else 1
        if func in _QUIET or r.call is not None:
            return func(*args, **kwargs)
        if func in _MAKES and not any(True for _ in of_type(args, Tensor)):
            return _made_of_numbers(func, args, kwargs, r)
        args = _with_known_lists(func, args, r)
        with torch._C.DisableTorchFunction():  # what looks at tensors here is seen by no mode
            told = r.strip(args), r.strip(kwargs)
        call = Call(getattr(func, "__name__", str(func)), *told, (), r.module, source(r.entered))
        r.call = call
        try:
            result = func(*args, **kwargs)
        finally:
            r.call = None
        with torch._C.DisableTorchFunction():
            call.outputs = tuple([r.ref(t) for t in meta_tensors(result)])
        r.trace.calls.append(call)
        return result

    def _sizes(self, tensor: Tensor) -> torch.Size:
        ref = self.recording.ref(self.recording.to_meta(tensor))
        self.recording.trace.sizes[ref.id] = ref.shape  # it may be of an earlier trace that the model kept
        return torch.Size([TracedInt(s, ("size", ref.id, i)) for i, s in enumerate(ref.shape)])


class ListMode(TorchFunctionMode):
    """What ``CallMode`` does for lists of indices, alone: for a rehearsal."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self.recording = recording

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MAKES and not any(True for _ in of_type(args, Tensor)):
            return _made_of_numbers(func, args, kwargs or {}, self.recording)
        return func(*_with_known_lists(func, args, self.recording), **(kwargs or {}))


def _made_of_numbers(func: Any, args: Any, kwargs: Any, r: Recording) -> Any:
    """``torch.tensor(3)`` with its value, which a tensor on the meta device would not have."""
    r.trace.lists = True
    with _disable_current_modes():
        made = func(*mapped(args, _plain_number), **{**kwargs, "device": "cpu"})
    return r.to_meta(made)


def _plain_number(leaf: Any) -> Any:
    return int(leaf) if isinstance(leaf, TracedInt) else leaf


def _with_known_lists(func: Any, args: Any, r: Recording) -> Any:
    """``x[[0, -1]]`` with a tensor in place of the list.

    Torch would make one inside, on the meta device, where it has no values: what is picked from a mask or from token
    ids would be unknown.
    """
    if func not in _INDEXED:
        return args
    index = args[1]
    if isinstance(index, tuple) and any(type(i) is list for i in index):
        index = tuple(_known_list(i, r) for i in index)
    elif type(index) is list:
        index = _known_list(index, r)
    return args if index is args[1] else (args[0], index, *args[2:])


def _known_list(index: Any, r: Recording) -> Any:
    if type(index) is not list or not index or any(type(i) not in (int, bool) for i in index):
        return index
    r.trace.lists = True
    return torch.tensor(index, device="cpu")


_MAKES = {torch.tensor, torch.as_tensor}
_INDEXED = {Tensor.__getitem__, Tensor.__setitem__}


def _no_override(*_: Any, **__: Any) -> bool:
    return False


@contextlib.contextmanager
def python_functionals_open() -> Iterator[None]:
    """Lets torch's Python-level functions run their bodies under the function mode.

    Otherwise a function such as multi_head_attention_forward is handed over whole and its inner calls, where the
    sizes are used, stay unseen. Scoped, and under a lock, since it touches torch's own module namespace.
    """
    spots = []
    for holder in (torch.nn.functional, torch.functional, sys.modules["torch._tensor"]):
        for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
            if hasattr(holder, name):
                spots.append((holder, name, getattr(holder, name)))
    try:
        for holder, name, _ in spots:
            setattr(holder, name, _no_override)
        with without_fast_path():
            yield
    finally:
        for holder, name, original in spots:
            setattr(holder, name, original)
