"""What a parameter is besides its values goes on with the smaller one; undo gives back what a cut left alone, too."""

import copy
import logging
import pickle

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import CheckpointError, PlanError
from prunekit.surgery import rest

X = torch.randn(2, 3, 8, 8)


class Marked(nn.Parameter):
    """As libraries mark parameters that they place or load in ways of their own."""


def network(memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.Conv2d(24, 4, 1))
    return nn.Sequential(*layers).to(memory_format=memory_format)


def pruned(model, **how):
    return prunekit.prune(model, X, ratio=0.5, scorer="magnitude", **how)


def step(model, *_):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(X).square().mean().backward()
    optimizer.step()


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(v.dtype == before[n].dtype and torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_axes_lie_in_memory_as_they_did(memory_format):
    model = network(memory_format)
    pruned(model)
    assert model[3].weight.shape == (12, 8, 3, 3)
    fresh = torch.empty(12, 8, 3, 3).to(memory_format=memory_format)
    assert model[3].weight.stride() == fresh.stride()


def test_a_parameter_keeps_its_type_and_what_hangs_on_it():
    model = network()
    model[3].weight = Marked(model[3].weight.detach())
    model[3].weight.lr_scale = 0.3
    model[3].weight.mask = torch.arange(24.0)[:, None, None, None].expand(24, 16, 3, 3).clone()
    plan = pruned(model).plan
    weight = model[3].weight
    assert type(weight) is Marked
    assert weight.lr_scale == 0.3
    (rows,) = [cut.kept for cut in plan.cuts if cut.tensor == "3.weight" and cut.axis == 0]
    assert weight.mask.shape == weight.shape
    assert weight.mask[:, 0, 0, 0].tolist() == list(rows)


def test_a_gradient_is_cut_as_its_parameter_is():
    model = network()
    model(X).square().mean().backward()
    before = model[0].weight.grad
    result = pruned(model)
    (rows,) = [list(cut.kept) for cut in result.plan.cuts if cut.tensor == "0.weight"]
    assert torch.equal(model[0].weight.grad, before[rows])
    result.undo()
    assert model[0].weight.grad is before


def test_a_sparse_gradient_is_cut_too():
    ids = torch.tensor([[1, 2, 3]])
    model = nn.Sequential(nn.Embedding(9, 32, sparse=True), nn.Linear(32, 3))
    model(ids).sum().backward()
    prunekit.prune(model, ids, ratio=0.5, scorer="magnitude")
    assert model[0].weight.grad.is_sparse
    assert model[0].weight.grad.shape == model[0].weight.shape == (9, 16)


def test_hooks_go_on_and_are_taken_off_by_the_handle_that_the_user_holds():
    model, seen = network(), []
    handle = model[3].weight.register_hook(lambda grad: seen.append(tuple(grad.shape)))
    model[3].weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.stride()))
    pruned(model)
    model(X).sum().backward()
    assert seen == [(12, 8, 3, 3), (72, 9, 3, 1)]
    handle.remove()
    model(X).sum().backward()
    assert len(seen) == 3


@pytest.mark.parametrize("change", [step, nn.Module.half, nn.Module.double], ids=["trained", "half", "double"])
@pytest.mark.parametrize("steps", [1, 2])
def test_undo_gives_back_what_the_cut_left_alone(change, steps):
    model = network()
    before, held = bits(model), [id(p) for p in model.parameters()]
    result = pruned(model, steps=steps, on_step=step if steps > 1 else None)
    change(model)
    result.undo()
    assert same(model, before)
    assert [id(p) for p in model.parameters()] == held


def test_a_step_that_fails_after_training_leaves_every_bit():
    model = network()
    before = bits(model)

    def fails(model, k, _):
        step(model)
        if k == 2:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        pruned(model, steps=2, on_step=fails)
    assert same(model, before)


def test_what_is_too_large_to_be_kept_is_named_when_it_was_written(caplog):
    model = network()
    put = rest.way_back_of_the_rest(list(model.named_modules()), (), most=model[5].bias.nbytes)
    put()
    assert not caplog.records
    step(model)
    with caplog.at_level(logging.WARNING, "prunekit"):
        put()
    assert "written since" in caplog.text


def test_a_copy_of_a_result_does_not_undo_the_first_model():
    model = network()
    result = pruned(model)
    for copied in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        with pytest.raises(PlanError, match="no way back"):
            copied.undo()
        assert torch.equal(copied.model.eval()(X), model.eval()(X))
    assert model[0].out_channels == 8
    result.undo()
    assert model[0].out_channels == 16


def test_what_was_undone_is_not_saved_as_pruned(tmp_path):
    model = network()
    result = pruned(model)
    result.undo()
    with pytest.raises(CheckpointError, match=r"0\.weight"):
        prunekit.save(result, tmp_path / "slim")
    assert not (tmp_path / "slim").exists()
