"""What no configuration can say is known before configurations are tried."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prunekit_hf.blueprint import Blueprint
from prunekit_hf.proportions import contradicted
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
def test_sizes_that_entries_give_are_never_contradicted(before, places, data):
    after = [data.draw(st.integers(1, value)) for value in before]
    moved = [sizes_of([value * (1 + (n == k)) for k, value in enumerate(before)], places) for n in range(len(before))]
    assert not contradicted(sizes_of(before, places), sizes_of(after, places), moved)


def test_two_widths_of_one_entry_and_a_width_of_none_are():
    original = {("a", 0): 40, ("b", 0): 40, ("c", 0): 40}
    doubled = {("a", 0): 80, ("b", 0): 80, ("c", 0): 40}
    for a, b, c, expected in [(20, 20, 40, False), (20, 10, 40, True), (40, 40, 20, True), (20, 21, 40, False)]:
        assert contradicted(original, {("a", 0): a, ("b", 0): b, ("c", 0): c}, [doubled]) is expected
    assert contradicted(original, {("a", 0): 20}, [])
    assert not contradicted(original, original, [])


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
