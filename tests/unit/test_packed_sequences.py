"""Recurrent layers over packed sequences shrink; other lengths and batches run afterwards."""

import pytest
import torch
from support.compare import distance, masked, run
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import prunekit


class Tagger(nn.Module):
    def __init__(self, kind, batch_first=True, is_sorted=True, **options):
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.rnn = getattr(nn, kind)(32, 64, batch_first=batch_first, **options)
        self.head = nn.Linear(128 if options.get("bidirectional") else 64, 7)
        self.batch_first, self.is_sorted = batch_first, is_sorted

    def forward(self, ids, lengths):
        x = self.embed(ids if self.batch_first else ids.T)
        packed = pack_padded_sequence(x, lengths, self.batch_first, self.is_sorted)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=self.batch_first)
        return self.head(out if self.batch_first else out.transpose(0, 1))


class Masked(nn.Module):
    """Counts the lengths itself, out of a mask of integers."""

    def __init__(self):
        super().__init__()
        self.inner = Tagger("LSTM", is_sorted=False)

    def forward(self, ids, mask):
        return self.inner(ids, mask.sum(1).cpu())


WAYS = [
    ("LSTM", {}),
    ("GRU", {}),
    ("RNN", {}),
    ("LSTM", {"bidirectional": True}),
    ("LSTM", {"num_layers": 2}),
    ("GRU", {"batch_first": False}),
    ("LSTM", {"is_sorted": False}),
]


@pytest.mark.parametrize(("kind", "options"), WAYS)
def test_the_hidden_width_shrinks(kind, options):
    torch.manual_seed(0)
    model = Tagger(kind, **options).eval()
    before = sum(p.numel() for p in model.parameters())
    ids, lengths = torch.randint(0, 100, (2, 9)), torch.tensor([9, 5])
    lengths = lengths if options.get("is_sorted", True) else lengths.flip(0)
    prunekit.prune(model, (ids, lengths), ratio=0.5)
    assert sum(p.numel() for p in model.parameters()) < 0.6 * before
    assert model.rnn.hidden_size == 32
    assert model(torch.randint(0, 100, (3, 6)), torch.tensor([6, 4, 1])).shape == (3, 6, 7)
    model.train()(ids, lengths).sum().backward()


def test_it_is_the_masked_model():
    torch.manual_seed(0)
    model = Tagger("LSTM").eval()
    inputs = torch.randint(0, 100, (2, 9)), torch.tensor([9, 5])
    structure = prunekit.trace(model, inputs)
    kept = {g.name: torch.arange(g.size // 2) for g in structure.groups}
    expected = run(masked(model, structure.groups, kept), inputs)
    from prunekit.planning.solving import make_plan

    prunekit.apply(model, make_plan(model, structure, kept))
    assert distance(expected, run(model, inputs)) < 1e-5


def test_lengths_out_of_a_mask():
    torch.manual_seed(0)
    model, mask = Masked().eval(), torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    prunekit.prune(model, (torch.randint(0, 100, (2, 5)), mask), ratio=0.5)
    assert model.inner.rnn.hidden_size == 32


class Guessed(nn.Module):
    """The lengths come out of the model's own numbers."""

    def __init__(self):
        super().__init__()
        self.inner = Tagger("LSTM", is_sorted=False)

    def forward(self, ids):
        lengths = self.inner.embed(ids).abs().sum((1, 2)).long() % 3 + 1
        return self.inner(ids, lengths.cpu())


def test_lengths_that_the_model_computes_are_read_on_real_numbers():
    torch.manual_seed(0)
    model, ids = Guessed().eval(), torch.randint(0, 100, (2, 5))
    structure = prunekit.trace(model, ids)
    assert structure.trace.decisions
    prunekit.prune(model, ids, ratio=0.5, structure=structure)
    assert model.inner.rnn.hidden_size == 32
    model(torch.randint(0, 100, (3, 7)))
