"""docs/slimsam-ablations.md cannot rot: every command resolves, and some run to the end on the bundled model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from prunekit_sam import models
from prunekit_sam.ablations import ALPHAS
from prunekit_sam.plugin import plugin, sa1b
from prunekit_sam.recipe import ONESTEP, SLIMSAM
from support.sweeps import but_for_sweeps

import prunekit
from prunekit.cli.app import run as command
from prunekit.cli.command_table import COMMANDS, ready_command
from prunekit.errors import RecipeError
from prunekit.options.shares import read_shares
from prunekit.recipes import Distil, override, parse, stages_of
from prunekit.registry import known_recipes, names, scorer
from prunekit.runs.prune_stage import Batches, structure_of
from prunekit.scorers import Statistics
from prunekit.selection import parse_target

PAGE = Path(__file__).parents[3] / "docs" / "slimsam-ablations.md"
TEXT = PAGE.read_text() if PAGE.is_file() else ""
SHARED = re.search(r'^SAM="(.*)"$', TEXT, re.M)
ROWS = re.findall(r"^\| ([^|]+) \|.*`(prunekit prune [^`]+)` \|$", TEXT, re.M)
AT_77 = "--ratio 0.77 --set epochs=40"


def parsed(line: str) -> dict[str, Any]:
    """The options of a command line, as the command itself reads them; an unknown one is an error."""
    words = shlex.split(line.replace("$SAM", SHARED[1]))
    assert words[:2] == ["prunekit", "prune"]
    with ready_command("prune", COMMANDS["prune"]).make_context("prune", words[2:]) as context:
        return context.params


def resolved(options: dict[str, Any]):
    """The recipe, its settings overridden, its stages written out and its criterion; nothing is built."""
    recipe = override(known_recipes()[options["recipe"]], parse(options["settings"] or []))
    assert options["model"] in names()
    read_shares(options["ratio"] or "0.5")
    if options["target"]:
        parse_target(options["target"])
    taken = {name: recipe.settings[name] for name in ("accumulation", "seed")}
    return recipe, stages_of(recipe), scorer(options["scorer"], **taken)


def test_the_page_has_the_rows_of_the_paper():
    assert len(ROWS) >= 6 + 4 + 4 + 4 + 6 + 3
    assert f"`{AT_77}`" in TEXT


# a row that says itself how much goes has no other at 77 %
AT_77_TOO = [(row, line, AT_77) for row, line in ROWS if "--ratio" not in line and "--target" not in line]
RESOLVED = [*((row, line, "") for row, line in ROWS), *AT_77_TOO]


@pytest.mark.parametrize(("row", "line", "more"), RESOLVED, ids=[f"{row} {more}".strip() for row, _, more in RESOLVED])
def test_every_command_resolves(row, line, more):
    recipe, stages, _ = resolved(parsed(f"{line} {more}"))
    assert stages
    assert recipe.settings["epochs"] == (40 if more else 20)


@pytest.mark.parametrize(
    "line",
    [
        "prunekit prune $SAM --recipe slimsam-uniforn",
        "prunekit prune $SAM --recipe slimsam --set without=bottelneck",
        "prunekit prune $SAM --recipe slimsam --set alpha=dynamic",
        "prunekit prune $SAM --recipe slimsam --set alpha=linear,linear,linear",
        "prunekit prune $SAM --recipe slimsam --set normaliser=gausian",
        "prunekit prune $SAM --recipe slimsam --set masks=-1",
        "prunekit prune $SAM --recipe slimsam --set masks=nan",
        "prunekit prune $SAM --recipe slimsam --set accumulation=sum",
        "prunekit prune $SAM --recipe slimsam --scorer tailor",
        "prunekit prune $SAM --recipe slimsam --rato 0.5",
    ],
)
def test_a_command_that_has_rotted_would_be_found(line):
    with pytest.raises((KeyError, prunekit.PrunekitError, typer.TyperException)):
        resolved(parsed(line))


def losses(line: str) -> list[tuple[str, tuple[str, ...]]]:
    """(schedule, terms) of each distillation."""
    stages = [stage for stage in resolved(parsed(line))[1] if isinstance(stage, Distil)]
    names = {weighting: name for name, weighting in ALPHAS.items()}
    return [(names[stage.weighting], tuple(term.name for term in stage.terms)) for stage in stages]


FIRST, SECOND = ("bottleneck", "output"), ("embedding", "previous output", "output")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", [("constant", FIRST), ("linear", SECOND)]),
        ("--set alpha=linear", [("linear", FIRST), ("linear", SECOND)]),
        ("--set alpha=linear,constant", [("linear", FIRST), ("constant", SECOND)]),
        ("--set without=bottleneck", [("constant", FIRST[1:]), ("linear", SECOND)]),
        ("--set masks=2", [("constant", (*FIRST, "masks")), ("linear", (*SECOND, "masks"))]),
        ("--set 'without=embedding, previous output'", [("constant", FIRST), ("linear", SECOND[2:])]),
    ],
)
def test_losses_are_what_the_settings_say(settings, expected):
    assert losses(f"prunekit prune $SAM --recipe slimsam {settings}") == expected


def test_a_loss_without_any_term_is_refused():
    with pytest.raises(RecipeError, match="no term left"):
        losses("prunekit prune $SAM --recipe slimsam-onestep --set without=output")


TINY = {"images": 2, "train_images": 4, "val_images": 2, "epochs": 2, "align_epochs": 1, "latency": "false"}
END_TO_END = ["from scratch", "Taylor, one step", "step 1: output only", "local", "global, max"]


@pytest.mark.slow
@pytest.mark.parametrize("row", but_for_sweeps(END_TO_END, {"Taylor, one step", "global, max", "local"}))
def test_rows_run_on_the_bundled_model(row, tmp_path, capsys):
    line = dict(ROWS)[row].replace("$SAM", "sam:nano")
    tiny = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    code = command([*shlex.split(line)[1:], "--out", str(tmp_path / "o"), "--json", *tiny])
    said = capsys.readouterr()
    assert code == 0, said.err
    report = json.loads(said.out)
    assert report["params"]["after"] < 0.45 * report["params"]["before"]
    assert len(report["stages"]) == (4 if "slimsam-onestep" in line else 6)
    blocks = [w["after"] for w in report["widths"] if w["role"] == "mlp.hidden"]
    assert len(set(blocks)) == 1 or "slimsam-uniform" not in line


def test_scratch_forgets_what_was_learned():
    def cosine(**more):
        recipe = override(ONESTEP, {**TINY, "distill": False, **more})
        return prunekit.runs.run(prunekit.registry.build("sam:nano"), recipe, scorer("magnitude"), ratio=0.25)

    kept, redrawn = cosine(), cosine(scratch=True)
    assert redrawn.report["params"] == kept.report["params"]
    assert redrawn.report["metric"]["after"] < 0.5 * kept.report["metric"]["after"]


def test_output_taylor_is_the_product_of_weight_and_gradient_of_the_squared_output():
    sam = models.build_sam("nano")
    samples = sa1b(sam, None, "train", 1, 0)
    part = sam.image_encoder
    group = next(g for g in structure_of(part, samples).groups if g.role == "mlp.hidden")
    got = plugin.scorers["output_taylor"]().score(group, Statistics(part, Batches(samples, 1)))
    loss = part(samples.batch([0])).square().mean() / 2
    loss.backward()
    total = []
    for member in group.parameters:
        parameter = part.get_parameter(member.tensor)
        product = (
            (parameter * parameter.grad).abs().movedim(member.axis, 0).reshape(parameter.shape[member.axis], -1).mean(1)
        )
        total.append(product.double())
    assert got.tolist() == pytest.approx((sum(total) / len(total)).tolist(), rel=1e-4)


def test_slimsam_is_what_the_paper_does():
    assert SLIMSAM.settings["ranking"] == "global"
    assert losses("prunekit prune $SAM --recipe slimsam-global") == losses("prunekit prune $SAM --recipe slimsam")
