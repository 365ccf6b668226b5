"""Sequences that leave out what cannot be read."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunekit.errors import DataError
from prunekit.runs.reporting import NAMED, skipped_in
from prunekit.samples import Checked, First, Lazy, Samples, Skipped, Sound, Usable


class Numbers(Lazy[int]):
    """0, 1, 2, ...; those in ``bad`` cannot be read. Counts how often each is asked for."""

    def __init__(self, count, bad):
        self.length, self.bad, self.asked = count, bad, [0] * count

    def __len__(self):
        return self.length

    def _get(self, index):
        self.asked[index] += 1
        if index in self.bad:
            raise DataError(f"{index} is broken")
        return index


COUNTS = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=n - 1)))


def names(count):
    return [f"n{index}" for index in range(count)]


@given(COUNTS, st.randoms(use_true_random=False))
def test_the_next_good_one_stands_in_whatever_the_order(drawn, random):
    count, bad = drawn
    items, skipped = Numbers(count, bad), []
    sound = Sound(items, names(count), skipped)
    order = [*range(count), *range(count)]
    random.shuffle(order)
    for index in order:
        expected = next((index + step) % count for step in range(count) if (index + step) % count not in bad)
        assert sound[index] == expected
    assert {fault.name for fault in skipped} == {f"n{index}" for index in bad}
    assert len(skipped) == len(bad)
    assert all(items.asked[index] == 1 for index in bad)
    assert all(fault.reason == f"{fault.name[1:]} is broken" for fault in skipped)


@given(COUNTS, st.none() | st.integers(1, 12))
def test_checked_items_are_good_and_none_comes_twice(drawn, limit):
    count, bad = drawn
    items, skipped = Numbers(count, bad), []
    good = [index for index in range(count) if index not in bad]
    found = list(Checked(items, names(count), skipped, limit))
    assert found == good[:limit]
    met = bad if limit is None or len(good) < limit else {index for index in bad if index < good[limit - 1]}
    assert [fault.name for fault in skipped] == [f"n{index}" for index in sorted(met)]


@given(COUNTS, st.none() | st.integers(1, 12))
def test_every_pass_gives_the_good_ones_and_tries_a_bad_one_once(drawn, limit):
    count, bad = drawn
    items, skipped = Numbers(count, bad), []
    good = [index for index in range(count) if index not in bad][:limit]
    usable = Usable(items, names(count), skipped, limit)
    assert len(usable) == (count if limit is None else min(limit, count))
    assert [list(usable), list(usable)] == [good, good]
    met = bad if limit is None or len(good) < limit else {index for index in bad if index < good[-1]}
    assert [fault.name for fault in skipped] == [f"n{index}" for index in sorted(met)]
    assert all(items.asked[index] == (index in met) for index in bad)
    assert len(usable) == len(good)


@pytest.mark.parametrize("count", [1, 3])
def test_nothing_good_is_an_error_that_names_one(count):
    items = Numbers(count, set(range(count)))
    with pytest.raises(DataError, match=r"[01] is broken"):
        Sound(items, names(count), [])[count // 2]
    with pytest.raises(DataError, match="0 is broken"):
        Checked(items, names(count), [], 2)
    with pytest.raises(DataError, match="0 is broken"):
        list(Usable(items, names(count), [], 2))


def test_the_first_are_still_made_one_by_one():
    items = Numbers(5, set())
    first = First(items, 3)
    assert (len(first), first[2], first[-1], first[1:]) == (3, 2, 2, [1, 2])
    assert items.asked == [0, 1, 3, 0, 0]
    assert len(First(items, 9)) == 5
    with pytest.raises(IndexError):
        first[3]


def test_the_first_samples_are_not_read_to_be_taken_and_share_what_is_skipped():
    items = Numbers(6, {1})
    skipped = []
    samples = Samples(Sound(items, names(6), skipped), lambda rows: torch.tensor(rows), skipped=skipped)
    first = samples.first(4)
    assert items.asked == [0] * 6
    assert first.batch([0, 1, 3]).tolist() == [0, 2, 3]
    assert [fault.name for fault in samples.skipped] == [fault.name for fault in first.skipped] == ["n1"]


def test_a_report_counts_each_fault_once_and_names_no_more_than_it_may():
    faults = [Skipped(f"n{index % 60}", "broken") for index in range(120)]
    said = skipped_in(faults)
    assert said["count"] == 60
    assert said["items"] == [{"name": f"n{index}", "reason": "broken"} for index in range(NAMED)]
