"""An interrupt while a model is put back waits until it is whole."""

import sys

import pytest
import torch
from torch import nn

import prunekit
from prunekit.surgery.cutting import take_back


def test_an_interrupt_is_raised_when_everything_is_back():
    done = []

    def interrupted():
        if "interrupted" not in done:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append("middle")

    steps = [lambda: done.append("first"), interrupted, lambda: done.append("last")]
    with pytest.raises(KeyboardInterrupt):
        take_back(steps)
    assert done == ["last", "interrupted", "middle", "first"]
    assert steps == []


def test_a_step_that_fails_is_passed_over_and_can_be_taken_back_later():
    done = []
    steps = [lambda: done.append("first"), lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        take_back(steps)
    assert done == ["first"]  # what can be taken back is
    assert len(steps) == 1


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13, 21, 34])
def test_a_model_is_wholly_pruned_or_wholly_what_it_was(at):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    old = {name: value.clone() for name, value in model.state_dict().items()}
    result = prunekit.prune(model, torch.randn(1, 3, 8, 8), ratio=0.5, steps=2)
    new = {name: value.clone() for name, value in model.state_dict().items()}
    calls = 0

    def interrupt(frame, event, arg):
        nonlocal calls
        ours = "prunekit" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename
        if event == "call" and ours and frame.f_code.co_name != "_gone":  # Python drops what a weak reference raises
            calls += 1
            if calls == at:
                raise KeyboardInterrupt

    sys.setprofile(interrupt)
    try:
        result.undo()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)

    def is_all(state):
        return all(value.shape == state[name].shape for name, value in model.state_dict().items())

    assert is_all(old) or is_all(new)
    result.undo()
    assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())
