"""The table of operators: what it holds, what it refuses, and that a wider one is another."""

import pytest
import torch

import prunekit
from prunekit.errors import RegistryError
from prunekit.operators import TABLE, Operator, Scales, couple_pointwise
from prunekit.operators.table import FAMILIES, Table


def test_every_family_is_in_the_table_and_no_name_twice():
    names = [name for family in FAMILIES for operator in family.OPERATORS for name in operator.names]
    assert len(names) == len(set(names)) == len(TABLE)
    assert all(family.OPERATORS for family in FAMILIES)


def test_every_name_is_an_operator_of_torch():
    """A misspelt name would couple nothing, and nobody would notice."""
    later = {"_grouped_mm", "_fused_rms_norm", "_safe_softmax"}  # of a later torch than the oldest that is allowed
    for name in TABLE:
        library, _, family = name.partition(".")
        if library == "aten" and family not in later:
            assert hasattr(torch.ops.aten, family) or hasattr(torch.ops.aten, family + "_"), name


def test_a_second_entry_for_a_name_is_refused_with_the_name():
    with pytest.raises(RegistryError, match=r"aten\.mm"):
        TABLE.with_([Operator(("aten.mm",), couple_pointwise)])
    twice = Operator(("mylib.swish",), couple_pointwise)
    with pytest.raises(RegistryError, match=r"mylib\.swish"):
        Table([twice, Operator(("mylib.swish",))])


def test_a_wider_table_is_another_and_the_narrow_one_stays():
    mine = Operator(("mylib.swish",), couple_pointwise, scales=Scales.UNKNOWN)
    wider = TABLE.with_([mine])
    assert wider["mylib.swish"] is mine
    assert wider.brought == (mine,)
    assert "mylib.swish" not in TABLE
    assert wider.with_([mine]) is wider
    assert TABLE.with_([]) is TABLE
    assert len(wider) == len(TABLE) + 1


def test_ordinary_models_are_traced_without_loading_plugins(monkeypatch):
    def loaded():
        raise AssertionError("plug-ins were loaded")

    monkeypatch.setattr("prunekit.registry.rules.discover", loaded)
    prunekit.trace(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)), torch.ones(1, 4))
