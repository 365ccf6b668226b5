"""Samples that are encoded ahead: in order, once where they fit, by one thread that ends with the block."""

from __future__ import annotations

import threading

import pytest
import torch

from prunekit.errors import DataError
from prunekit.runs.distillation import encoded
from prunekit.runs.distillation.encoded import Encoded, with_next
from prunekit.samples import Samples

CPU = torch.device("cpu")


def noted(count=9, bad=()):
    """Samples that note what is encoded, and in which thread."""
    read, threads = [], set()

    def encode(items):
        read.extend(items)
        threads.add(threading.get_ident())
        if set(items) & set(bad):
            raise DataError("cannot be read")
        return torch.tensor([[float(item)] for item in items])

    return Samples(list(range(count)), encode), read, threads


def test_what_is_expected_is_encoded_before_it_is_asked_for_by_one_other_thread():
    samples, read, threads = noted()
    with Encoded(samples, CPU) as reader:
        reader.expect([4, 2])
        reader.expect([2, 7])
        assert reader([2, 4, 2]).flatten().tolist() == [2, 4, 2]
        assert reader([7, 1]).flatten().tolist() == [7, 1]
    assert read == [4, 2, 7, 1]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_does_not_fit_is_encoded_again(monkeypatch):
    samples, read, _ = noted()
    monkeypatch.setattr(encoded, "ENCODED_BYTES", 8)  # two samples
    with Encoded(samples, CPU) as reader:
        for indices in ([0], [1], [2], [0, 1, 2]):
            assert reader(indices).flatten().tolist() == indices
    assert read == [0, 1, 2, 2]


def test_a_fault_is_raised_where_the_sample_is_asked_for_and_the_thread_ends():
    samples, _, _ = noted(bad=[3])
    before = threading.active_count()

    def asked():
        with Encoded(samples, CPU) as reader:
            reader.expect([1, 3, 5])
            assert reader([1]).item() == 1
            reader([3])

    with pytest.raises(DataError, match="cannot be read"):
        asked()
    assert threading.active_count() == before


@pytest.mark.parametrize("count", [0, 1, 3, 9])
@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_every_item_comes_into_sight_once_and_in_time(count, ahead):
    seen, given = [], []
    for item, coming in with_next(range(count), ahead):
        seen += coming
        given.append(item)
        assert seen == list(range(min(item + ahead + 1, count)))
    assert given == seen == list(range(count))
