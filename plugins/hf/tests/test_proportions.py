"""What numbers a configuration needs, or that none will do, is known before configurations are tried."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prunekit_hf.blueprint import Blueprint, built
from prunekit_hf.proportions import factors
from prunekit_hf.saying import QUICK_TRIALS, Vocabulary

hf = pytest.importorskip("transformers")
FACTORS = st.lists(st.integers(1, 64), min_size=1, max_size=5)


def sizes_of(entries, places):
    """Each place is the product of some entries."""
    found = {}
    for n, chosen in enumerate(places):
        size = 1
        for entry in chosen:
            size *= entries[entry % len(entries)]
        found[f"w{n}", 0] = size
    return found


@given(FACTORS, st.lists(st.sets(st.integers(0, 4), max_size=2), min_size=1, max_size=6), st.data())
def test_sizes_that_entries_give_have_factors_that_give_them(before, places, data):
    after = [data.draw(st.integers(1, value)) for value in before]
    moved = [sizes_of([value * (1 + (n == k)) for k, value in enumerate(before)], places) for n in range(len(before))]
    original, wanted = sizes_of(before, places), sizes_of(after, places)
    found = factors(original, wanted, moved)
    assert found is not None
    for place, size in original.items():
        followed = [n for n, each in enumerate(moved) if each[place] != size]
        if all(moved[n][place] == 2 * size for n in followed):
            assert math.prod([found[n] for n in followed], start=size) == pytest.approx(wanted[place])


def by_one(a, b, c):
    """``a`` and ``b`` follow one entry of 40, ``c`` of 40 none."""
    doubled = {("a", 0): 80, ("b", 0): 80, ("c", 0): 40}
    return factors({("a", 0): 40, ("b", 0): 40, ("c", 0): 40}, {("a", 0): a, ("b", 0): b, ("c", 0): c}, [doubled])


def test_two_widths_of_one_entry_and_a_width_of_none_have_no_factors():
    assert by_one(20, 20, 40) == [pytest.approx(0.5)]
    assert by_one(20, 10, 40) is None
    assert by_one(40, 40, 20) is None
    assert by_one(20, 21, 40) is not None, "one of them may be rounded"
    assert factors({("a", 0): 40}, {("a", 0): 20}, []) is None
    assert factors({("a", 0): 40}, {("a", 0): 40}, []) == []
    assert factors({("a", 0): 40}, {("a", 0): 20}, [{("a", 0): 50}]) == [None], "a sum says nothing"


def test_of_two_entries_the_one_that_others_need_too_is_changed():
    """A ratio stays where the width that it is of has gone down with what it gives."""
    original = {("width", 0): 16, ("inner", 0): 64}
    moved = [{("width", 0): 32, ("inner", 0): 128}, {("width", 0): 16, ("inner", 0): 128}]
    assert factors(original, {("width", 0): 8, ("inner", 0): 32}, moved) == pytest.approx([0.5, 1.0])
    assert factors(original, {("width", 0): 8, ("inner", 0): 16}, moved) == pytest.approx([0.5, 0.5])


def test_ratios_of_many_stages_that_stay_are_found_at_once(monkeypatch):
    """Each of four ratios has a number that its places seem to ask for, and none of these is right."""
    sizes = {"hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 2, 2, 4], "depths": [1, 1, 1, 1]}
    config = hf.SegformerConfig(**sizes, decoder_hidden_size=16)
    known = Vocabulary(hf.SegformerForSemanticSegmentation, config)
    known.moved  # noqa: B018  each entry alone
    tried, plain = [], Vocabulary._tried
    monkeypatch.setattr(Vocabulary, "_tried", lambda self, edits: tried.append(edits) or plain(self, edits))
    half = hf.SegformerConfig(**{**sizes, "hidden_sizes": [4, 8, 8, 16]}, decoder_hidden_size=8)
    wanted = Blueprint.of(built(hf.SegformerForSemanticSegmentation, half))
    answer = next(known.wordings(wanted))
    assert not answer.wrong
    assert len(tried) == 1


def test_a_ratio_shared_by_stages_that_differ_is_found_out_in_a_few_trials(monkeypatch):
    """What follows two entries is contradicted by the places that follow one of them."""
    sizes = {"embed_dim_per_stage": [8, 16, 32], "num_attention_heads_per_stage": [1, 2, 4], "mlp_ratio": 4.0}
    more = {"hidden_size": 8, "num_attention_heads": 1, "blocks_per_stage": [1, 1, 1], "global_attention_blocks": []}
    known = Vocabulary(hf.Sam2HieraDetModel, hf.Sam2HieraDetConfig(**sizes, **more))
    known.moved  # noqa: B018  each entry alone
    tried, plain = [], Vocabulary._tried
    monkeypatch.setattr(Vocabulary, "_tried", lambda self, edits: tried.append(edits) or plain(self, edits))
    wanted = dict(known.original.sizes)
    half = {8: 4, 16: 8, 32: 16}
    for (name, axis), size in known.original.sizes.items():
        wanted[name, axis] = half.get(size, size)
        if "mlp" in name and size == 4 * 8 and wanted[name, axis] == 16:
            wanted[name, axis] = 20  # of the first stage, whose width is 4 then
    answer = next(known.wordings(Blueprint(wanted, {})))
    assert answer.wrong
    assert len(tried) <= 2 * QUICK_TRIALS


def test_nothing_that_could_be_said_is_lost():
    config = hf.LlamaConfig(
        vocab_size=64, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6, head_dim=8
    )
    known = Vocabulary(hf.LlamaForCausalLM, config)
    with torch.device("meta"):
        config.hidden_size, config.intermediate_size, config.num_attention_heads = 36, 60, 4
        config.num_key_value_heads = 4
        wanted = Blueprint.of(hf.LlamaForCausalLM(config))
    answer = next(known.wordings(wanted))
    assert not answer.wrong
    assert answer.blueprint.sizes == wanted.sizes
