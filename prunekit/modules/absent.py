"""What stands where a module was whose output was added to a stream: it holds nothing and adds nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.graph.tree import of_type

NONE, GIVEN, LIKE, AFFINE, STREAM = "none", "given", "like", "affine", "stream"
MAP = "affine_map"  # the name of the layer that a map is
SIZES = "zeros_sizes"  # the attribute that follows the widths around it
_PLAIN = (NONE, GIVEN, LIKE)
_RESIZED = re.compile(r"(?:like|affine|stream):(\d+)=(\d+)")


class Absent(nn.Module):
    """Returns zeros in the shapes of what the module that it stands for returned; has no parameter but those of a map.

    Args:
        form: ``tensor``, ``tuple`` or ``list``: what is returned.
        leaves: for every entry ``none``; or ``given``, the first tensor among the arguments; or ``like``, zeros like
            that one; or ``like:A=N``, the same with N places on axis A; or ``affine:A=N``, an affine map of its N
            features along axis A; or ``stream:A=N``, the tensor and such a map of it. A map begins as zero.
        stands_for: the module; what it holds besides tensors and modules, such as a number of heads that a forward
            around it reads, is answered as before, and its tensors and modules as None.
        typed: names of its tensors of which a forward around it reads the type: empty ones of that type answer.

    Raises ValueError for leaves of no such form, AttributeError for a tensor that is not there.
    """

    def __init__(self, form: str, leaves: Sequence[str], stands_for: nn.Module, typed: Sequence[str] = ()) -> None:
        super().__init__()
        taken = {*self.__dict__, *dir(type(self)), MAP}  # an attribute hides a module of its name
        own = {k: v for k, v in stands_for.__dict__.items() if k not in taken and not _is_part(v)}
        self.__dict__.update(own, training=stands_for.training)
        for store in ("_parameters", "_buffers", "_modules"):
            self.__dict__[store].update(dict.fromkeys(stands_for.__dict__[store]))
        if form not in ("tensor", "tuple", "list") or (form == "tensor" and len(leaves) != 1):
            raise ValueError(f"{form!r} of {len(leaves)} is nothing that a module returns")
        resized = [_RESIZED.fullmatch(leaf) for leaf in leaves]
        if wrong := [leaf for leaf, sized in zip(leaves, resized, strict=True) if not sized and leaf not in _PLAIN]:
            raise ValueError(f"{wrong[0]!r} is no way to make zeros")
        self.zeros_form, self.zeros_leaves = form, tuple(leaf.partition(":")[0] for leaf in leaves)
        self.zeros_axes = tuple(str(sized[1]) if sized else "" for sized in resized)  # text: no number to be mended
        self.zeros_sizes = tuple(int(sized[2]) if sized else 0 for sized in resized)
        self.zeros_typed = tuple(typed)
        for name in typed:
            made = getattr(stands_for, name).detach().new_empty(0)
            self._parameters.pop(name, None)
            self._buffers.pop(name, None)
            self.__dict__[name] = made
        if any(leaf in (AFFINE, STREAM) for leaf in self.zeros_leaves):
            self._modules[MAP] = _zero_map(self.zeros_sizes[0], stands_for)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Zeros, whatever is given, or the map of it."""
        first = next(of_type((args, kwargs), Tensor))
        made = [self._made(first, at) for at in range(len(self.zeros_leaves))]
        if self.zeros_form == "tensor":
            return made[0]
        return tuple(made) if self.zeros_form == "tuple" else made

    def _made(self, first: Tensor, at: int) -> Tensor | None:
        if self.zeros_leaves[at] == NONE:
            return None
        if self.zeros_leaves[at] == GIVEN:
            return first
        if not self.zeros_axes[at]:
            return torch.zeros_like(first)
        axis = int(self.zeros_axes[at])
        if self.zeros_leaves[at] in (AFFINE, STREAM):
            made: Tensor = self._modules[MAP](first.movedim(axis, -1)).movedim(-1, axis)  # type: ignore[misc]
            return first + made if self.zeros_leaves[at] == STREAM else made
        return first.new_zeros([*first.shape[:axis], self.zeros_sizes[at], *first.shape[axis + 1 :]])

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Types follow the rest of the model, as where it is made half."""
        for name in self.zeros_typed:
            self.__dict__[name] = fn(self.__dict__[name])
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """What it returns."""
        return f"zeros, {self.zeros_form}"


def _zero_map(features: int, like: nn.Module) -> nn.Linear:
    """Made without torch's random numbers, which a removal must not draw."""
    given = next((p for p in like.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))
    made = nn.Linear(features, features, device="meta").train(like.training)
    made.weight, made.bias = (nn.Parameter(given.new_zeros(size)) for size in ((features, features), (features,)))
    return made


def _is_part(value: Any) -> bool:
    return isinstance(value, (Tensor, nn.Module)) or callable(value)
