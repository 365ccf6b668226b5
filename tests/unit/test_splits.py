from collections import Counter

import pytest

from prunekit.errors import InputError
from prunekit.samples import split_of, within

NAMES = [f"sa_{number}.jpg" for number in range(5000)]


def test_every_file_is_in_one_part_and_in_all():
    for name in NAMES[:500]:
        assert sum(within(split, name) for split in ("train", "val", "test")) == 1
        assert within("all", name)


def test_about_a_tenth_each_for_val_and_test():
    counts = Counter(split_of(name) for name in NAMES)
    assert counts["val"] == pytest.approx(500, abs=80)
    assert counts["test"] == pytest.approx(500, abs=80)
    assert sum(counts.values()) == len(NAMES)


def test_the_part_is_that_of_the_stem_and_stays():
    assert split_of("sa_1.jpg") == split_of("sa_1.json") == split_of("elsewhere/sa_1.png") == split_of("sa_1")
    # as published in docs/evaluation.md: sha256(stem) % 10; a change would mix old test images into new training sets
    assert [split_of(f"sa_{number}") for number in range(57, 69)] == [
        "train",
        "val",
        "train",
        "train",
        "train",
        "val",
        "train",
        "train",
        "train",
        "train",
        "test",
        "test",
    ]


def test_an_unknown_split():
    with pytest.raises(InputError, match="dev"):
        within("dev", "a.jpg")
