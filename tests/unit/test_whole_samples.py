"""A model that does not run on single rows of what it is given, as a graph's nodes, is calibrated on whole calls."""

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError
from prunekit.inputs import normalise
from prunekit.planning.calibration_inputs import generated_for, samples_for

NODES = torch.randn(6, 8)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])


class Messages(nn.Module):
    """Nodes (N, 8) and edges (2, E) -> (N, 3), by sums over the edges that end in a node."""

    def __init__(self, ordered=False):
        super().__init__()
        self.into, self.send, self.out, self.ordered = nn.Linear(8, 32), nn.Linear(32, 24), nn.Linear(24, 3), ordered

    def forward(self, x, edges):
        if self.ordered and not torch.equal(edges[1].roll(-1), edges[0].roll(-2)):
            raise ValueError("no ring")
        messages = self.send(self.into(x).relu()[edges[0]])
        return self.out(messages.new_zeros(len(x), messages.shape[1]).index_add(0, edges[1], messages).relu())


def graphs(count):
    return [(torch.randn(n, 8), torch.randint(0, n, (2, 2 * n))) for n in range(4, 4 + count)]


def network(**how):
    torch.manual_seed(0)
    return Messages(**how).eval()


def test_nothing_is_said_about_data_and_gradients_decide(caplog):
    model = network()
    result = prunekit.prune(model, (NODES, EDGES), ratio=0.5)
    assert "DisturbedTaylor" in result.report.scorer
    assert model.into.out_features == 16


@pytest.mark.parametrize("scorer", [None, "wanda", "activation"])
@pytest.mark.parametrize("compensate", [None, "ridge"])
def test_graphs_of_several_sizes_are_samples(scorer, compensate):
    model = network()
    result = prunekit.prune(model, (NODES, EDGES), ratio=0.5, data=graphs(3), scorer=scorer, compensate=compensate)
    assert model.send.out_features == 12
    assert "Magnitude" not in result.report.scorer


def test_an_item_is_one_sample_where_rows_do_not_run_and_several_where_they_do():
    model, like = network(), normalise((NODES, EDGES))
    assert [len(s.inputs.args[0]) for s in samples_for(model, graphs(2), like)] == [4, 5]
    rows = nn.Sequential(nn.Linear(8, 3))
    assert [len(s.inputs.args[0]) for s in samples_for(rows, [NODES], normalise(NODES))] == [1] * 6


def test_the_example_itself_is_taken_where_nothing_that_looks_like_it_runs():
    model, like = network(ordered=True), normalise((NODES, EDGES))
    assert [made is like for made in generated_for(model, like, 3, 0)] == [True] * 3
    assert [len(made.args[0]) for made in generated_for(network(), like, 3, 0)] == [6] * 3


def test_an_exported_program_counts_its_rows():
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    model = torch.export.export(net, (NODES,)).module()
    prunekit.prune(model, NODES, ratio=0.5)
    assert model(NODES).shape == (6, 3)
    assert model.get_parameter("0.weight").shape == (16, 8)


@pytest.mark.parametrize("scorer", [None, "disturbed_taylor", "wanda", "fisher", "block_influence"])
def test_data_that_the_model_cannot_read_are_named(scorer):
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    before = model[0].weight
    with pytest.raises(InputError, match="calibration sample 1"):
        prunekit.prune(model, torch.randn(1, 8), ratio=0.5, data=[torch.randn(1, 8), torch.randn(1, 7)], scorer=scorer)
    assert model[0].weight is before


class Ends(nn.Module):
    """Ids (B, 6) -> (B, 3) of the token that ends a sentence; refuses a sentence without one."""

    def __init__(self):
        super().__init__()
        self.embed, self.into, self.out = nn.Embedding(40, 8), nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, ids):
        ends = ids == 2
        if not ids.is_meta and not bool(ends.any(1).all()):
            raise ValueError("a sentence without an end")
        return self.out((self.into(self.embed(ids)).relu() * ends[..., None]).sum(1))


@pytest.mark.parametrize("scorer", [None, "wanda"])
def test_ids_that_are_drawn_may_not_make_a_sentence(scorer, caplog):
    torch.manual_seed(0)
    model = Ends().eval()
    ids = torch.tensor([[5, 31, 7, 8, 11, 2], [9, 30, 9, 10, 2, 2]])
    result = prunekit.prune(model, ids, ratio=0.5, scorer=scorer)
    assert "example inputs alone" in caplog.text
    assert "Magnitude" not in result.report.scorer
    assert model.into.out_features == 16


class _NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise AssertionError("train me in train mode")


class Stubborn(nn.Sequential):
    """Runs, and refuses a backward pass by an error of its own."""

    def forward(self, x):
        return _NoWayBack.apply(super().forward(x))


def test_a_model_that_refuses_backward_is_scored_by_its_weights():
    model = Stubborn(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    result = prunekit.prune(model, torch.randn(1, 8), ratio=0.5)
    assert "Magnitude" in result.report.scorer


class Cancelled(Exception):
    """Of a listener's own."""


@pytest.mark.parametrize("error", [Cancelled, ValueError, RuntimeError])
def test_what_a_callback_raises_goes_through(error):
    def cancel(done, total):
        raise error("no more")

    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    with pytest.raises(error, match="no more"):
        prunekit.prune(model, torch.randn(1, 8), ratio=0.5, progress=cancel)


def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([torch.randn(3, 8), torch.randn(5, 8)], layout=torch.jagged)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    with pytest.raises(InputError, match="nested"):
        prunekit.prune(model, nested, ratio=0.5)
