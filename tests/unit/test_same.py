"""The comparison of two trees tells what differs, and only that."""

import pytest

from benchmarks.same.differences import differences
from benchmarks.same.items import RUNS, arguments
from benchmarks.same.worker import results, timeless


def test_equal_results_differ_in_nothing():
    assert differences({"plan": "a"}, {"plan": "a"}) == []
    assert differences({"error": "X: y"}, {"error": "X: y"}) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"plan": "a"}, {"plan": "b"}, ["plan"]),
        ({"plan": "a"}, {"plan": "a", "report notes": "c"}, ["report notes"]),
        ({"plan": "a"}, {"error": "X: y"}, ["worked became X: y"]),
        ({"error": "X: y"}, {"plan": "a"}, ["X: y became works"]),
        (None, {"plan": "a"}, ["no answer from the base"]),
        ({"plan": "a"}, None, ["no answer from this tree"]),
    ],
)
def test_a_difference_is_named(before, after, said):
    assert differences(before, after) == said


def test_what_the_clock_decides_is_left_out_at_any_depth():
    report = {"seconds": 1.0, "ratio": 0.5, "stages": [{"title": "cut", "seconds": 2.0}]}
    assert timeless(report) == {"ratio": 0.5, "stages": [{"title": "cut"}]}


def test_an_item_that_fails_is_an_error_with_its_words():
    ((name, found),) = results([{"kind": "plan", "name": "x", "builder": "nowhere.py", "entry": {}}])
    assert name == "x"
    assert found["error"].startswith("FileNotFoundError")


def test_ten_settings_of_the_recipes_are_run():
    assert len(RUNS) == 10
    assert "steps=20" in arguments(RUNS["slimsam"])
