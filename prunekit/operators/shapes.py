"""Results of the most frequent operators on the meta device, by their shape rule alone.

torch's own meta kernels for these are Python decompositions that take up to a millisecond each, and a trace runs
hundreds of them. A shape rule here answers only where it is certain (plain operands that fit each other, and of which
one alone says how the result lies in memory); everything else, mistakes of the model included, goes to torch's kernel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def _empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(x.shape, dtype=dtype or x.dtype, device="meta")


def _laid_out_like(x: Tensor) -> Tensor:
    """What a pointwise function of ``x`` alone returns."""
    return _empty_like(x) if x.is_contiguous() else torch.empty_like(x)


def of_same(x: Tensor, *_: Any, **options: Any) -> Any:
    """Pointwise on one floating tensor; scalars that come with it change neither shape nor dtype."""
    if options.keys() - {"approximate"} or not x.is_floating_point():
        return NotImplemented
    return _laid_out_like(x)


def of_itself(x: Tensor, *_: Any, **options: Any) -> Any:
    """The in-place form of such an operator."""
    if options.keys() - {"approximate"} or not x.is_floating_point() or not x.is_contiguous():
        return NotImplemented
    return x


def of_binary(x: Any, y: Any, **options: Any) -> Any:
    if options.keys() - {"alpha"} or not isinstance(x, Tensor) or not x.is_floating_point():
        return NotImplemented
    if not isinstance(y, Tensor):
        return _laid_out_like(x) if isinstance(y, (int, float)) else NotImplemented
    if y.dtype is not x.dtype:
        return NotImplemented
    if x.shape == y.shape or _broadcasts(y.shape, x.shape):
        if x.is_contiguous() and y.is_contiguous():
            return _empty_like(x)
        # the first operand alone orders the axes where none of its strides is zero
        return torch.empty_like(x) if _fills_its_memory(x) else NotImplemented
    if not _broadcasts(x.shape, y.shape):
        return NotImplemented
    if x.is_contiguous() and y.is_contiguous():
        return _empty_like(y)
    # an operand that is spread over all axes but one orders none of them
    return torch.empty_like(y) if _is_line(x) and _fills_its_memory(y) else NotImplemented


def _is_line(x: Tensor) -> bool:
    return sum(size > 1 for size in x.shape) <= 1


def _fills_its_memory(x: Tensor) -> bool:
    """Whether it is contiguous but for the order of its axes."""
    wanted = 1
    for stride, size in sorted((t, s) for t, s in zip(x.stride(), x.shape, strict=True) if s != 1):
        if stride != wanted or not size:
            return False
        wanted *= size
    return True


def of_binary_in_place(x: Tensor, y: Any, **options: Any) -> Any:
    if options.keys() - {"alpha"} or not _fills_its_memory(x) or not x.is_floating_point():
        return NotImplemented
    if isinstance(y, Tensor) and (y.dtype is not x.dtype or not _broadcasts(y.shape, x.shape)):
        return NotImplemented
    return x


def of_triangle(x: Tensor, diagonal: int = 0) -> Any:
    """A lower or upper triangle of matrices."""
    return _empty_like(x) if x.dim() >= 2 and x.is_contiguous() else NotImplemented


def of_where(condition: Tensor, x: Any, y: Any) -> Any:
    """A choice between tensors of one shape, or between two numbers."""
    if condition.dtype is not torch.bool or not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return NotImplemented
    if x.dtype is not y.dtype or not all(t.is_contiguous() for t in (condition, x, y)):
        return NotImplemented
    if not condition.shape or any(t.shape not in ((), condition.shape) for t in (x, y)):
        return NotImplemented
    return _empty_like(condition, x.dtype) if x.shape == y.shape else NotImplemented


def of_clone(x: Tensor, *, memory_format: torch.memory_format | None = None) -> Any:
    if memory_format is torch.contiguous_format:
        return _empty_like(x)
    return _laid_out_like(x) if memory_format in (None, torch.preserve_format) else NotImplemented


def of_unsafe_view(x: Tensor, sizes: Any) -> Any:
    """The elements of a contiguous tensor in another shape."""
    if not x.is_contiguous() or any(size < 0 for size in sizes) or math.prod(sizes) != x.numel():
        return NotImplemented
    return x.new_empty(tuple(sizes))


def _broadcasts(small: torch.Size, large: torch.Size) -> bool:
    """Whether ``small`` expands to ``large`` as it is, and has at least one axis to say so."""
    offset = len(large) - len(small)
    return len(small) > 0 and offset >= 0 and all(s in (1, large[i + offset]) for i, s in enumerate(small))


def of_batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Any:
    if training or x.dim() < 2 or not x.is_contiguous() or mean is None or variance is None:
        return NotImplemented
    channels = x.shape[1:2]
    if any(t is not None and t.shape != channels for t in (weight, bias, mean, variance)):
        return NotImplemented
    saved = _saved_dtype(x)
    return _empty_like(x), x.new_empty(channels, dtype=saved), x.new_empty(channels, dtype=saved)


def of_layer_norm(x: Tensor, sizes: Any, weight: Any, bias: Any, eps: float) -> Any:
    shape = tuple(sizes)
    outer = x.dim() - len(shape)
    if outer < 0 or not shape or tuple(x.shape[outer:]) != shape:
        return NotImplemented
    if any(t is not None and tuple(t.shape) != shape for t in (weight, bias)):
        return NotImplemented
    spread = (*x.shape[:outer], *([1] * len(shape)))
    saved = _saved_dtype(x)
    return _empty_like(x), x.new_empty(spread, dtype=saved), x.new_empty(spread, dtype=saved)


def _saved_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def of_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    rank = weight.dim() - 2
    if transposed or rank < 1 or x.dim() != rank + 2 or groups < 1 or x.dtype is not weight.dtype:
        return NotImplemented
    if not (x.is_contiguous() and weight.is_contiguous()):
        return NotImplemented
    outputs, inputs = weight.shape[0], weight.shape[1]
    if x.shape[1] != inputs * groups or outputs % groups or (bias is not None and bias.shape != (outputs,)):
        return NotImplemented
    if not len(stride) == len(padding) == len(dilation) == rank:
        return NotImplemented
    spatial = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    ]
    return x.new_empty((x.shape[0], outputs, *spatial)) if min(spatial) > 0 else NotImplemented


def of_mm(a: Tensor, b: Tensor) -> Any:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or a.dtype is not b.dtype:
        return NotImplemented
    return a.new_empty((a.shape[0], b.shape[1]))


def of_addmm(bias: Tensor, a: Tensor, b: Tensor, **options: Any) -> Any:
    if options or a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        return NotImplemented
    if not a.dtype is b.dtype is bias.dtype or bias.shape != b.shape[1:]:
        return NotImplemented
    return a.new_empty((a.shape[0], b.shape[1]))


def of_bmm(a: Tensor, b: Tensor) -> Any:
    if a.dim() != 3 or b.dim() != 3 or a.dtype is not b.dtype or a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return NotImplemented
    return a.new_empty((a.shape[0], a.shape[1], b.shape[2]))


def of_softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    if half_to_float or not x.is_contiguous() or not x.is_floating_point() or not -x.dim() <= dim < x.dim():
        return NotImplemented
    return _empty_like(x)


def of_cat(tensors: Any, dim: int = 0) -> Any:
    first = tensors[0]
    rank = first.dim()
    if not rank or not -rank <= dim < rank:
        return NotImplemented
    dim %= rank
    rest = first.shape[:dim], first.shape[dim + 1 :]
    for t in tensors:
        if t.dim() != rank or (t.shape[:dim], t.shape[dim + 1 :]) != rest:
            return NotImplemented
        if t.dtype is not first.dtype or not _is_rows(t):
            return NotImplemented
    return first.new_empty((*rest[0], sum(t.shape[dim] for t in tensors), *rest[1]))


def _is_rows(x: Tensor) -> bool:
    """Whether its last axis is the innermost, without doubt: no reading of its strides puts the channels last."""
    inner = x.stride(-1)
    return _has_plain_strides(x) or (x.shape[-1] > 1 and inner > 0 and all(t > inner for t in x.stride()[:-1]))


def _has_plain_strides(x: Tensor) -> bool:
    """Contiguous, and along axes of one too."""
    wanted = 1
    for stride, size in zip(reversed(x.stride()), reversed(x.shape), strict=True):
        if stride != wanted:
            return False
        wanted *= max(size, 1)
    return True


def of_mean(x: Tensor, dims: Any, keepdim: bool = False, **options: Any) -> Any:
    rank = x.dim()
    if options or not x.is_floating_point() or not x.is_contiguous() or not dims:
        return NotImplemented
    if not all(-rank <= d < rank for d in dims):
        return NotImplemented
    gone = {d % rank for d in dims}
    if len(gone) < len(dims):
        return NotImplemented
    return x.new_empty([1 if k in gone else s for k, s in enumerate(x.shape) if keepdim or k not in gone])


def of_grouped_mm(a: Tensor, b: Tensor, offs: Tensor | None = None, **options: Any) -> Any:
    """Rows of ``a`` [S, K], in runs that end at ``offs``, times the matrices of ``b`` [G, K, N].

    torch's meta kernel takes half precision only, though its kernels for CPUs and GPUs take any.
    """
    if options or offs is None or a.dim() != 2 or b.dim() != 3 or a.dtype is not b.dtype or a.shape[1] != b.shape[1]:
        return NotImplemented
    if not all(_is_aligned(t) for t in (a, b)):
        return NotImplemented
    return a.new_empty((a.shape[0], b.shape[2]))


def _is_aligned(x: Tensor) -> bool:
    """Whether matrices are row or column major with lines that start at multiples of 16 bytes."""
    inner, outer = sorted(x.stride()[-2:])
    return inner == 1 and outer * x.element_size() % 16 == 0


def of_safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    """Of shape ``x.shape``."""
    return NotImplemented if dtype is not None else of_softmax(x, dim, False)
