"""The lean attention against segment_anything's own: outputs, gradients, memory, and what is left behind."""

import copy

import pytest
import torch
from prunekit_sam import attention, models
from prunekit_sam.attention import lean_attention
from segment_anything.modeling.image_encoder import Attention

from prunekit.runs.distillation.checkpointing import recomputed
from prunekit.runs.distillation.memory import counted


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(attention, "_LEAST", 0)


def module(side: tuple[int, int], dtype: torch.dtype = torch.float64) -> Attention:
    torch.manual_seed(0)
    made = Attention(24, num_heads=3, use_rel_pos=True, input_size=side).to(dtype)
    for table in (made.rel_pos_h, made.rel_pos_w):
        torch.nn.init.normal_(table)
    return made


def passed(made: Attention, x: torch.Tensor) -> list[torch.Tensor]:
    """Output and all gradients."""
    x = x.clone().requires_grad_()
    made.zero_grad()
    output = made(x)
    (output * torch.arange(output.numel(), dtype=x.dtype).reshape(output.shape).cos()).sum().backward()
    return [output.detach(), x.grad, *(p.grad.clone() for p in made.parameters())]


@pytest.mark.parametrize("scores", [7, 300, 2**20], ids=["a row at a time", "a few rows", "all heads"])
@pytest.mark.parametrize("side", [(4, 6), (5, 5)])
def test_output_and_every_gradient_are_those_of_the_stock_attention(side, scores, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES", scores)
    made, x = module(side), torch.randn(2, *side, 24, dtype=torch.float64)
    stock = passed(made, x)
    with lean_attention(made):
        lean = passed(made, x)
    assert len(lean) == 8
    for here, there in zip(lean, stock, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-11)


def test_under_autocast_it_is_as_close_to_float32_as_the_stock_attention():
    made, x = module((6, 6), torch.float32), torch.randn(2, 6, 6, 24)
    exact = passed(made, x)
    with torch.autocast("cpu", torch.bfloat16):
        stock = passed(made, x)
        with lean_attention(made):
            lean = passed(made, x)
    for here, there, right in zip(lean, stock, exact, strict=True):
        assert (here - right).norm() <= 2 * (there - right).norm() + 1e-3 * right.norm()


def test_of_the_scores_of_an_image_nothing_is_kept_for_the_backward_pass():
    made, x = module((16, 16), torch.float32), torch.randn(1, 16, 16, 24)
    scores = 3 * 256 * 256

    def largest() -> int:
        kept = [0]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            made(x)
        return max(kept)

    assert largest() >= scores
    with lean_attention(made):
        assert largest() < scores / 4


def test_the_model_is_as_it_was_afterwards_also_where_the_block_raised():
    encoder = models.build_sam("nano").image_encoder
    before = copy.deepcopy({name: dict(m.__dict__) for name, m in encoder.named_modules()})
    swapped = []

    def inside() -> None:
        with lean_attention(encoder):
            swapped.extend(m for m in encoder.modules() if "forward" in m.__dict__)
            raise KeyError

    with pytest.raises(KeyError):
        inside()
    assert swapped
    assert {name: set(m.__dict__) for name, m in encoder.named_modules()} == {n: set(d) for n, d in before.items()}


def test_a_whole_encoder_gives_the_same():
    encoder = models.build_sam("nano").image_encoder.eval()
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        stock = encoder(image)
        with lean_attention(encoder):
            lean = encoder(image)
    torch.testing.assert_close(lean, stock, rtol=1e-4, atol=1e-5)


def test_what_training_needs_is_still_counted_beforehand():
    encoder = models.build_sam("nano").image_encoder.eval()
    image = torch.zeros(1, 3, 128, 128)
    stock = counted(encoder, image, {})
    with lean_attention(encoder):
        lean = counted(encoder, image, {})
    assert stock is not None
    assert lean is not None
    assert lean.kept < 0.9 * stock.kept


def test_blocks_that_are_run_again_in_the_backward_pass_give_the_same_gradients():
    encoder = models.build_sam("nano").image_encoder.eval()
    image = torch.randn(1, 3, 128, 128)
    found = []
    for wanted in (False, True):
        encoder.zero_grad()
        with lean_attention(encoder), recomputed(encoder, wanted):
            encoder(image).square().mean().backward()
        found.append([p.grad.clone() for p in encoder.parameters()])
    for once, again in zip(*found, strict=True):
        torch.testing.assert_close(again, once)


def test_small_windows_are_left_to_the_stock_attention(monkeypatch):
    monkeypatch.setattr(attention, "_LEAST", 26)
    monkeypatch.setattr(attention, "attended", None)  # would raise if it were called
    made, x = module((5, 5)), torch.randn(2, 5, 5, 24, dtype=torch.float64)
    stock = passed(made, x)
    with lean_attention(made):
        assert all(torch.equal(here, there) for here, there in zip(passed(made, x), stock, strict=True))
