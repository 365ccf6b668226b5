"""Recurrent layers: the hidden width and the input width shrink, gates and directions in step."""

from __future__ import annotations

import pytest
import torch
from support.whole import check, edits
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import prunekit

KINDS = [nn.LSTM, nn.GRU, nn.RNN]
CELLS = [nn.LSTMCell, nn.GRUCell, nn.RNNCell]
X, OTHER = torch.randn(2, 5, 6).double(), torch.randn(3, 7, 6).double()


class Tagger(nn.Module):
    def __init__(self, recurrent, width):
        super().__init__()
        self.fc, self.recurrent, self.head = nn.Linear(6, 10), recurrent, nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.recurrent(self.fc(x))[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{}, {"bias": False}, {"batch_first": True, "num_layers": 2, "bidirectional": True}])
def test_hidden_and_input_width_shrink(kind, how):
    directions = 2 if how.get("bidirectional") else 1
    model, plan, _ = check(lambda: Tagger(kind(10, 8, **how), 8 * directions), X, OTHER)
    assert {w.role for w in plan.widths} == {"mlp.hidden"}
    changed = edits(plan)
    assert changed["recurrent.hidden_size"] == (8, 4)
    assert changed["recurrent.input_size"] == (10, 5)
    gates = model.recurrent.weight_hh_l0.shape[0] // 4
    assert model.recurrent.weight_hh_l0.shape == (4 * gates, 4)
    assert model.recurrent.weight_ih_l0.shape == (4 * gates, 5)
    flat = model.recurrent._flat_weights
    assert all(any(w is p for p in model.recurrent.parameters()) for w in flat)
    assert len(flat) == len(list(model.recurrent.parameters()))


def test_the_projection_of_an_lstm_shrinks_by_itself():
    _, plan, _ = check(lambda: Tagger(nn.LSTM(10, 8, 2, proj_size=6), 6), X, OTHER)
    assert edits(plan)["recurrent.proj_size"] == (6, 3)
    assert edits(plan)["recurrent.hidden_size"] == (8, 4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_words_in_the_last_state_out(kind):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.recurrent, self.head = nn.Embedding(20, 10), kind(10, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            state = self.recurrent(self.embed(x))[1]
            return self.head((state[0] if isinstance(state, tuple) else state)[-1])

    model, _, _ = check(Reader, torch.randint(0, 20, (2, 5)), torch.randint(0, 20, (3, 4)))
    assert model.embed.weight.shape == (20, 5)
    assert model.head.weight.shape == (3, 4)


def test_an_encoder_hands_its_state_to_a_decoder():
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 10), nn.Linear(6, 12)
            self.encoder, self.decoder = nn.GRU(10, 8, batch_first=True), nn.GRU(12, 8, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.decoder(self.b(x), self.encoder(self.a(x))[1])[0])

    model, _, _ = check(Translator, X, OTHER)
    assert model.encoder.hidden_size == model.decoder.hidden_size == 4


def test_packed_sequences_of_lengths_that_forward_makes():
    class Packed(Tagger):
        def forward(self, x):
            packed = pack_padded_sequence(self.fc(x), torch.tensor([5, 3]), batch_first=True)
            return self.head(pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0])

    model = Packed(nn.LSTM(10, 8, batch_first=True), 8).double()
    prunekit.prune(model, X, ratio=0.5)
    assert model.recurrent.hidden_size == 4
    model(X)


@pytest.mark.parametrize("kind", CELLS)
def test_cells_in_a_loop(kind):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.cell, self.head = nn.Linear(6, 10), kind(10, 8), nn.Linear(8, 3)

        def forward(self, x):
            state = None
            for step in self.fc(x).unbind(1):
                state = self.cell(step, state)
            return self.head(state[0] if isinstance(state, tuple) else state)

    model, plan, _ = check(Loop, X, OTHER)
    assert edits(plan)["cell.hidden_size"] == (8, 4)
    assert model.cell.weight_ih.shape[1] == 5


def test_cells_show_their_input_width():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.cell, self.head = nn.Linear(6, 10), nn.GRUCell(10, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.cell(self.fc(x)))

    model, _, _ = check(Once, X[:, 0])
    assert model.cell.input_size == 5
