"""The page of benchmarks/slimsam_table: what it concludes follows from the figures, and every row is a command."""

import pytest
from prunekit_sam.recipe import RECIPES

from benchmarks.slimsam_table.page import judged, markdown
from benchmarks.slimsam_table.rows import ALIGNED_CLAIMS, ALTERNATE, CLAIMS, FULL, GROUPS, OWN_CLAIMS, QUICK
from prunekit.cli.command_table import COMMANDS, ready_command
from prunekit.recipes import Distil, override, parse, stages_of
from prunekit.registry import known_recipes, scorer

ROWS = {row.name: row for rows in GROUPS.values() for row in rows}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_a_command(name):
    words = ROWS[name].written(quick=True).split()
    with ready_command("prune", COMMANDS["prune"]).make_context("prune", ["sam:tiny", *words]) as context:
        given = context.params
    assert given["recipe"] in {recipe.name for recipe in RECIPES}
    override(known_recipes()[given["recipe"]], parse(given["settings"] or []))
    scorer(given["scorer"])


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", [row.name for group in GROUPS if group != "chance" for row in GROUPS[group]])
def test_all_rows_train_as_many_epochs(name, quick):
    words = ROWS[name].written(quick).split()
    with ready_command("prune", COMMANDS["prune"]).make_context("prune", ["sam:tiny", *words]) as context:
        given = context.params
    shared = [f"{key}={value}" for key, value in (QUICK if quick else FULL).items()]
    recipe = override(known_recipes()[given["recipe"]], parse([*shared, *(given["settings"] or [])]))
    stages = sum(isinstance(stage, Distil) for stage in stages_of(recipe))
    assert stages * recipe.settings["epochs"] == 2 * (QUICK if quick else FULL)["epochs"]


@pytest.mark.parametrize("name", [row.name for row in GROUPS["aligned"]])
def test_rows_of_two_aligned_epochs_align_in_both_steps(name):
    words = ROWS[name].written(quick=True).split()
    with ready_command("prune", COMMANDS["prune"]).make_context("prune", ["sam:tiny", *words]) as context:
        given = context.params
    shared = [f"{key}={value}" for key, value in QUICK.items()]
    recipe = override(known_recipes()[given["recipe"]], parse([*shared, *(given["settings"] or [])]))
    epochs = recipe.settings["align_epochs"]
    steps = [stage for stage in stages_of(recipe) if isinstance(stage, Distil)]
    assert [any(step.weighting.weight(epoch, epochs) for epoch in range(epochs)) for step in steps] == [True, True]


def test_claims_are_about_rows():
    for claim in (*CLAIMS, *OWN_CLAIMS, *ALIGNED_CLAIMS):
        assert {claim.better, claim.worse} <= ROWS.keys()


def test_a_claim_holds_only_beyond_its_spread():
    assert judged({"point": [0.02, 0.03, 0.025], "box": [0.01, 0.02, 0.015]}) == "holds"
    assert judged({"point": [-0.02, -0.03, -0.025], "box": [-0.01, -0.02, -0.015]}) == "holds not"
    assert judged({"point": [0.02, 0.03], "box": [0.001, 0.002, 0.05]}) == "cannot be told here"
    assert judged({"point": [0.02, 0.03], "box": [-0.02, -0.03]}) == "cannot be told here"
    assert judged({"point": [0.02], "box": [0.02]}) == "cannot be told here"


def test_the_page_has_the_figures_and_the_retention():
    before = {"point": 0.5, "box": 0.6}
    shared = {"ratio": 0.77, "before": before, "params": 0.1, "macs": 0.2, "seconds": 1}
    records = [
        {"row": row, "seed": seed, "point": point + seed * 0.01, "box": 0.5, **shared}
        for row, point in ((ALTERNATE, 0.4), ("random", 0.3))
        for seed in (0, 1)
    ]
    page = markdown(
        {"records": records, "command": "prunekit prune", "commit": "abc", "versions": {"torch": "2"}}, False
    )
    assert f"| {ALTERNATE} | 2 | 10.0% | 20.0% | 0.405 ± 0.005 | 0.500 ± 0.000 | 81.0% | 67.40 |" in page
    assert "keeps 81.0% of the teacher's one-point mIoU at 77%; the paper's keeps 91.9%" in page
    assert "**cannot be told here** (+0.100, +0.100 / +0.000, +0.000)" in page


def test_the_page_says_what_of_the_faithful_loss_is_gone():
    shared = {"ratio": 0.77, "seed": 0, "before": {"point": 0.5, "box": 0.6}, "params": 0.1, "macs": 0.2, "seconds": 1}
    records = [
        {"row": "slimsam-paper", "point": 0.4, "box": 0.5, **shared},
        {"row": "slimsam-plus", "point": 0.475, "box": 0.58, **shared},
    ]
    told = {"records": records, "command": "prunekit prune", "commit": "abc", "versions": {"torch": "2"}}
    page = markdown(told, True)
    assert "make slimsam-table-quick TABLE_FLAGS='--groups beyond --ratios 0.77 --seeds 0'" in page
    assert "point 0.1000 to 0.0250 (75% of it gone); box 0.1000 to 0.0200 (80% of it gone)" in page
