"""Every shape rule of the trace says what torch's own meta kernel says, or says nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves

from prunekit.operators import TABLE, shapes
from prunekit.tracing import quick

aten: Any = torch.ops.aten
LAW = settings(deadline=None, derandomize=True, max_examples=120)
SIZES = st.integers(1, 5)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.float64, torch.int64])


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@st.composite
def tensors(draw: Any, rank: int | None = None) -> torch.Tensor:
    """A meta tensor of any strides: contiguous, permuted, expanded, sliced."""
    shape = draw(st.lists(SIZES, min_size=rank or 0, max_size=4 if rank is None else rank))
    tensor = torch.empty(shape, dtype=draw(DTYPES), device="meta")
    kind = draw(st.sampled_from(["plain", "plain", "permuted", "expanded", "sliced"]))
    if kind == "permuted":
        return tensor.permute(draw(st.permutations(range(len(shape)))))
    if kind == "expanded" and shape:
        return tensor[:1].expand(shape)
    if kind == "sliced" and shape:
        return tensor[..., ::2]
    return tensor


def strides(tensor: torch.Tensor) -> list[int]:
    """Strides that matter: nothing is ever reached along an axis of one."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def agrees(func: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether the rule answered; fails where its answer is not torch's."""
    found = quick.result(func, args, kwargs)
    if found is NotImplemented:
        return False
    expected = func(*args, **kwargs)
    for ours, theirs in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        assert (ours.shape, strides(ours), ours.dtype) == (theirs.shape, strides(theirs), theirs.dtype), func
        assert ours.device == theirs.device
        assert (ours is args[0]) == (theirs is args[0]), "in place or not"
    return True


OF_ONE = [func for func, rule in TABLE.shapes.items() if rule in (shapes.of_same, shapes.of_itself)]


@LAW
@given(tensors(), st.data())
def test_pointwise_of_one_tensor(x: torch.Tensor, data: Any) -> None:
    agrees(data.draw(st.sampled_from(OF_ONE)), x)


@LAW
@given(tensors(), tensors(), st.sampled_from(["add", "sub", "mul", "div", "add_", "sub_", "mul_", "div_"]))
def test_pointwise_of_two_tensors(x: torch.Tensor, y: torch.Tensor, name: str) -> None:
    agrees(getattr(aten, name).Tensor, x, y)


@LAW
@given(tensors(), st.one_of(st.integers(-3, 3), st.floats(-2, 2)), st.sampled_from(["add", "mul", "div", "mul_"]))
def test_pointwise_with_a_number(x: torch.Tensor, number: float, name: str) -> None:
    agrees(getattr(aten, name).Tensor, x, number)


@LAW
@given(tensors(), st.one_of(st.integers(-3, 3), st.floats(-2, 2)))
def test_powers_and_scalars(x: torch.Tensor, number: float) -> None:
    if x.is_floating_point() or number >= 0:
        agrees(aten.pow.Tensor_Scalar, x, number)
    agrees(aten.mul.Scalar, x, number)


@LAW
@given(tensors(), st.integers(-2, 2))
def test_triangles(x: torch.Tensor, diagonal: int) -> None:
    if x.dim() > 1:
        agrees(aten.tril.default, x, diagonal)
        agrees(aten.triu.default, x, diagonal)


@LAW
@given(tensors(), st.data())
def test_choices(x: torch.Tensor, data: Any) -> None:
    shaped = st.sampled_from([meta(dtype=x.dtype), x, x.mT if x.dim() > 1 else x, meta(*x.shape[-1:])])
    mask = data.draw(st.sampled_from([x, torch.empty(x.shape, device="meta")])) > 0
    agrees(aten.where.self, mask, data.draw(shaped), data.draw(shaped))


@LAW
@given(tensors(), st.sampled_from([None, torch.preserve_format, torch.contiguous_format, torch.channels_last]))
def test_copies(x: torch.Tensor, how: torch.memory_format | None) -> None:
    if how is not torch.channels_last or x.dim() == 4:
        agrees(aten.clone.default, x, **({} if how is None else {"memory_format": how}))


@LAW
@given(tensors(), st.data())
def test_other_shapes_of_the_same_elements(x: torch.Tensor, data: Any) -> None:
    sizes = data.draw(st.permutations(x.shape))
    if data.draw(st.booleans()):
        sizes = [-1, *sizes[1:]] if sizes else [1, 1]
    if quick.result(aten._unsafe_view.default, (x, sizes), {}) is not NotImplemented:
        agrees(aten._unsafe_view.default, x, sizes)


@LAW
@given(st.data(), st.permutations(range(4)), st.sampled_from(["add", "mul", "div", "add_"]))
def test_two_tensors_of_which_one_is_permuted(data: Any, order: list[int], name: str) -> None:
    sizes = data.draw(st.lists(SIZES, min_size=4, max_size=4))
    x = torch.empty(sizes, device="meta").permute(order)
    spread = [data.draw(st.sampled_from([1, size])) for size in x.shape][data.draw(st.integers(0, 3)) :]
    y = data.draw(st.sampled_from([torch.empty(x.shape, device="meta"), meta(*spread), x]))
    first, second = (y, x) if data.draw(st.booleans()) and not name.endswith("_") else (x, y)
    agrees(getattr(aten, name).Tensor, first, second)


@LAW
@given(st.data(), st.permutations(range(4)), st.integers(0, 3))
def test_joining_what_is_permuted(data: Any, order: list[int], dim: int) -> None:
    sizes = data.draw(st.lists(SIZES, min_size=4, max_size=4))
    whole = torch.empty(sizes, device="meta").permute(order)
    parts = data.draw(st.sampled_from([[whole], [whole, whole], [whole[..., 1:], whole[..., :1]]]))
    if quick.result(aten.cat.default, (parts, dim), {}) is not NotImplemented:
        agrees(aten.cat.default, parts, dim)


@LAW
@given(st.data(), st.integers(1, 3))
def test_convolution(data: Any, rank: int) -> None:
    x, weight = data.draw(tensors(rank + 2)), data.draw(tensors(rank + 2))
    groups = data.draw(st.integers(1, 3))
    if data.draw(st.booleans()) and x.shape[1] % groups == 0:
        shape = (weight.shape[0] * groups, x.shape[1] // groups, *weight.shape[2:])
        weight = torch.empty(shape, dtype=x.dtype, device="meta")
    bias = data.draw(st.sampled_from([None, torch.empty(weight.shape[0], dtype=x.dtype, device="meta")]))
    numbers = [data.draw(st.lists(st.integers(low, 2), min_size=rank, max_size=rank)) for low in (1, 0, 1)]
    agrees(aten.convolution.default, x, weight, bias, *numbers, False, [0] * rank, groups)


@LAW
@given(tensors(), tensors())
def test_products(a: torch.Tensor, b: torch.Tensor) -> None:
    agrees(aten.mm.default, a, b)
    agrees(aten.bmm.default, a, b)
    if b.dim() == 2:
        agrees(aten.addmm.default, torch.empty(b.shape[1], dtype=b.dtype, device="meta"), a, b)


@LAW
@given(tensors(), st.integers(0, 3), st.booleans())
def test_norms(x: torch.Tensor, axes: int, affine: bool) -> None:
    sizes = list(x.shape[x.dim() - axes :]) if axes <= x.dim() else []
    weight = torch.empty(sizes, dtype=x.dtype, device="meta") if affine else None
    if x.is_floating_point() and sizes:
        agrees(aten.native_layer_norm.default, x, sizes, weight, weight, 1e-5)
    if x.is_floating_point() and x.dim() > 1:
        channels = torch.empty(x.shape[1], dtype=x.dtype, device="meta")
        given_weight = channels if affine else None
        arguments = (x, given_weight, given_weight, channels, channels, False, 0.1, 1e-5)
        agrees(aten.native_batch_norm.default, *arguments)


@LAW
@given(tensors(), st.integers(-4, 3))
def test_softmax(x: torch.Tensor, dim: int) -> None:
    if x.is_floating_point() and x.dim():
        agrees(aten._softmax.default, x, dim, False)


@LAW
@given(st.lists(tensors(), min_size=1, max_size=3), st.integers(-4, 3), st.data())
def test_joining(parts: list[torch.Tensor], dim: int, data: Any) -> None:
    if data.draw(st.booleans()):
        parts = [parts[0], parts[0]]
    if quick.result(aten.cat.default, (parts, dim), {}) is not NotImplemented:
        agrees(aten.cat.default, parts, dim)


@LAW
@given(tensors(), st.lists(st.integers(-4, 3), max_size=3), st.booleans())
def test_mean(x: torch.Tensor, dims: list[int], keepdim: bool) -> None:
    agrees(aten.mean.dim, x, dims, keepdim)


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.relu.default, (meta(2, 3),)),
        (aten.relu_.default, (meta(2, 3),)),
        (aten.add.Tensor, (meta(2, 3, 4), meta(3, 1))),
        (aten.mul.Tensor, (meta(2, 3), 2.0)),
        (
            aten.convolution.default,
            (meta(2, 4, 8, 8), meta(6, 2, 3, 3), None, [2, 2], [1, 1], [1, 1], False, [0, 0], 2),
        ),
        (aten.cat.default, ([meta(2, 3), meta(2, 4)], 1)),
        (aten.mean.dim, (meta(2, 3, 4), [1, 2], True)),
        (aten.addmm.default, (meta(5), meta(2, 3), meta(3, 5))),
        (aten.native_layer_norm.default, (meta(2, 3), [3], meta(3), meta(3), 1e-5)),
        (aten.native_batch_norm.default, (meta(2, 3, 4), None, None, meta(3), meta(3), False, 0.1, 1e-5)),
        (aten._softmax.default, (meta(2, 3), -1, False)),
        # as attention and rotary embeddings call them
        (aten.mul.Scalar, (meta(1, 4, 16, 8).transpose(1, 2), 0.5)),
        (aten.mul.Tensor, (meta(1, 16, 4, 8).transpose(1, 2), meta(1, 1, 16, 8))),
        (aten.mul.Tensor, (meta(8, 1, 1), meta(2, 5, 6, 8).permute(0, 3, 1, 2))),
        (aten.add.Tensor, (meta(1, 16, 4, 8).transpose(1, 2), meta(1, 4, 16, 8))),
        (aten.add_.Tensor, (meta(1, 16, 4, 8).transpose(1, 2), 1)),
        (aten.neg.default, (meta(1, 16, 4, 8).transpose(1, 2)[..., 4:],)),
        (aten.cat.default, ([meta(1, 16, 4, 8).transpose(1, 2)[..., 4:], meta(1, 16, 4, 8).transpose(1, 2)], -1)),
        (aten.pow.Tensor_Scalar, (meta(2, 3), 2)),
        (aten.tril.default, (meta(6, 6, dtype=torch.bool),)),
        (aten.where.self, (meta(6, 6, dtype=torch.bool), meta(), meta())),
        (aten.clone.default, (meta(1, 16, 4, 8).transpose(1, 2),)),
        (aten._unsafe_view.default, (meta(2, 12), [2, 3, 4])),
    ],
)
def test_ordinary_calls_are_answered(func: Any, args: tuple[Any, ...]) -> None:
    assert agrees(func, *args)


def test_what_does_not_fit_is_left_to_torch() -> None:
    bad = (meta(2, 5, 8, 8), meta(6, 2, 3, 3), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 2)
    assert quick.result(aten.convolution.default, bad, {}) is NotImplemented
    assert quick.result(aten.mm.default, (meta(2, 3), meta(4, 5)), {}) is NotImplemented
    assert quick.result(aten.add.Tensor, (meta(2, 3), meta(4)), {}) is NotImplemented


@pytest.mark.skipif(not hasattr(aten, "_grouped_mm"), reason="torch has no grouped_mm")
@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_products_have_the_shape_of_the_real_ones(transposed: bool) -> None:
    """torch's meta kernel takes half precision only, so the kernel for CPUs is asked."""
    rows = torch.randn(6, 8)
    matrices = torch.randn(3, 12, 8).transpose(1, 2) if transposed else torch.randn(3, 8, 12)
    ends = torch.tensor([2, 2, 6], dtype=torch.int32)
    real = aten._grouped_mm(rows, matrices, ends)
    found = quick.result(aten._grouped_mm.default, (rows.to("meta"), matrices.to("meta"), ends.to("meta")), {})
    assert (found.shape, found.stride(), found.dtype) == (real.shape, real.stride(), real.dtype)
    odd = torch.empty(6, 7, device="meta")  # lines that do not start at multiples of 16 bytes
    assert (
        quick.result(aten._grouped_mm.default, (odd, torch.empty(3, 7, 12, device="meta"), ends), {}) is NotImplemented
    )
