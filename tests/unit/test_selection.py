from __future__ import annotations

import pytest
import torch
from support.selecting import select

from prunekit.coupling.groups import Group, Member, Tie
from prunekit.errors import InputError, RegistryError, ScorerError, SelectionError
from prunekit.selection import filter_groups
from prunekit.selection.ratio import widths


def group(name: str, size: int, role: str = "channels", buffers: tuple[str, ...] = ()) -> Group:
    unit_of = torch.arange(size)
    members = [Member(name.split(":")[0], 0, unit_of), *(Member(b, 0, unit_of, is_buffer=True) for b in buffers)]
    return Group(name, role, size, tuple(members))


def uniform(*groups: Group, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.size, generator=generator) for g in groups}


def counts(kept: dict[str, torch.Tensor]) -> list[int]:
    return [len(k) for k in kept.values()]


A, B = group("a.weight:0", 10), group("b.weight:0", 20, "mlp.hidden")


def test_the_best_units_are_kept_ascending():
    kept = select([group("x:0", 4)], [], {"x:0": torch.tensor([0.1, 9.0, 0.2, 3.0])}, ratio=0.5)
    assert kept["x:0"].tolist() == [1, 3]
    assert kept["x:0"].dtype == torch.int64


def test_equal_scores_go_by_index():
    assert select([A], [], {A.name: torch.ones(10)}, ratio=0.7)[A.name].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("size", "ratio", "rounding", "width"),
    [
        (10, 0.9, "down", 1),  # 10 * (1 - 0.9) is 0.9999999999999998 in floating point
        (10, 0.25, "nearest", 8),
        (10, 0.25, "down", 7),
        (10, 0.99, "down", 1),
        (100, 0.0, "down", 100),
        (768, 0.5, "nearest", 384),
        (768, 0.77, "nearest", 176),
        (3072, 0.77, "nearest", 704),
        (3072, 0.77, "down", 704),
        (100, 0.02, "nearest", 100),  # 100 is no multiple of 8, but it is a width
        (100, 0.03, "nearest", 96),
    ],
)
def test_local_widths(size, ratio, rounding, width):
    g = group("g:0", size)
    assert counts(select([g], [], uniform(g), ratio=ratio, rounding=rounding)) == [width]


def test_the_published_embedding_width_of_slimsam():
    g = group("g:0", 768, "embedding")
    assert counts(select([g], [], uniform(g), ratio=0.77, align=12, rounding="down")) == [168]


@pytest.mark.parametrize(
    ("role", "size", "align", "width"),
    [
        ("channels", 64, None, 32),
        ("channels", 66, None, 32),
        ("channels", 62, None, 31),
        ("attention.head_dim", 66, None, 33),
        ("attention.head_dim", 66, 16, 32),
        ("attention.heads", 70, None, 35),
        ("attention.heads", 70, 16, 35),
        ("channels", 70, {"channels": 10}, 40),
        ("attention.heads", 70, {"attention.*": 10}, 40),
        ("channels", 6, 8, 6),
        ("channels", 12, 8, 8),
    ],
)
def test_alignment(role, size, align, width):
    g = group("g:0", size, role)
    assert counts(select([g], [], uniform(g), ratio=0.5, align=align)) == [width]


def test_alignment_begins_at_64_units():
    g, h = group("g:0", 64), group("h:0", 63)
    assert counts(select([g, h], [], uniform(g, h), ratio=0.4)) == [40, 38]


def test_widths_are_multiples_and_the_size():
    assert widths(20, 8) == [8, 16, 20]
    assert widths(16, 8) == [8, 16]
    assert widths(5, 8) == [5]


@pytest.mark.parametrize("bad", [-0.1, 1.0, 1.5, float("nan"), float("inf"), "half", None, True, False])
@pytest.mark.parametrize("mapped", [False, True])
def test_ratios_outside_the_range_are_refused(bad, mapped):
    with pytest.raises(InputError, match="not a pruning ratio"):
        select([A], [], uniform(A), ratio={"channels": bad} if mapped else bad)


def test_ratio_by_role_name_and_glob():
    scores = uniform(A, B)
    assert counts(select([A, B], [], scores, ratio={"mlp.*": 0.5})) == [10, 10]
    assert counts(select([A, B], [], scores, ratio={"*": 0.5, "a.weight:0": 0.2})) == [8, 10]
    assert counts(select([A, B], [], scores, ratio={"b.*": 0.5, "mlp.hidden": 0.1, "*": 0.9})) == [1, 18]


@pytest.mark.parametrize("setting", ["ratio", "align"])
def test_an_unmatched_key_names_the_roles(setting):
    settings = {"ratio": 0.5, setting: {"attention": 0.5 if setting == "ratio" else 2}}
    with pytest.raises(InputError, match=r"channels, mlp\.hidden") as caught:
        select([A, B], [], uniform(A, B), **settings)
    assert "'attention'" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"ranking": "globally"},
        {"rounding": "up"},
        {"floor": 1.0},
        {"align": 0},
        {"align": 2.0},
        {"align": True},
        {"pools": [["no.such.role"]]},
        {"pools": [["channels"], ["chan*"]]},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(InputError):
        select([A], [], uniform(A), ratio=0.5, **settings)
    with pytest.raises(RegistryError):
        select([A], [], uniform(A), ratio=0.5, normaliser="gausian")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "has no scores"),
        ({A.name: torch.rand(9)}, r"shape \(9,\)"),
        ({A.name: torch.full((10,), torch.nan)}, "NaN"),
        ({A.name: torch.full((10,), torch.inf)}, "infinite"),
    ],
)
def test_scores_are_checked_and_the_group_is_named(scores, message):
    with pytest.raises(ScorerError, match=message) as caught:
        select([A], [], scores, ratio=0.5)
    assert A.name in str(caught.value)


class TestGlobal:
    def test_good_groups_keep_more_and_the_total_is_exact(self):
        a, b = group("a:0", 10), group("b:0", 10)
        scores = {"a:0": torch.arange(10.0) + 100, "b:0": torch.arange(10.0)}
        assert counts(select([a, b], [], scores, ratio=0.5, ranking="global", normaliser="none")) == [9, 1]
        assert counts(select([a, b], [], scores, ratio=0.5, ranking="global", normaliser="none", floor=0.3)) == [7, 3]
        assert counts(select([a, b], [], scores, ratio=0.5, ranking="global", normaliser="gaussian")) == [5, 5]

    def test_global_is_one_pool_and_role_one_for_each_unless_pools_say_otherwise(self):
        a, b = group("a:0", 10), group("b:0", 10, "mlp.hidden")
        scores = {"a:0": torch.arange(10.0) + 100, "b:0": torch.arange(10.0)}
        settings = {"ratio": 0.5, "ranking": "global", "normaliser": "none"}
        assert counts(select([a, b], [], scores, **settings)) == [9, 1]
        assert counts(select([a, b], [], scores, **settings | {"ranking": "role"})) == [5, 5]
        assert counts(select([a, b], [], scores, pools=[["channels", "mlp.*"]], **settings)) == [9, 1]

    def test_aligned_steps(self):
        a, b = group("a:0", 32), group("b:0", 32)
        kept = select([a, b], [], uniform(a, b), ratio=0.5, ranking="global", align=8)
        assert sum(counts(kept)) == 32
        assert all(count % 8 == 0 for count in counts(kept))

    def test_nearest_takes_the_last_step_where_that_is_closer(self):
        a, b = group("a:0", 16), group("b:0", 16)
        settings = {"ratio": 0.3, "ranking": "global", "align": 8}  # 22.4 units, so 16 or 24
        assert sum(counts(select([a, b], [], uniform(a, b), rounding="nearest", **settings))) == 24
        assert sum(counts(select([a, b], [], uniform(a, b), rounding="down", **settings))) == 16

    def test_a_ratio_beyond_the_floor_is_met(self):
        a, b = group("a:0", 100), group("b:0", 100)
        assert counts(select([a, b], [], uniform(a, b), ratio=0.95, ranking="global", align=1)) == [5, 5]

    def test_groups_that_a_mapping_leaves_out_are_not_in_the_pool(self):
        a, b = group("a:0", 10), group("b:0", 10)
        scores = {"a:0": torch.arange(10.0) + 100, "b:0": torch.arange(10.0)}
        kept = select([a, b], [], scores, ratio={"b:0": 0.5}, ranking="global", normaliser="none")
        assert counts(kept) == [10, 5]

    def test_rounding_in_a_mean_does_not_put_a_later_step_first(self):
        # In floating point the mean of four times 0.1 is less than the mean of three times 0.1.
        a = group("a:0", 11)
        scores = {"a:0": torch.full((11,), 0.1, dtype=torch.float64)}
        kept = select([a], [], scores, ratio=0.01, ranking="global", normaliser="none", align=4)
        assert counts(kept) == [11]

    def test_a_normaliser_of_ones_own(self):
        a, b = group("a:0", 10), group("b:0", 10)
        scores = {"a:0": torch.arange(10.0) + 100, "b:0": torch.arange(10.0)}
        kept = select([a, b], [], scores, ratio=0.5, ranking="global", normaliser=lambda x: x - x.min())
        assert counts(kept) == [5, 5]


class TestTies:
    q, k, other = (group(f"{n}:0", 12, "attention.head_dim") for n in "qko")

    def test_tied_groups_keep_equal_counts_and_their_own_best(self):
        scores = {
            "q:0": torch.arange(12.0),
            "k:0": torch.arange(12.0).flip(0),
            "o:0": torch.arange(12.0) + 5,
        }
        ties = [Tie(("q:0", "k:0"), "q and k are multiplied")]
        settings = {"ratio": 0.5, "ranking": "global", "normaliser": "none"}
        kept = select([self.q, self.k, self.other], ties, scores, **settings)
        assert len(kept["q:0"]) == len(kept["k:0"]) == 4
        assert len(kept["o:0"]) == 9  # 17 of 18: the next step costs two units and would be as far off
        assert kept["q:0"].tolist() == [8, 9, 10, 11]
        assert kept["k:0"].tolist() == [0, 1, 2, 3]

    def test_ties_chain(self):
        ties = [Tie(("q:0", "k:0"), ""), Tie(("k:0", "o:0"), "")]
        groups = [self.q, self.k, self.other]
        kept = select(groups, ties, uniform(*groups), ratio={"q:0": 0.5})
        assert counts(kept) == [6, 6, 6]

    def test_a_tie_to_a_group_that_stays_keeps_the_other_whole(self):
        ties = [Tie(("q:0", "elsewhere:0"), "")]
        assert counts(select([self.q, self.k], ties, uniform(self.q, self.k), ratio=0.5)) == [12, 6]

    def test_a_unit_of_one_group_may_be_worth_several_of_another(self):
        """Rotary pairs against single positions: 6 pairs, 12 positions."""
        pairs = group("k:0", 6, "attention.head_dim")
        scores = {"q:0": torch.arange(12.0), "k:0": torch.arange(6.0)}
        for ranking in ("local", "global"):
            kept = select([self.q, pairs], [Tie(("q:0", "k:0"), "")], scores, ratio=0.4, ranking=ranking)
            assert kept["q:0"].tolist() == list(range(4, 12))
            assert kept["k:0"].tolist() == [2, 3, 4, 5]

    def test_contradictions_are_refused(self):
        ties = [Tie(("q:0", "k:0"), "")]
        with pytest.raises(SelectionError, match="ratios"):
            select([self.q, self.k], ties, uniform(self.q, self.k), ratio={"q:0": 0.5, "k:0": 0.25})
        odd = group("k:0", 7, "attention.head_dim")
        with pytest.raises(SelectionError, match="sizes"):
            select([self.q, odd], ties, uniform(self.q, odd), ratio=0.5)


class TestPatterns:
    stem = group("stem.weight:0", 4, "channels", ("bn.running_mean",))
    fc = group("blocks.0.mlp.fc1.weight:0", 4, "mlp.hidden")
    fc_b = group("blocks.1.mlp.fc1.weight:0", 4, "mlp.hidden")
    groups = (stem, fc, fc_b)

    @pytest.mark.parametrize(
        ("settings", "names"),
        [
            ({}, "stem fc fc_b"),
            ({"include": "mlp.hidden"}, "fc fc_b"),
            ({"include": ["blocks.0", "stem"]}, "stem fc"),
            ({"include": "blocks.*.fc1"}, "fc fc_b"),
            ({"exclude": "blocks.1.mlp.fc1.weight"}, "stem fc"),
            ({"exclude": "bn.running_mean"}, "fc fc_b"),
            ({"exclude": "stem.weight:0"}, "fc fc_b"),
            ({"include": "blocks.*", "exclude": "blocks.0*"}, "fc_b"),
            ({"roles": ["channels"]}, "stem"),
            ({"roles": "mlp.*", "include": "blocks.1"}, "fc_b"),
            ({"exclude": "*"}, ""),
            ({"include": []}, ""),
        ],
    )
    def test_filter(self, settings, names):
        assert filter_groups(self.groups, **settings) == tuple(getattr(self, name) for name in names.split())

    def test_what_matches_nothing_names_the_nearest(self):
        with pytest.raises(InputError, match=r"near: blocks\.0\.mlp"):
            filter_groups(self.groups, exclude="block.0.mlp")
        with pytest.raises(InputError, match="near: channels"):
            filter_groups(self.groups, roles="heads")
