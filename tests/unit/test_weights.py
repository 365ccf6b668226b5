from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.errors import CheckpointError
from prunekit.files.folders import new_folder
from prunekit.files.weights import load_state, read_state, write_state


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def test_tied_weights_are_stored_once_and_come_back_under_both_names(tmp_path):
    model, path = Tied(), tmp_path / "w.safetensors"
    write_state(model, path)
    state = read_state(path)
    assert set(state) == {"embed.weight", "head.weight", "kept"}
    assert path.stat().st_size < 2 * 7 * 5 * 4 + 300
    other = Tied()
    load_state(other, state, path)
    assert other.head.weight is other.embed.weight
    torch.testing.assert_close(other.embed.weight, model.embed.weight)


def test_views_of_one_storage_are_stored_apart(tmp_path):
    model, whole = nn.Module(), torch.arange(6.0)
    model.register_buffer("left", whole[:3])
    model.register_buffer("right", whole[3:])
    write_state(model, tmp_path / "w.safetensors")
    state = read_state(tmp_path / "w.safetensors")
    assert state["left"].tolist() == [0, 1, 2]
    assert state["right"].tolist() == [3, 4, 5]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_truncated_file_is_refused(tmp_path, suffix, keep):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(nn.Linear(20, 20).state_dict(), path)
    else:
        write_state(nn.Linear(20, 20), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if keep != 0.5 else len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot read"):
        read_state(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.pth"):
        read_state(tmp_path / "nothing.pth")


def test_a_pickled_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_state(tmp_path / "m.pth")


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_nested_state_dict_is_found(tmp_path, key):
    torch.save({key: nn.Linear(2, 2).state_dict(), "epoch": 3}, tmp_path / "m.pth")
    assert set(read_state(tmp_path / "m.pth")) == {"weight", "bias"}


def test_wrong_keys_and_shapes_are_named_and_nothing_is_loaded():
    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"1 missing .*bias.*1 unexpected .*extra.*1 of another shape"):
        load_state(model, {"weight": torch.zeros(9, 9), "extra": torch.zeros(1)}, "file")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "out"
    with pytest.raises(FileNotFoundError), new_folder(target) as draft:
        (draft / "no such folder" / "half").write_text("x")
    assert not target.exists()
    assert not list(target.parent.iterdir())


def test_an_earlier_result_is_replaced_and_anything_else_is_not(tmp_path):
    target = tmp_path / "out"
    for text in ("1", "2"):
        with new_folder(target) as draft:
            (draft / "plan.json").write_text(text)
    assert (target / "plan.json").read_text() == "2"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(CheckpointError, match="not empty"), new_folder(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"
