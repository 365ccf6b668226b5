"""A fault at any line of a change leaves the model wholly old or wholly new: nothing in between, to the bit."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn

import prunekit
from benchmarks.faults.injection import faulted, lines_of, same, stand, thrown
from benchmarks.faults.injection import points as drawn
from benchmarks.faults.transactions import ASKED, X, made

POINTS = 1000 if os.environ.get("FAULTS") == "large" else 14  # of each kind, drawn by a seed


def points(total, seed):
    return drawn(total, POINTS, seed)


def test_a_fault_inside_prune_leaves_the_model_as_it_was():
    lines_of(lambda: prunekit.prune(made(), X, **ASKED))
    total = lines_of(lambda: prunekit.prune(made(), X, **ASKED))
    for at in points(total, 0):
        model = made()
        before, random_state = stand(model), torch.get_rng_state()
        if not faulted(lambda model=model: prunekit.prune(model, X, **ASKED), at)[0]:
            assert at > 0.99 * total  # a run or two has a line less
            continue
        assert same(before, stand(model)), f"half a model after a fault at line {at} of {total}"
        assert torch.equal(random_state, torch.get_rng_state()), at


@pytest.mark.parametrize("steps", [1, 3])
def test_a_fault_inside_apply_leaves_the_model_old_or_new(steps):
    plan = prunekit.plan(made(), X, ratio=0.5, scorer="magnitude")
    total = lines_of(lambda: prunekit.apply(made(), plan))
    last = range(total - 40, total + 1)  # an interrupt on the way out leaves nobody with a way back
    for at in [*points(total, steps), *last]:
        model = made()
        before = stand(model)
        if not faulted(lambda model=model: prunekit.apply(model, plan), at)[0]:
            continue  # the line was one that the collector runs, where Python swallows what is raised
        assert same(before, stand(model)), f"half a model after a fault at line {at} of {total}"


def test_a_fault_inside_undo_leaves_it_whole_and_undo_can_be_called_again():
    plan = prunekit.plan(made(), X, ratio=0.5, scorer="magnitude")

    def pruned():
        model = made()
        return model, stand(model), prunekit.apply(model, plan)

    total = lines_of(pruned()[2])
    for at in range(1, total + 1):
        model, before, undo = pruned()
        after = stand(model)
        assert thrown(undo, at).gradients, f"gradients are off after a fault at line {at} of {total}"
        now = stand(model)
        assert same(before, now) or same(after, now), f"half a model after a fault at line {at} of {total}"
        undo()
        assert same(before, stand(model))
        undo()


def test_the_undo_of_a_result_likewise():
    def pruned():
        model = made()
        return model, stand(model), prunekit.prune(model, X, **ASKED)

    total = lines_of(pruned()[2].undo)
    for at in [1, 2, 3, *points(total, 3)[:: POINTS // 5]]:
        model, before, result = pruned()
        after = stand(model)
        faulted(result.undo, at)
        now = stand(model)
        assert same(before, now) or same(after, now), f"half a model after a fault at line {at} of {total}"
        result.undo()
        assert same(before, stand(model))


def test_a_fault_inside_migrate_optimizer_leaves_the_optimizer_old_or_new():
    def ready():
        model = made()
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        model(X).sum().backward()
        optimizer.step()
        return optimizer, prunekit.prune(model, X, **ASKED)

    def seen(optimizer):
        groups = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
        return groups, {id(p): {k: id(v) for k, v in s.items()} for p, s in optimizer.state.items()}

    optimizer, result = ready()
    total = lines_of(lambda: prunekit.migrate_optimizer(optimizer, result))
    for at in points(total, 5)[::2]:
        optimizer, result = ready()
        before = seen(optimizer)
        faulted(lambda o=optimizer, r=result: prunekit.migrate_optimizer(o, r), at)
        live = {id(p) for p in result.model.parameters()}
        assert seen(optimizer) == before or {n for group in seen(optimizer)[0] for n in group} <= live, at


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RuntimeError])
def test_memory_that_ends_while_tensors_are_cut(monkeypatch, error):
    plan = prunekit.plan(made(), X, ratio=0.5, scorer="magnitude")
    select = torch.Tensor.index_select
    for fails in range(1, 6):
        calls = iter(range(1, 1000))

        def short(tensor, *given, calls=calls, fails=fails):
            if next(calls) == fails:
                raise error
            return select(tensor, *given)

        model = made()
        before = stand(model)
        monkeypatch.setattr(torch.Tensor, "index_select", short)
        with pytest.raises(error):
            prunekit.apply(model, plan)
        monkeypatch.undo()
        assert same(before, stand(model))


def test_the_harness_sees_half_a_model():
    model = made()
    before = stand(model)
    model.conv.bias = nn.Parameter(model.conv.bias.detach().clone())
    assert not same(before, stand(model))
    model = made()
    before = stand(model)
    model.norm.training = False
    assert not same(before, stand(model))
    model = made()
    before = stand(model)
    model.out._forward_hooks.clear()
    assert not same(before, stand(model))
    assert same(stand(model), stand(model))
    assert not same(stand(model), stand(copy.deepcopy(model)))
