"""A recipe whose target is spent by measured damage: the run says what it measured, and keeps it where it is kept."""

from __future__ import annotations

import torch
from support.small_runs import network

import prunekit
from prunekit.recipes import override
from prunekit.recipes.oneshot import ONESHOT
from prunekit.runs import run
from prunekit.scorers import Magnitude


def test_a_run_measures_says_so_and_keeps_damages_where_it_is_kept(tmp_path):
    settings = {"images": 2, "val_images": 2, "allocation": "measured", "latency": False, "verify": "shapes"}
    found = []

    def listen(event):
        found.extend(file.name for file in tmp_path.rglob("damages.json") if file.name not in found)

    recipe = override(ONESHOT, settings)
    torch.manual_seed(0)
    result = run(network(), recipe, Magnitude(), target="params<=75%", listen=listen, folder=tmp_path / "run")
    (told,) = [stage["allocation"] for stage in result.report["stages"] if "allocation" in stage]
    assert "forward passes" in told[0]
    params = result.report["params"]
    assert params["after"] <= 0.75 * params["before"]
    assert found == ["damages.json"]
    prunekit.save(result, tmp_path / "out")
    assert "forward passes" in (tmp_path / "out" / "report.html").read_text()
