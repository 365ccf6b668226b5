"""Records one eager forward pass on the meta device: every ATen operator, and the Python arguments behind it."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
import torch.nn.functional
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.errors import PrunekitError, TraceError
from prunekit.inputs import Inputs
from prunekit.trace.provenance import TracedInt, listening
from prunekit.trace.record import Call, ModuleCall, Op, Ref, Trace
from prunekit.trace.standin import AttributeKey, stand_in, state_tensors

_VALUE_LIMIT = 1 << 20  # elements; larger constants are not worth evaluating
_LOCK = threading.RLock()
_NUMBERS = itertools.count(1)  # never reused: a model may keep a tensor of one trace in a cache and read it in the next
_OWN_FOLDERS = (torch.__path__[0], __file__.rsplit("/", 2)[0])


def _source() -> str:
    """``file.py:line`` of the innermost frame outside torch and prunekit."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN_FOLDERS) and not file.startswith("<"):
            return f"{file.rsplit('/', 1)[-1]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class _Recorder:
    """The state that the two modes and the module hooks share during one trace."""

    def __init__(
        self, model: nn.Module, max_ops: int, max_seconds: float, sizes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.trace = Trace()
        self.sizes = sizes
        self.max_ops, self.deadline, self.max_seconds = max_ops, time.monotonic() + max_seconds, max_seconds
        self.call: Call | None = None
        self.stack: list[str] = []
        self.paths = {id(m): n for n, m in model.named_modules()}
        self.foreign: dict[int, Tensor] = {}
        self.keep: list[Any] = []
        self.stale: set[int] = set()  # storages of known values that an unknown value was written into

    def new_ref(self, tensor: Tensor, kind: str, name: str = "", value: Tensor | None = None) -> Ref:
        ref = Ref(next(_NUMBERS), tuple(int(s) for s in tensor.shape), tensor.dtype, kind, name, value)
        tensor._prunekit_ref = ref  # type: ignore[attr-defined]
        return ref

    def ref(self, tensor: Tensor) -> Ref:
        found = getattr(tensor, "_prunekit_ref", None)
        return found if isinstance(found, Ref) else self.new_ref(tensor, "constant")

    def state(self, name: str, tensor: Tensor) -> Tensor:
        """Meta stand-in for a parameter or buffer; integer buffers keep their content as a known value."""
        if name in self.sizes and self.sizes[name] != tuple(tensor.shape):
            meta = torch.empty(self.sizes[name], dtype=tensor.dtype, device="meta")
        else:
            meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        known = not tensor.is_floating_point() and not tensor.is_meta and tensor.numel() <= _VALUE_LIMIT
        value = tensor.detach().cpu().clone() if known else None
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        if kind == "parameter":
            meta = nn.Parameter(meta, requires_grad=False)
        self.trace.state[name] = self.new_ref(meta, kind, name, value)
        self.foreign[id(tensor)] = meta
        self.keep.append(tensor)
        return meta

    def to_meta(self, tensor: Tensor) -> Tensor:
        """A meta tensor for any tensor that reaches an operator from outside the trace."""
        if isinstance(getattr(tensor, "_prunekit_ref", None), Ref) or (tensor.is_meta and id(tensor) in self.foreign):
            return tensor
        if id(tensor) not in self.foreign:
            meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            known = not tensor.is_meta and tensor.numel() <= _VALUE_LIMIT
            self.new_ref(meta, "constant", value=tensor.detach().cpu().clone() if known else None)
            self.foreign[id(tensor)] = meta
            self.keep.append(tensor)
        return self.foreign[id(tensor)]

    def strip(self, tree: Any) -> Any:
        """Tensors of a pytree replaced by their Refs."""
        return tree_map(lambda x: self.ref(x) if isinstance(x, Tensor) else x, tree)

    @property
    def module(self) -> str:
        return self.stack[-1] if self.stack else ""

    def check_budget(self) -> None:
        if len(self.trace.ops) > self.max_ops or time.monotonic() > self.deadline:
            raise TraceError(
                f"tracing passed its limit of {self.max_ops} operators or {self.max_seconds:.0f} s",
                where=self.module,
                hint="pass smaller example inputs, or exclude the part that loops",
            )


class _OpMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        r = self.recorder
        r.check_budget()
        args, kwargs = tree_map(lambda x: r.to_meta(x) if isinstance(x, Tensor) else x, (args, kwargs or {}))
        inputs = [r.ref(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        stripped = r.strip((args, kwargs))
        known = self._evaluate(func, stripped[0], stripped[1], inputs)
        if func is torch.ops.aten._local_scalar_dense.default:
            if known is None:
                raise TraceError(
                    "the forward pass reads a value that depends on the input or the weights",
                    where=f"{r.module} {_source()}".strip(),
                    hint="such control flow cannot be followed without data; exclude it or export a fixed variant",
                )
            return known
        if known is not None and torch.Tag.dynamic_output_shape in func.tags:
            result = tree_map(lambda t: torch.empty_like(t, device="meta") if isinstance(t, Tensor) else t, known)
        else:
            if kwargs.get("device") is not None:
                kwargs = {**kwargs, "device": torch.device("meta")}
            result = func(*args, **kwargs)
        outputs = self._outputs(result, known, any(i.kind != "constant" for i in inputs))
        r.trace.ops.append(Op(func, stripped[0], stripped[1], outputs, r.call, r.module, _source()))
        return result

    def _outputs(self, result: Any, known: Any, computed: bool) -> tuple[Ref, ...]:
        r = self.recorder
        values = tree_leaves(known) if known is not None else []
        refs = []
        for i, tensor in enumerate(tree_leaves(result)):
            if not isinstance(tensor, Tensor):
                continue
            value = values[i] if i < len(values) and isinstance(values[i], Tensor) else None
            old = getattr(tensor, "_prunekit_ref", None)
            if isinstance(old, Ref) and old.shape == tuple(tensor.shape):
                refs.append(old)  # an in-place operator returned its own argument
            else:
                refs.append(r.new_ref(tensor, "computed" if computed else "constant", value=value))
        return tuple(refs)

    def _evaluate(self, func: Any, args: Any, kwargs: Any, inputs: list[Ref]) -> Any:
        """The operator's real result where all its inputs are known constants, else None.

        In-place operators run on the known values too; what an unknown value is written into becomes unknown,
        with every view of the same storage.
        """
        stale = self.recorder.stale
        values = [i.value for i in inputs if i.value is not None]
        known = len(values) == len(inputs) and not any(_storage(v) in stale for v in values)
        if not known or torch.Tag.nondeterministic_seeded in func.tags or (not inputs and func not in _FACTORIES):
            if func._schema.is_mutable:
                stale.update(_storage(v) for v in values)
            return None
        args, kwargs = tree_map(lambda x: x.value if isinstance(x, Ref) else x, (args, kwargs))
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        try:
            result = func(*args, **kwargs)
        except (RuntimeError, NotImplementedError, TypeError, IndexError):
            return None  # no kernel for this constant: it stays unknown, and what needs it is refused by name
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, Tensor)]
        return None if sum(sizes) > _VALUE_LIMIT else result


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
_QUIET = {Tensor.dim, Tensor.device.__get__, Tensor.dtype.__get__, Tensor.is_floating_point}  # type: ignore[attr-defined]


class _CallMode(TorchFunctionMode):
    """Sees C-level torch functions with their Python arguments; sizes come back as traced ints."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        r = self.recorder
        if func == _SHAPE:  # a new wrapper object at every access
            return self._sizes(args[0])
        if func == _SIZE:
            sizes = self._sizes(args[0])
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            return sizes if dim is None else sizes[dim]
        if func in _QUIET or r.call is not None:
            return func(*args, **kwargs)
        names = r.strip((args, kwargs))
        call = Call(getattr(func, "__name__", str(func)), names[0], names[1], (), r.module, _source())
        r.call = call
        try:
            result = func(*args, **kwargs)
        finally:
            r.call = None
        call.outputs = tuple(r.ref(t) for t in tree_leaves(result) if isinstance(t, Tensor) and t.is_meta)
        r.trace.calls.append(call)
        return result

    def _sizes(self, tensor: Tensor) -> torch.Size:
        ref = self.recorder.ref(self.recorder.to_meta(tensor))
        return torch.Size([TracedInt(s, ("size", ref.id, i)) for i, s in enumerate(ref.shape)])


def _no_override(*_: Any, **__: Any) -> bool:
    return False


@contextlib.contextmanager
def _python_functionals_open() -> Iterator[None]:
    """Lets torch's Python-level functions run their bodies under the function mode.

    Otherwise a function such as multi_head_attention_forward is handed over whole and its inner calls, where the
    sizes are used, stay unseen. Scoped, and under a lock, since it touches torch's own module namespace.
    """
    spots = []
    for holder in (torch.nn.functional, torch.functional, sys.modules["torch._tensor"]):
        for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
            if hasattr(holder, name):
                spots.append((holder, name, getattr(holder, name)))
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        for holder, name, _ in spots:
            setattr(holder, name, _no_override)
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        for holder, name, original in spots:
            setattr(holder, name, original)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _module_hooks(recorder: _Recorder) -> Iterator[None]:
    def tensors(tree: Any) -> tuple[Ref, ...]:
        return tuple(recorder.ref(t) for t in tree_leaves(tree) if isinstance(t, Tensor) and t.is_meta)

    def enter(module: nn.Module, args: Any) -> None:
        recorder.stack.append(recorder.paths.get(id(module), recorder.module))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        path = recorder.stack.pop() if recorder.stack else ""
        leaf = next(module.children(), None) is None
        recorder.trace.modules.append(ModuleCall(path, leaf, tensors(args[:1]), tensors(output)))

    before = nn.modules.module.register_module_forward_pre_hook(enter)
    after = nn.modules.module.register_module_forward_hook(leave)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def record(
    model: nn.Module,
    inputs: Inputs,
    *,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    attributes: Mapping[AttributeKey, int] | None = None,
    max_ops: int = 200_000,
    max_seconds: float = 300.0,
) -> Trace:
    """Trace of ``model(*inputs.args, **inputs.kwargs)`` in eval mode, without touching a weight.

    Args:
        sizes, attributes: for a rehearsal, the shapes of state tensors and the values of int attributes that the
            model would have; what is not named keeps its own.
        max_ops, max_seconds: limits; a trace that passes them is refused with the module that it stood in.

    Raises:
        TraceError: if forward fails or cannot be followed; the model is as it was.
    """
    recorder = _Recorder(model, max_ops, max_seconds, sizes or {})
    trace = recorder.trace

    def as_input(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        meta = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
        known = not x.is_floating_point() and not x.is_meta and x.numel() <= _VALUE_LIMIT
        recorder.new_ref(meta, "input", value=x.detach().cpu().clone() if known else None)
        return meta

    with _LOCK, contextlib.ExitStack() as scope:
        args, kwargs = tree_map(as_input, (inputs.args, inputs.kwargs))
        trace.attributes = scope.enter_context(stand_in(model, recorder.state, attributes or {}))
        scope.enter_context(_python_functionals_open())
        scope.enter_context(_module_hooks(recorder))
        scope.enter_context(torch.no_grad())
        scope.enter_context(torch.device("meta"))
        trace.agreed = scope.enter_context(listening())
        scope.enter_context(_CallMode(recorder))
        scope.enter_context(_OpMode(recorder))
        try:
            result = model(*args, **kwargs)
        except PrunekitError:
            raise
        except Exception as error:  # forward is the user's code: whatever it raises is reported as one typed error
            raise TraceError(
                f"forward failed: {type(error).__name__}: {_first_line(error)}",
                where=f"{recorder.module} {_innermost(error)}".strip(),
                hint="check that model(*example_inputs) runs, or pass other example_inputs",
            ) from error
    trace.outputs = tuple(recorder.ref(t) for t in output_tensors(result))
    if not trace.outputs:
        raise TraceError("the model's output holds no tensor", hint="return tensors, or a pytree or dataclass of them")
    return trace


def output_tensors(tree: Any) -> list[Tensor]:
    """Tensors of an output of any nesting: pytrees, mappings, dataclasses and plain objects that hold them."""
    found: list[Tensor] = []
    seen: set[int] = set()

    def walk(x: Any) -> None:
        if isinstance(x, Tensor):
            found.append(x)
        elif id(x) in seen:
            return
        elif isinstance(x, dict):
            seen.add(id(x))
            for v in x.values():
                walk(v)
        elif isinstance(x, (list, tuple, set)):
            seen.add(id(x))
            for v in x:
                walk(v)
        elif hasattr(x, "__dict__") and not isinstance(x, (type, nn.Module)):
            seen.add(id(x))
            for v in vars(x).values():
                walk(v)

    walk(tree)
    return found


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).strip().split("\n") if line.strip()), "")[:300]


def _innermost(error: BaseException) -> str:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_OWN_FOLDERS) and not file.startswith("<"):
            place = f"{file.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


__all__ = ["output_tensors", "record", "state_tensors"]
