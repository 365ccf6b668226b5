"""Every script of docs/examples runs, in a folder of its own, and is in the list."""

import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
NEEDS = {
    "accelerate_loop": ["accelerate"],
    "lightning_callback": ["lightning"],  # make examples
    "quantise": ["torchao"],
    "trainer": ["transformers", "accelerate", "prunekit_hf"],
}


@pytest.mark.filterwarnings(
    "ignore::UserWarning:torch.utils.data.*", "ignore::UserWarning:transformers.*", "ignore:::lightning.*"
)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs_and_leaves_a_smaller_model(script, tmp_path, monkeypatch, capsys):
    for module in NEEDS.get(script.stem, []):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(script))
    report = names["result"].report
    assert report.params["after"] < report.params["before"]


def test_every_example_is_in_the_list():
    said = re.findall(r"^\| `(\S+)`", (FOLDER / "README.md").read_text(), re.M)
    assert sorted(said) == [script.name for script in SCRIPTS]
