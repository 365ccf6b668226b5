"""An optimizer made before a cut goes on after it, moments and all; one that was forgotten is stopped."""

import gc

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError
from prunekit.surgery import stale

MAKE = {
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
    "adamw fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, foreach=True),
    "sgd momentum": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
    "plain sgd": lambda p: torch.optim.SGD(p, 1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(72, 4)
    )


X = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(1))


def step(model, optimizer):
    optimizer.zero_grad()
    model(X).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("name", MAKE)
def test_state_is_the_kept_part_and_a_step_moves_the_live_parameters(name):
    model = network()
    optimizer = MAKE[name](model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(2):
        step(model, optimizer)
    old = {key: dict(optimizer.state[p]) for key, p in model.named_parameters() if p in optimizer.state}
    result = prunekit.prune(model, X, ratio=0.5)
    prunekit.migrate_optimizer(optimizer, result)
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [id(p) for p in model.parameters()]
    assert set(map(id, optimizer.state)) <= set(map(id, model.parameters()))
    cuts = {(cut.tensor, cut.axis): list(cut.kept) for cut in result.plan.cuts}
    for key, parameter in model.named_parameters():
        for what, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor) and value.dim():
                expected = old[key][what]
                for axis in range(value.dim()):
                    if (key, axis) in cuts:
                        expected = expected.index_select(axis, torch.tensor(cuts[key, axis]))
                assert torch.equal(value, expected), (key, what)
    before = model[0].weight.detach().clone()
    step(model, optimizer)
    schedule.step()
    assert not torch.equal(before, model[0].weight)


def test_several_rounds_and_several_groups():
    model = network()
    groups = [
        {"params": model[0].parameters(), "lr": 1e-3},
        {"params": [*model[1].parameters(), *model[3].parameters()]},
        {"params": model[5].parameters()},
    ]
    optimizer = torch.optim.Adam(groups, 1e-2)
    for _ in range(2):
        step(model, optimizer)
        prunekit.migrate_optimizer(optimizer, prunekit.prune(model, X, ratio=0.3, align=1, steps=2))
    step(model, optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 4, 2]


def test_a_forgotten_optimizer_is_stopped_with_the_way_out_until_the_cut_is_undone():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer)
    result = prunekit.prune(model, X, ratio=0.5)
    with pytest.raises(InputError, match="replaced") as caught:
        optimizer.step()
    assert "migrate_optimizer" in caught.value.hint
    step(network(), torch.optim.Adam(network().parameters()))  # others go on
    result.undo()
    step(model, optimizer)


def test_undo_leaves_a_migrated_optimizer_behind_and_says_so():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    result = prunekit.prune(model, X, ratio=0.5)
    prunekit.migrate_optimizer(optimizer, result)
    result.undo()
    with pytest.raises(InputError, match="replaced"):
        optimizer.step()


def test_the_optimizer_of_another_model_is_refused_untouched():
    model, other = network(), network()
    optimizer = torch.optim.Adam(other.parameters())
    with pytest.raises(InputError, match="none of this model's"):
        prunekit.migrate_optimizer(optimizer, prunekit.prune(model, X, ratio=0.5))
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], other.parameters(), strict=True))


def test_factored_moments_are_refused_by_name_and_nothing_is_changed():
    model = network()
    optimizer = torch.optim.Adafactor(model.parameters())
    step(model, optimizer)
    held = list(optimizer.param_groups[0]["params"])
    with pytest.raises(InputError, match="var"):
        prunekit.migrate_optimizer(optimizer, prunekit.prune(model, X, ratio=0.5))
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], held, strict=True))


def test_nothing_is_kept_of_models_that_are_gone():
    gc.collect()
    before = set(stale._DEAD)
    prunekit.prune(network(), X, ratio=0.5)
    gc.collect()
    assert set(stale._DEAD) <= before


def test_weights_that_end_with_the_interpreter_ask_for_no_global(monkeypatch):
    """The names of a module are gone before what others still hold; what a callback raises then is printed."""
    raised = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    result = prunekit.prune(model, torch.randn(1, 4), ratio=0.5, scorer="magnitude")
    monkeypatch.setattr(stale, "_DEAD", None)
    del result, model
    gc.collect()
    assert raised == []
