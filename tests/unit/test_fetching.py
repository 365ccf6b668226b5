"""Models of which accelerate fetches weights for each call: refused by name, made whole by ``prunekit.fetched``."""

from pathlib import Path

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import InputError, PlanError

accelerate = pytest.importorskip("accelerate")
X = torch.randn(6, 16, generator=torch.Generator().manual_seed(0))


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("table", torch.rand(32), persistent=False)

    def forward(self, x):
        return x * self.by + self.table


class Network(nn.Module):
    """With a tied weight, buffers of both kinds, and a number."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 32)
        self.norm, self.twice, self.last = nn.BatchNorm1d(32), nn.Linear(32, 32, bias=False), nn.Linear(32, 4)
        self.twice.weight = self.second.weight
        self.scale = Scale()
        self.to(dtype)
        with torch.no_grad():
            self.norm.running_mean.normal_()

    def forward(self, x):
        x = self.norm(self.second(torch.relu(self.first(x))))
        return self.last(self.scale(torch.relu(self.twice(x))))


PARTS = ("first", "second", "norm", "twice", "last", "scale")


def dispatched(model, folder, **more):
    where = {name: "disk" if name in ("second", "norm", "twice", "scale") else "cpu" for name in PARTS}
    return accelerate.dispatch_model(model, where, main_device="cpu", offload_dir=folder, **more)


WAYS = {
    "in memory": lambda model, folder: accelerate.cpu_offload(model, torch.device("cpu"), offload_buffers=True),
    "on disk": lambda model, folder: accelerate.disk_offload(model, folder, torch.device("cpu")),
    "whole modules": lambda model, folder: accelerate.disk_offload(
        model, folder, torch.device("cpu"), preload_module_classes=["Network"]
    ),
    "by a map": dispatched,
    "buffers too": lambda model, folder: dispatched(model, folder, offload_buffers=True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_a_fetched_model_is_the_one_it_was_and_prunes_alike(tmp_path, way, dtype):
    plain, x = Network(dtype).eval(), X.to(dtype)
    model = WAYS[way](Network(dtype).eval(), tmp_path / "parts")
    wanted = plain(x)
    assert torch.equal(model(x), wanted)
    with prunekit.offloaded(tmp_path / "scratch", memory=1):
        assert prunekit.fetched(model) is model
        assert not any("_hf_hook" in module.__dict__ for module in model.modules())
        is_tied = model.second.weight is model.twice.weight
        assert is_tied or way in ("on disk", "whole modules")  # accelerate itself does not keep it there
        assert torch.equal(model(x), wanted)
        if is_tied:
            first, second = (prunekit.prune(each, x, ratio=0.5, scorer="magnitude") for each in (plain, model))
            assert first.plan == second.plan
        else:
            prunekit.prune(model, x, ratio=0.5, scorer="magnitude")
    assert model.first.out_features == 16
    if is_tied:
        assert torch.equal(model(x), plain(x))
    model.requires_grad_(True)(x).float().sum().backward()  # weights of a file can be trained


@pytest.mark.parametrize("way", WAYS)
def test_unfetched_it_is_refused_with_the_way_out(tmp_path, way):
    model = WAYS[way](Network(torch.float32).eval(), tmp_path)
    wanted = model(X)
    for call in (prunekit.prune, prunekit.plan, prunekit.trace):
        with pytest.raises(InputError, match=r"(?s)accelerate fetches its weights.*prunekit\.fetched\(model\)"):
            call(model, X)
    assert torch.equal(model(X), wanted)


def test_files_are_mapped_not_read(tmp_path):
    model = prunekit.fetched(accelerate.disk_offload(Network(torch.float32), tmp_path, torch.device("cpu")))
    assert f"{tmp_path}/second.weight.dat" in Path("/proc/self/maps").read_text()
    before = (tmp_path / "second.weight.dat").read_bytes()
    with torch.no_grad():
        model.second.weight.zero_()  # the file is the library's
    assert (tmp_path / "second.weight.dat").read_bytes() == before


def test_a_weight_that_is_gone_is_named_and_nothing_is_taken_off(tmp_path):
    model = accelerate.disk_offload(Network(torch.float32).eval(), tmp_path, torch.device("cpu"))
    file = tmp_path / "last.weight.dat"
    kept = file.read_bytes()
    file.unlink()
    with pytest.raises(InputError, match=r"(?s)cannot fetch it.*last\.weight"):
        prunekit.fetched(model)
    file.write_bytes(kept)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(model(X), Network(torch.float32).eval()(X))


def test_a_model_without_hooks_comes_back_as_it_is():
    model = Network(torch.float32)
    before = {name: id(value) for name, value in model.named_parameters()}
    assert prunekit.fetched(model) is model
    assert {name: id(value) for name, value in model.named_parameters()} == before
    with pytest.raises(InputError, match="model"):
        prunekit.fetched({"weights": 1})


def test_meta_without_hooks_keeps_its_own_words():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 4))
    with pytest.raises(PlanError, match="on the meta device and has no weights"):
        prunekit.prune(model, X)
    model[0].to_empty(device="cpu")
    with pytest.raises(PlanError, match="2 of 4 parameters are on the meta device"):
        prunekit.prune(model, X)


def test_a_folder_of_another_dtype_is_converted_as_accelerate_does(tmp_path):
    accelerate.disk_offload(Network(torch.float32).eval(), tmp_path, torch.device("cpu"))
    model = accelerate.disk_offload(Network(torch.bfloat16).eval(), tmp_path, torch.device("cpu"))  # the same files
    wanted = model(X.bfloat16())
    assert torch.equal(prunekit.fetched(model)(X.bfloat16()), wanted)


def test_what_else_is_on_meta_stays_there_to_be_refused():
    model = accelerate.cpu_offload(Network(torch.float32).eval(), torch.device("cpu"))
    model.extra = nn.Linear(4, 4, device="meta")
    assert prunekit.fetched(model).extra.weight.is_meta
    with pytest.raises(PlanError, match=r"(?s)2 of \d+ parameters are on the meta device.*extra\.weight"):
        prunekit.prune(model, X)
