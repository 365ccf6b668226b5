"""report.html and README.md: what they say is what the folder holds, escaped, on one page that fetches nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import prunekit
from prunekit.cli.app import run
from prunekit.coupling.groups import Absence
from prunekit.pages import comparison_page, model_card, report_page
from prunekit.pages.charts import front, losses_chart, pareto_chart
from prunekit.pages.mapping import block_of
from prunekit.pages.report_figures import budget_of, figure_rows, notes_of
from prunekit.plans.contents import Removal
from prunekit.runs.telling import STEPS, Told


class Reader(HTMLParser):
    """Ids, text, and every address of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses, self.words, self.tags, self.joined = [], [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.joined = tag == "wbr"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                self.addresses.append(value)

    def handle_data(self, data):
        if self.joined:
            data = self.words.pop() + data
        self.words.append(data)
        self.joined = False

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 2))
    result = prunekit.prune(model, torch.randn(1, 4), ratio=0.5, scorer="magnitude")
    return prunekit.save(result, tmp_path_factory.mktemp("pages") / "slim")


def test_every_saved_folder_has_a_page_that_needs_nothing_else(folder):
    page = Reader((folder / "report.html").read_text())
    plan = prunekit.Plan.from_json((folder / "plan.json").read_text())
    assert plan.widths
    for width in plan.widths:
        assert f"{width.group} {width.before} → {width.after}" in page.text
    for frozen in plan.frozen:
        assert frozen.reason in page.text
    assert all(address.startswith(("#", "data:")) for address in page.addresses), page.addresses
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1
    assert "link" not in page.tags


@pytest.mark.parametrize("size", [7, 576, 39_312, 1_021_000, 295_000_000, 4_100_000_000_000])
def test_a_model_of_any_size_is_told_in_digits_that_say_something(size):
    pair = {"before": size, "after": max(1, size // 2)}
    report = {"params": pair, "macs": pair, "memory": pair, "latency": {"before": size / 1e6, "after": size / 2e6}}
    for row in figure_rows(report):
        for side in ("before", "after"):
            number = float(row[side].split()[0].replace(",", ""))
            assert number > 0, row
        assert row["before"].partition(" ")[2] == row["after"].partition(" ")[2], row
    assert " 0.00 " not in Reader(comparison_page({"a": report, "b": report})).text


def test_blocks_and_branches_that_went_are_named(folder):
    plan = prunekit.Plan.from_json((folder / "plan.json").read_text())
    assert "Gone whole" not in report_page(plan, {}, {})
    less = replace(
        plan,
        removals=(Removal("encoder.layer", ("0", "1", "2"), (0, 2)),),
        absences=(Absence("encoder.layer.2.attn", "tensor", ("",)),),
    )
    assert "Gone whole: encoder.layer.1, encoder.layer.2.attn." in Reader(report_page(less, {}, {})).text


def test_what_was_asked_by_role_is_said_in_words():
    assert (
        budget_of({"ratio": {"depth.block": 0.4, "mlp.hidden": 0.5}})
        == "at ratio 0.4 of depth.block, 0.5 of mlp.hidden"
    )
    assert "broken" not in " ".join(notes_of({"verify": {"symmetry": "passed", "symmetry_broken": []}}, {}))


def test_names_from_a_model_are_text_and_never_markup(folder):
    plan = prunekit.Plan.from_json((folder / "plan.json").read_text())
    evil = "<script>alert(1)</script>"
    report = {"model": evil, "params": {"before": 2, "after": 1}, "stages": [{"title": evil, "seconds": 1.0}]}
    story = {"command": evil, "exhibits": [{"name": evil, "pictures": [{"caption": evil, "png": "", "figures": {}}]}]}
    for text in (report_page(plan, report, story), comparison_page({evil: report, "b": report})):
        assert evil not in text
        assert "&lt;script&gt;alert(1)" in text
    losses = {evil: [[1, 0.5, 0.1], [2, 0.4, 0.1]]}
    assert evil not in report_page(plan, report, {"losses": losses})


def test_the_card_has_metadata_that_yaml_reads_figures_and_limits(folder):
    yaml = pytest.importorskip("yaml")
    text = (folder / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "prunekit"
    assert "| parameters |" in body
    assert "Nothing was measured but its size" in body
    report = {"model": 'x: "y"', "recipe": "r", "metrics": {"m": {"before": 1.0, "after": 0.5}}}
    made = model_card(prunekit.Plan.from_json((folder / "plan.json").read_text()), report, {}, "")
    assert yaml.safe_load(made.split("---\n")[1])["prunekit_base"] == 'x: "y"'
    assert "| m | 1.0000 | 0.5000 | -0.5000 |" in made


def test_a_page_is_made_again_for_an_older_folder_and_of_several_at_once(folder, tmp_path, capsys):
    for name in ("report.html", "README.md"):
        (folder / name).unlink()
    (folder / "masks.png").write_bytes(b"picture")
    assert run(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == str(folder / "report.html")
    page = Reader((folder / "report.html").read_text())
    assert "data:image/png;base64,cGljdHVyZQ==" in page.addresses
    assert run(["report", str(folder), str(folder), "--out", str(tmp_path / "both.html")]) == 0
    assert str(folder) in Reader((tmp_path / "both.html").read_text()).text
    assert run(["report", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_run_tells_its_scores_its_losses_and_its_command(tmp_path, capsys, monkeypatch):
    (tmp_path / "toy_paged.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    small = [f"--set={name}" for name in ("images=2", "val_images=2", "train_images=2", "epochs=2", "prune_steps=1")]
    command = ["prune", "python:toy_paged:net", "--recipe", "iterative", "--out", str(tmp_path / "out"), *small]
    assert run(command) == 0, capsys.readouterr().err
    story = json.loads((tmp_path / "out" / "page.json").read_text())
    plan = prunekit.Plan.from_json((tmp_path / "out" / "plan.json").read_text())
    for width in plan.widths:
        score = story["scores"][width.group]
        assert score["kept"] == width.after
        assert score["most_removed"] <= score["least_kept"]
        assert score["curve"] == sorted(score["curve"])
    (points,) = story["losses"].values()
    assert [point[0] for point in points] == [1, 2, 3, 4]
    page = Reader((tmp_path / "out" / "report.html").read_text())
    assert " ".join(["prunekit", *command]) in page.text
    assert "svg" in page.tags
    assert "latency is the median of" in page.text.lower()
    assert run(["explain", str(tmp_path / "out"), "--group", plan.widths[0].group]) == 0
    assert "greatest removed" in capsys.readouterr().out


def test_a_long_stage_is_thinned_evenly_and_keeps_its_end():
    told = Told()
    for step in range(1, 10 * STEPS):
        told.heard("train", step, {"loss": 1.0})
        told.heard("train", step, {})
    steps = [point[0] for point in told.losses["train"]]
    assert len(steps) <= STEPS
    assert steps == sorted(set(steps))
    assert steps[-1] == 10 * STEPS - 1
    assert steps[0] < 100
    assert Told.of(json.loads(json.dumps(told.values()))) == told


def test_the_front_is_what_no_other_is_smaller_and_better_than():
    points = [("a", 1.0, 0.5), ("b", 2.0, 0.4), ("c", 3.0, 0.9), ("d", 3.0, 0.8)]
    assert [name for name, *_ in front(points)] == ["a", "c"]
    assert pareto_chart(points[:1], "size", "metric", 0) == ""


def test_charts_take_the_colours_of_the_page_and_share_no_names():
    pytest.importorskip("matplotlib")
    losses = {"one": [[1, 0.5, 0.1], [2, 0.4, 0.1]]}
    first, second = losses_chart(losses, 1), losses_chart(losses, 2)
    assert "var(--ink)" in first
    assert "#0102" not in first
    assert not set(re.findall(r'\bid="([^"]*)"', first)) & set(re.findall(r'\bid="([^"]*)"', second))
    for name in re.findall(r'(?:url\(|href=")#([^")]*)', first):
        assert f'id="{name}"' in first


@pytest.mark.parametrize(
    ("group", "block"),
    [
        ("blocks.3.attn.qkv.weight:0", "blocks.3"),
        ("layer1.0.conv1.weight:0", "layer1"),
        ("patch.proj.weight:0", "patch"),
    ],
)
def test_a_group_stands_in_the_block_of_its_first_tensor(group, block):
    assert block_of(group) == block
