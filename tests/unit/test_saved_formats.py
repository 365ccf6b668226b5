"""Folders and plans that 0.1.0 saved still load, and mean the same."""

import json
from pathlib import Path

import torch
from support.kept_model import Kept

import prunekit

FOLDER = Path(__file__).parents[1] / "data" / "folder-0.1.0"
X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def test_a_folder_of_0_1_0_gives_the_same_outputs():
    with torch.no_grad():
        outputs = prunekit.load(FOLDER, Kept())(X)
    torch.testing.assert_close(outputs, torch.tensor(json.loads((FOLDER / "outputs.json").read_text())))


def test_a_plan_of_0_1_0_is_read_and_written_as_it_was():
    text = (FOLDER / "plan.json").read_text()
    plan = prunekit.Plan.from_json(text)
    assert plan.to_json() == text
    model = Kept().eval()
    prunekit.apply(model, plan)
    assert model.stem.out_channels < 12
    assert model(X).shape == (2, 5)
