"""What stands around a model is unwrapped where that is safe; what cannot be cut is refused before anything runs."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.distributed as dist
from support.compare import differences, run, snapshot
from torch import nn

import prunekit
from prunekit.errors import InputError, ScorerError

X = torch.randn(2, 6)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 3))


@pytest.fixture
def group(tmp_path):
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_compiled_model_is_pruned_inside_and_nothing_is_compiled(caplog):
    compiled, inner = [], network()

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = torch.compile(inner, backend=backend)
    with caplog.at_level(logging.WARNING):
        result = prunekit.prune(model, X)
    assert compiled == []
    assert result.model is inner
    assert "the Sequential inside the OptimizedModule" in caplog.text
    assert inner[2].weight.shape == (5, 4)
    assert torch.allclose(model(X), inner(X))
    assert len(compiled) == 1


def test_a_plan_of_a_compiled_model_fits_the_model_inside():
    inner = network()
    model = torch.compile(inner, backend="eager")
    plan = prunekit.plan(model, X)
    assert [w.group for w in plan.widths] == [w.group for w in prunekit.plan(inner, X).widths]
    undo = prunekit.apply(model, plan)
    assert inner[2].weight.shape == (5, 4)
    undo()
    assert inner[2].weight.shape == (10, 8)


def test_a_module_compiled_in_place_and_a_compiled_part_stay_compiled():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = network()
    model[2] = torch.compile(model[2], backend=backend)
    model[4].compile(backend=backend)
    result = prunekit.prune(model, X)
    assert compiled == []
    assert result.model is model
    assert run(model, X)[0].shape == (2, 3)
    assert len(compiled) == 2


@pytest.mark.parametrize("way", [{"scorer": "magnitude"}, {}, {"scorer": "wanda", "compensate": "ridge"}])
def test_a_function_that_forward_calls_and_that_is_compiled_runs_eagerly_meanwhile(way):
    """As attention of the field's libraries is: no module says so."""
    doubled = torch.compile(lambda x: torch.relu(x) * 2, fullgraph=True, backend="eager")

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 3)

        def forward(self, x):
            return self.down(doubled(self.up(x)))

    model, x = Network().eval(), torch.randn(2, 8)
    prunekit.prune(model, x, data=[x] * 4, ratio=0.5, **way)
    assert model.up.out_features == 16
    with torch.no_grad():
        assert model(x).shape == (2, 3)


def test_data_parallel_is_pruned_inside():
    inner = network()
    model = nn.DataParallel(inner)
    assert prunekit.prune(model, X).model is inner
    assert model(X).shape == (2, 3)


def test_distributed_data_parallel_is_refused_with_the_way_out(group):
    model = nn.parallel.DistributedDataParallel(network())
    before = snapshot(model)
    for call in (prunekit.prune, prunekit.plan, prunekit.trace):
        with pytest.raises(InputError, match=r"(?s)keeps hold of the parameters.*prune its \.module"):
            call(model, X)
    assert differences(before, snapshot(model)) == []
    assert prunekit.prune(model.module, X).report.params["after"] < 199


def test_a_distributed_part_is_refused_by_its_place(group):
    model = network()
    model[2] = nn.parallel.DistributedDataParallel(model[2])
    with pytest.raises(InputError, match=r"DistributedDataParallel.*\[at 2\]"):
        prunekit.prune(model, X)


@pytest.mark.filterwarnings("ignore:FSDP:UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_sharded_models_are_refused(group):
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    with pytest.raises(InputError, match="FullyShardedDataParallel holds sharded parameters"):
        prunekit.prune(FullyShardedDataParallel(network(), device_id=torch.device("cpu")), X)
    mesh = dist.init_device_mesh("cpu", (1,))
    with pytest.raises(InputError, match=r"DTensor, which cannot be cut in place|holds sharded parameters"):
        prunekit.prune(fully_shard(network(), mesh=mesh), X)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace", "part"])
def test_torchscript_is_refused_untouched(how):
    model = network()
    if how == "part":
        model[2] = torch.jit.script(model[2])
    else:
        model = torch.jit.script(model) if how == "script" else torch.jit.trace(model, X)
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    expected, mode = run(model, X)[0], model.training
    for call in (prunekit.prune, prunekit.plan, prunekit.trace):
        with pytest.raises(InputError, match=r"(?s)TorchScript.*prune the Python module"):
            call(model, X)
    assert model.training is mode
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())
    assert torch.equal(run(model, X)[0], expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_quantised_models_are_refused(how):
    quantization = torch.ao.quantization
    if how == "dynamic":
        model = quantization.quantize_dynamic(network(), {nn.Linear})
    else:
        model = nn.Sequential(quantization.QuantStub(), network(), quantization.DeQuantStub()).eval()
        model.qconfig = quantization.default_qconfig
        model = quantization.prepare(model)
        model(X)
        model = quantization.convert(model)
    with pytest.raises(InputError, match=r"(?s)quantised weights.*then quantise it"):
        prunekit.prune(model, X)


@pytest.mark.parametrize("inputs", [None, X])
def test_lazy_modules_ask_for_a_first_run(inputs):
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(InputError, match=r"(?s)lazy module has no weights yet \[at 0\.weight\].*run the model once"):
        prunekit.prune(model, inputs)
    model(X)
    assert prunekit.prune(model, X).report.verify["symmetry"] == "passed"


def test_what_is_no_module_is_refused():
    with pytest.raises(InputError, match=r"function is not a torch\.nn\.Module"):
        prunekit.prune(lambda x: x, X)


class ForwardOnly(nn.Module):
    """As FlexAttention is on a CPU."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 3)

    def forward(self, x):
        x = self.up(x)
        if x.requires_grad:
            raise NotImplementedError("this does not support backward on CPU")
        return self.down(x.relu())


def test_what_has_no_backward_is_told_which_criteria_need_none():
    model, x = ForwardOnly().eval(), torch.randn(2, 8)
    before = snapshot(model)
    with pytest.raises(ScorerError, match=r"(?s)support backward.*choose a criterion that reads none"):
        prunekit.prune(model, x, data=[x] * 4, ratio=0.5, scorer=prunekit.DisturbedTaylor())
    assert differences(before, snapshot(model)) == []
    prunekit.prune(model, x, data=[x] * 4, ratio=0.5, scorer="wanda")
    assert model.up.out_features == 16
