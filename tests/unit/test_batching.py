"""Batches of several tensors go the same ways as batches of one."""

import json

import pytest
import torch

from prunekit.cli.app import run
from prunekit.errors import InputError
from prunekit.inputs import Inputs
from prunekit.inputs.batching import as_batch, bytes_in, device_of, joined_rows, moved, run_on, taken_rows

ROWS = [{"a": torch.full((1, 3), float(n)), "b": torch.full((1, 2), n), "scale": torch.tensor(2.0)} for n in range(3)]


def test_joined_rows_are_taken_apart_again():
    whole = joined_rows(ROWS)
    assert whole["a"].shape == (3, 3)
    assert whole["scale"].shape == ()
    for n, row in enumerate(ROWS):
        assert all(torch.equal(tensor, row[name]) for name, tensor in taken_rows(whole, n, n + 1).items())
    assert bytes_in(whole) == sum(tensor.nbytes for tensor in whole.values())
    assert {tensor.device.type for tensor in moved(whole, "meta").values()} == {"meta"}
    assert device_of(moved(whole, "meta")).type == "meta"


def test_one_tensor_is_a_batch_too():
    whole = joined_rows([torch.zeros(1, 2), torch.ones(1, 2)])
    assert torch.equal(taken_rows(whole, 1, 2), torch.ones(1, 2))
    assert run_on(lambda x: x + 1, whole).sum() == 6
    assert run_on(lambda *, a, b: a + b, {"a": 1, "b": 2}) == 3


def test_inputs_become_a_batch_by_their_names():
    x = torch.zeros(1, 2)
    assert as_batch(Inputs((x,))) is x
    assert list(as_batch(Inputs((), {"q": x, "k": x.clone()}))) == ["q", "k"]
    with pytest.raises(InputError, match="names"):
        as_batch(Inputs((x, x.clone())))


TWO_TOWERS = '''
from types import SimpleNamespace

import torch
from torch import nn


class Two(nn.Module):
    """Reads tokens twice, as an encoder and its decoder do."""

    main_input_name = "input_ids"

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=20, is_encoder_decoder=True)
        self.table, self.other = nn.Embedding(20, 16), nn.Embedding(20, 16)
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 20)

    def forward(self, input_ids, decoder_input_ids):
        seen = self.last(torch.relu(self.first(self.table(input_ids)))).mean(1, keepdim=True)
        return self.head(self.other(decoder_input_ids) + seen)


def two():
    torch.manual_seed(0)
    return Two()
'''
FEW = ["--set", "images=2", "--set", "val_images=2"]


@pytest.fixture
def towers(tmp_path, monkeypatch):
    (tmp_path / "two_towers.py").write_text(TWO_TOWERS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "recipe",
    [["oneshot"], ["minitron", "--set", "batch=2", "--set", "epochs=1", "--set", "train_images=4"]],
    ids=["oneshot", "distilled"],
)
def test_a_run_of_a_model_that_reads_two_tensors(towers, recipe, capsys):
    told = ["--ratio", "0.5", "--out", str(towers / "slim"), *FEW, "--json"]
    assert run(["prune", "python:two_towers:two", "--recipe", *recipe, *told]) == 0, capsys.readouterr().err
    report = json.loads(capsys.readouterr().out)
    assert report["params"]["after"] < report["params"]["before"]
    assert 0 < report["metrics"]["output_cosine"]["after"] <= 1


def test_pictures_for_such_a_model_are_refused(towers, capsys):
    (towers / "photos").mkdir()
    (towers / "photos" / "a.png").write_bytes(b"")
    assert run(["prune", "python:two_towers:two", "--data", str(towers / "photos"), "--out", str(towers / "s")]) == 2
    assert "not images" in capsys.readouterr().err
