"""How often a class is built from its configuration for one answer: once for each number, and not again."""

import pytest
import torch
from prunekit_hf import homecoming, saying
from prunekit_hf.blueprint import Blueprint, built
from prunekit_hf.saying import Vocabulary
from transformers import BertConfig, BertModel

import prunekit

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def bert(**other):
    torch.manual_seed(0)
    return BertModel(BertConfig(**{**SIZES, "vocab_size": 50, **other})).eval(), torch.ones(1, 6, dtype=torch.long)


@pytest.fixture
def builds(monkeypatch):
    """The configurations that the class is built from; nothing is known of it before."""
    made = []

    def counted(kind, config, *given):
        made.append(config)
        return built(kind, config, *given)

    monkeypatch.setattr(saying, "built", counted)
    monkeypatch.setattr(homecoming, "_LEARNT", {})
    return made


def test_a_class_is_studied_once_for_all_its_models(builds):
    model, ids = bert()
    first = prunekit.prune(model, ids, ratio=0.5, scorer="magnitude", verify="shapes")
    assert len(builds) <= 14  # seven numbers, two ways for layers, one left open, and what they are put together to
    builds.clear()
    again, ids = bert()
    second = prunekit.prune(again, ids, ratio=0.5, scorer="magnitude", verify="shapes")
    assert not builds
    assert second.plan == first.plan
    assert second.home.edits == first.home.edits
    other, ids = bert(intermediate_size=64)
    prunekit.plan(other, ids, ratio=0.5, scorer="magnitude", verify="shapes")
    assert builds


def test_what_a_model_lacks_is_told_as_if_nothing_was_known(builds):
    """A model without one of its layers is not taken for one that has all."""
    whole, ids = bert()
    prunekit.plan(whole, ids, ratio=0.25, scorer="magnitude")
    shallow, ids = bert()
    result = prunekit.prune(shallow, ids, roles=["depth.block"], ratio=0.5)
    assert ("num_hidden_layers", 2, 1) in result.home.edits
    assert ("num_hidden_layers", 2, 1) not in homecoming.settle(bert()[0], result_inputs(ids)).edits


def result_inputs(ids):
    from prunekit.inputs import normalise

    return normalise(ids)


def test_little_is_kept_of_many_answers(builds, monkeypatch):
    monkeypatch.setattr(saying, "KEPT", 3)
    model, _ = bert()
    words = Vocabulary(BertModel, model.config)
    told = {}
    for width in (8, 16, 24, 32, 40):
        sizes = {place: width if size == 48 else size for place, size in Blueprint.of(model).sizes.items()}
        told[width] = words.say(sizes)
        assert len(words._made) <= 3
    assert not any(spoken.wrong for spoken in told.values())
