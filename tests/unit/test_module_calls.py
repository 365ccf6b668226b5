"""Calls of modules that go through a function of ours, and what they leave behind."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.threads import overlapping
from torch import nn

import prunekit
from prunekit.modules.calls import calls_through

X = torch.randn(2, 4)
HELD = ("__call__", "_call_impl", "_compiled_call_impl")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.ReLU(), nn.Linear(6, 2)))


def held():
    return {name: vars(nn.Module)[name] for name in HELD}


def noting(met):
    def around(plain, module, args, kwargs):
        met.append(type(module).__name__)
        return plain(module, *args, **kwargs)

    return around


def test_every_call_is_met_and_gives_what_it_gave_with_hooks_run():
    model, met, hooked = network(), [], []
    model[0].register_forward_pre_hook(lambda module, given: hooked.append(module))
    wanted, before = model(X), held()
    with calls_through(noting(met)):
        assert torch.equal(model(X), wanted)
    assert met == ["Sequential", "Linear", "Sequential", "ReLU", "Linear"]
    assert hooked == [model[0]] * 2
    assert held() == before


def test_they_nest():
    outer, inner = [], []
    with calls_through(noting(outer)):
        with calls_through(noting(inner)):
            network()(X)
        network()(X)
    assert (len(outer), len(inner)) == (10, 5)


def answer():
    return network()(X)


def in_another_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_two_threads_that_overlap_meet_their_own_calls_and_leave_torchs_class_as_it_was():
    one, two, before = [], [], held()
    result = overlapping(calls_through(noting(one)), calls_through(noting(two)), answer, answer)
    assert torch.equal(result, answer())
    assert (len(one), len(two)) == (5, 5)
    assert held() == before


def test_what_a_thread_of_the_device_computes_again_is_met_and_other_models_are_not():
    met, mine = [], network()
    with calls_through(noting(met), {id(module) for module in mine.modules()}):
        in_another_thread(answer)
        assert not met
        in_another_thread(lambda: mine(X))
    assert len(met) == 5


def counting_graphs():
    torch._dynamo.reset()  # the code of a call that all modules share is compiled so and so many times a process
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return graphs, backend


@torch.no_grad()
def test_what_was_compiled_in_place_is_met_and_compiled_as_before_afterwards():
    model, met = network(), []
    graphs, backend = counting_graphs()
    model[1].compile(backend=backend)
    compiled = model[1]._compiled_call_impl
    with calls_through(noting(met)):
        model(X)
    assert len(met) == 5
    assert not graphs
    assert model[1]._compiled_call_impl is compiled
    model(X)
    assert len(graphs) == 1


def test_what_another_thread_has_compiled_runs_compiled_meanwhile():
    theirs = network()
    graphs, backend = counting_graphs()
    theirs[1].compile(backend=backend)
    with calls_through(noting([])):
        in_another_thread(lambda: torch.no_grad()(theirs)(X))  # a thread has its own mode of gradients
    assert len(graphs) == 1


class Late(nn.Module):
    """Compiles a part of itself when it is first called."""

    def __init__(self, backend):
        super().__init__()
        self.body, self.backend = network(), backend

    def forward(self, x):
        if self.backend is not None:
            self.body.compile(backend=self.backend)
            self.backend = None
        return self.body(x)


@torch.no_grad()
def test_a_model_that_compiles_itself_when_it_runs_does_so_after_a_trace():
    graphs, backend = counting_graphs()
    model = Late(backend).eval()
    prunekit.prune(model, X, ratio=0.5, scorer="magnitude")
    assert not graphs
    assert model.backend is backend
    model(X)
    assert len(graphs) == 1


def test_a_forward_that_fails_leaves_torchs_class_as_it_was():
    before = held()
    with pytest.raises(RuntimeError), calls_through(noting([])):
        network()(torch.randn(2, 5))
    assert held() == before


class Looks(nn.Module):
    """Sees the slot of the class from within."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        LOOKED.append(vars(nn.Module)["__call__"])
        return self.body(x)


LOOKED = []


def test_no_trace_exchanges_a_slot_of_torchs_class():
    """Python would go through every class of modules for it: most of a small model's time, with libraries imported."""
    LOOKED.clear()
    prunekit.prune(Looks(), X, data=[X], ratio=0.5)
    assert len(LOOKED) >= 4
    assert set(LOOKED) == {nn.Module._wrapped_call_impl}
