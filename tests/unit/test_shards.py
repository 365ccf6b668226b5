"""Large weights as several files: written, checked and read as one."""

import json

import pytest
import torch
from torch import nn

import prunekit
from prunekit.errors import CheckpointError, InputError
from prunekit.files.weights import read_state

INDEX = "model.safetensors.index.json"
X = torch.ones(2, 16)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(16, 32)
        self.up, self.down = nn.Linear(32, 24), nn.Linear(24, 16)
        self.last.weight = self.first.weight
        self.register_buffer("halves", torch.arange(64.0).reshape(2, 32)[:, :16])  # a view of a larger storage

    def forward(self, x):
        return self.last(self.down(torch.relu(self.up(self.first(x))))) + self.halves.sum()


@pytest.fixture
def kept(tmp_path):
    torch.manual_seed(0)
    result = prunekit.prune(Tied().eval(), X, ratio=0.5, scorer="magnitude")
    prunekit.save(result, tmp_path / "slim", shard="1KB")
    return result, tmp_path / "slim"


def test_what_was_saved_is_what_is_loaded(kept, tmp_path):
    result, folder = kept
    shards = sorted(file.name for file in folder.glob("model-*.safetensors"))
    assert len(shards) >= 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert not (folder / "model.safetensors").exists()
    assert set(json.loads((folder / INDEX).read_text())["weight_map"].values()) == set(shards)
    loaded = prunekit.load(folder, Tied())
    assert torch.equal(loaded(X), result.model(X))
    assert loaded.last.weight is loaded.first.weight
    assert read_state(folder / INDEX).keys() == result.model.state_dict().keys()
    prunekit.save(result, folder)  # in place of them
    assert sorted(file.name for file in folder.glob("*.safetensors*")) == ["model.safetensors"]
    prunekit.save(result, tmp_path / "whole", shard="1GB")
    assert (tmp_path / "whole" / "model.safetensors").is_file()


def test_no_shard_holds_more_than_it_may(kept):
    _, folder = kept
    index = json.loads((folder / INDEX).read_text())
    state = read_state(folder / "model.safetensors")
    held = {}
    for name, file in index["weight_map"].items():
        held.setdefault(file, []).append(state[name].nbytes)
    assert all(sum(sizes) <= 1000 or len(sizes) == 1 for sizes in held.values())
    assert sum(map(sum, held.values())) == index["metadata"]["total_size"]


def test_a_damaged_a_missing_and_a_foreign_shard_are_named(kept):
    _, folder = kept
    last = sorted(folder.glob("model-*.safetensors"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=rf"{last.name} is damaged"):
        prunekit.load(folder, Tied())
    last.unlink()
    with pytest.raises(CheckpointError, match=rf"{last.name} is missing"):
        prunekit.load(folder, Tied())
    last.write_bytes(whole)
    index = folder / INDEX
    index.write_text(index.read_text() + " ")
    with pytest.raises(CheckpointError, match="is damaged"):
        prunekit.load(folder, Tied())


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../../secret.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "weights.pth"}}',
        '{"weight_map": 3}',
    ],
)
def test_an_index_from_a_stranger(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(CheckpointError):
        read_state(tmp_path / "model.safetensors")


def test_other_names_that_no_shard_holds(kept):
    _, folder = kept
    index = json.loads((folder / INDEX).read_text())
    index["metadata"]["prunekit.aliases"] = json.dumps({"last.weight": "nowhere"})
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no shard holds"):
        read_state(folder / INDEX)


@pytest.mark.parametrize("shard", [0, -5, "many", True, 1.5j])
def test_a_size_that_is_none(kept, tmp_path, shard):
    with pytest.raises(InputError, match="shard"):
        prunekit.save(kept[0], tmp_path / "other", shard=shard)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", [INDEX, "plan.json", "model.json", "model-00001-of-{}.safetensors"])
def test_a_checksum_that_was_wiped_is_damage(kept, name):
    _, folder = kept
    count = len(list(folder.glob("model-*.safetensors")))
    path = folder / "checksums.json"
    told = json.loads(path.read_text())
    told[name.format(f"{count:05d}")] = None
    path.write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match="is damaged"):
        prunekit.load(folder, Tied())
