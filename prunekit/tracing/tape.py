"""What is known while a trace runs: tensors and their Refs, the module that stands, the operators so far."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from prunekit.errors import TraceError
from prunekit.graph.nodes import Call, Ref, Trace
from prunekit.graph.provenance import TracedInt, leaves
from prunekit.graph.tree import mapped
from prunekit.modules.emptied import Place
from prunekit.modules.memos import forget_sizes, memos_by_sizes
from prunekit.modules.walk import named_modules, state_tensors
from prunekit.tracing.numbers import Numbers, Replay

_TREES = (Tensor, tuple, list, dict)
VALUE_LIMIT = 1 << 20  # elements; larger constants are not worth evaluating
OWN_FOLDERS = (torch.__path__[0] + "/", __file__.rsplit("/", 2)[0] + "/")
_NUMBERS = itertools.count(1)  # never reused: a model may keep a tensor of one trace in a cache and read it in the next
_FOREIGN: dict[CodeType, bool] = {}


def is_foreign(file: str) -> bool:
    """Whether a source file is neither torch's nor prunekit's."""
    return not file.startswith(OWN_FOLDERS) and not file.startswith("<")


def source(entered: Sequence[Entered] = ()) -> str:
    """``file.py:line`` of the innermost frame outside torch and prunekit; ``entered`` are the module calls around."""
    frame: FrameType | None = sys._getframe(2)
    inner, found = len(entered), ""
    while frame is not None:
        if inner and frame is entered[inner - 1].frame:
            inner -= 1
            if entered[inner].source is not None:  # what stands above it stands still while it runs
                found = entered[inner].source or ""
                break
        code = frame.f_code
        foreign = _FOREIGN.get(code)
        if foreign is None:
            foreign = _FOREIGN[code] = is_foreign(code.co_filename)
        if foreign:
            found = f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
            break
        frame = frame.f_back
    for entry in entered[inner:]:
        entry.source = found
    return found


@dataclass(eq=False)
class Entered:
    """A module call that runs: its frame, and the source line that it was reached from, once that is known."""

    frame: FrameType
    source: str | None = None


class Recording:
    """The state that the modes and the module calls share during one trace.

    A rehearsal (``brief``) keeps operators and shapes only: source lines and Python arguments are known from the
    first trace.
    """

    def __init__(
        self,
        model: nn.Module,
        max_ops: int,
        max_seconds: float,
        sizes: Mapping[str, tuple[int, ...]],
        opaque: Sequence[str],
        brief: bool,
        numbers: Numbers | None = None,
        replay: Replay | None = None,
        tables: Collection[Place] = (),
    ) -> None:
        self.trace = Trace()
        self.numbers, self.replay = numbers, replay
        self.trace.tables = tuple(tables)
        self.tables_met: set[Place] = set()
        self.model, self.sizes, self.brief = model, sizes, brief
        self.max_ops, self.deadline, self.max_seconds = max_ops, time.monotonic() + max_seconds, max_seconds
        self.call: Call | None = None
        self.stack: list[str] = []
        self.entered: list[Entered] = []
        self.modules = named_modules(model)  # walked once: nothing that a trace does adds or takes one
        self.memos = memos_by_sizes(model, self.modules)
        forget_sizes(self.memos)
        self.paths = {id(m): n for n, m in self.modules}
        self.real = state_tensors(model, self.modules)
        self.foreign: dict[int, Tensor] = {}
        self.keep: list[Any] = []
        self.stale: set[int] = set()  # storages of known values that an unknown value was written into
        self.opaque = set(opaque)
        self.paused = False
        self.packs = False  # whether sequences were packed
        self.failed_in = ""  # the innermost module that an exception left

    def new_ref(self, tensor: Tensor, kind: str, name: str = "", value: Tensor | None = None) -> Ref:
        shape = tuple([int(s) for s in tensor.shape])
        ref = Ref(next(_NUMBERS), shape, tensor.dtype, kind, name, value, tuple(tensor.stride()))
        self.trace.sizes[ref.id] = shape
        tensor._prunekit_ref = ref  # type: ignore[attr-defined]
        return ref

    def ref(self, tensor: Tensor) -> Ref:
        if not tensor.is_meta:
            tensor = self.to_meta(tensor)  # the model's own attribute is not written on
        found = getattr(tensor, "_prunekit_ref", None)
        return found if isinstance(found, Ref) else self.new_ref(tensor, "constant")

    def note_read(self, tensor: Tensor) -> None:
        """Notes that Python read the numbers of a tensor."""
        self.trace.reads.append(self.ref(tensor))

    def state(self, name: str, tensor: Tensor) -> Tensor:
        """Meta stand-in for a parameter or buffer; integer buffers keep their content as a known value."""
        if tensor.layout not in (torch.strided, torch.sparse_coo):
            raise TraceError(
                f"a tensor in {tensor.layout} cannot be followed", where=name, hint="keep it dense while pruning"
            )
        if name in self.sizes and self.sizes[name] != tuple(tensor.shape):
            meta = torch.empty(self.sizes[name], dtype=tensor.dtype, device="meta")
        else:
            meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        known = not tensor.is_floating_point() and not tensor.is_meta and tensor.numel() <= VALUE_LIMIT
        known = known and meta.shape == tensor.shape  # a cut one holds other values, which none of its shapes needs
        value = tensor.detach().cpu().clone() if known else None
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        if kind == "parameter":
            meta = nn.Parameter(meta, requires_grad=False)
        self.trace.state[name] = self.new_ref(meta, kind, name, value)
        self.foreign[id(tensor)] = meta
        self.keep.append(tensor)
        self._number(meta, tensor if kind == "parameter" else tensor.detach().clone())
        return meta

    def to_meta(self, tensor: Tensor) -> Tensor:
        """A meta tensor for any tensor that reaches an operator from outside the trace."""
        if tensor.is_meta and (isinstance(getattr(tensor, "_prunekit_ref", None), Ref) or id(tensor) in self.foreign):
            return tensor
        if id(tensor) not in self.foreign:
            with _disable_current_modes():  # or what is done here would be recorded
                self._take_in(tensor)
        return self.foreign[id(tensor)]

    def _take_in(self, tensor: Tensor) -> None:
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        known = not tensor.is_meta and tensor.numel() <= VALUE_LIMIT
        self.new_ref(meta, "constant", value=tensor.detach().cpu().clone() if known else None)
        self.foreign[id(tensor)] = meta
        self.keep.append(tensor)
        self._number(meta, tensor)

    def _number(self, meta: Tensor, real: Tensor) -> None:
        if self.numbers is not None and not real.is_meta:
            self.numbers.attach(meta, real.detach())

    def taken_in(self, tree: Any, inputs: list[Ref]) -> tuple[Any, Any]:
        """``tree`` with meta tensors, and with their Refs in the place of tensors; the Refs go to ``inputs`` too."""
        if isinstance(tree, Tensor):
            ref = getattr(tree, "_prunekit_ref", None)
            if not (isinstance(ref, Ref) and tree.is_meta):
                tree = self.to_meta(tree)
                ref = self.ref(tree)
            inputs.append(ref)
            return tree, ref
        if isinstance(tree, dict):
            pairs = {key: self.taken_in(value, inputs) for key, value in tree.items()}
            return {key: meta for key, (meta, _) in pairs.items()}, {key: ref for key, (_, ref) in pairs.items()}
        if not isinstance(tree, (tuple, list)):
            return tree, tree
        metas, refs = [], []
        for leaf in tree:
            meta, ref = self.taken_in(leaf, inputs) if isinstance(leaf, _TREES) else (leaf, leaf)
            metas.append(meta)
            refs.append(ref)
        return (metas, refs) if isinstance(tree, list) else (tuple(metas), tuple(refs))

    def strip(self, tree: Any) -> Any:
        """Tensors of a tree replaced by their Refs."""
        return mapped(tree, self._stripped)

    def _stripped(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return self.ref(leaf)
        if isinstance(leaf, TracedInt) and any(
            x[0] == "size" and x[1] not in self.trace.sizes for x in leaves(leaf.expression)
        ):
            return int(leaf)  # the model's code remembered it from another trace
        return leaf

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
