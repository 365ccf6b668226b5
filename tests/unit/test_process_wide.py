"""What is changed for the whole process while a thread prunes is as it was when the last of several has ended."""

import gc
from contextlib import contextmanager

import pytest
import torch
import torch._dynamo
from support.threads import overlapping
from torch import nn
from torch.utils import _python_dispatch

from benchmarks.faults.injection import faulted, lines_of
from prunekit.modules.calls import calls_through
from prunekit.modules.dispatching import DispatchMode
from prunekit.modules.fast_path import without_fast_path
from prunekit.modules.process_wide import ProcessWide
from prunekit.modules.wrappers import eager
from prunekit.tracing.collector import paused_collector


class Sees(DispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def met():
    return calls_through(lambda plain, module, args, kwargs: plain(module, *args, **kwargs))


def stance():
    return torch._dynamo.eval_frame._stance.stance


def exchanged():
    return vars(nn.Module)["_call_impl"]


def noted():
    return [getattr(_python_dispatch, name) for name in dir(_python_dispatch) if name.startswith("_is_in_")]


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (without_fast_path, torch.backends.mha.get_fastpath_enabled),
        (paused_collector, gc.isenabled),
        (eager, stance),
        (met, exchanged),
    ],
)
def test_the_last_of_two_threads_puts_back_what_the_first_found(make, seen):
    before = seen()
    assert overlapping(make(), make(), seen) != before, "it holds until the last one leaves"
    assert seen() == before


def test_modes_of_two_threads_leave_no_note_that_one_is_on():
    before = noted()
    overlapping(Sees(), Sees(), noted)
    assert noted() == before
    with Sees():
        assert noted() != before


def test_what_fails_inside_leaves_and_what_cannot_be_opened_is_not_inside():
    entered, broken = [], [True]

    @contextmanager
    def make():
        if broken[0]:
            raise RuntimeError("closed")
        entered.append("in")
        yield
        entered.append("out")

    shared = ProcessWide(make)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"), shared():
            pass
    broken[0] = False
    with pytest.raises(KeyError), shared(), shared():
        raise KeyError
    with shared():
        pass
    assert entered == ["in", "out"] * 2


def test_who_was_interrupted_on_the_way_out_keeps_nothing_open():
    open_now = []

    @contextmanager
    def make():
        open_now.append("open")
        yield
        open_now.clear()

    class Gone:
        pass

    shared, gone = ProcessWide(make), Gone()
    shared.enter(gone)
    with shared():
        pass
    assert open_now, "somebody is inside"
    del gone
    with shared():
        assert open_now
    assert not open_now


def test_after_a_fault_at_any_line_the_next_who_comes_finds_it_usable_and_leaves_it_closed():
    @contextmanager
    def make():
        before = switch[0]
        switch[0] = True
        try:
            yield
        finally:
            switch[0] = before

    switch, shared = [False], ProcessWide(make)

    def use():
        with shared():
            assert switch[0]

    total = lines_of(use)
    assert total > 10
    for at in range(1, total + 1):
        faulted(use, at)
        use()
        assert not switch[0], at


def test_a_lock_that_an_interrupt_left_to_one_thread_keeps_no_other_out(monkeypatch):
    monkeypatch.setattr("prunekit.modules.process_wide.PATIENCE", 0.05)
    switch = []

    @contextmanager
    def make():
        switch.append("on")
        yield
        switch.clear()

    shared = ProcessWide(make)
    shared._lock.acquire()
    assert overlapping(shared(), shared(), lambda: list(switch)) == ["on"]
    assert not switch
