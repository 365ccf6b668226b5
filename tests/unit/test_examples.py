"""Every script and notebook of docs/examples runs, in a folder of its own, and is in the list."""

import json
import re
import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS = {
    "accelerate_loop": ["accelerate"],
    "finetune_yolo": ["ultralytics"],  # make examples
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
    assert not (tmp_path / "slim").exists()  # README's own steps have a model there when they come to the examples


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch, capsys):
    """Cell by cell in one namespace, as a kernel does; it is kept without outputs, which would go stale."""
    monkeypatch.chdir(tmp_path)
    names = {}
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    for number, cell in enumerate(cells):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)


def test_every_example_is_in_the_list():
    said = re.findall(r"^\| `(\S+)`", (FOLDER / "README.md").read_text(), re.M)
    assert sorted(said) == sorted(path.name for path in [*SCRIPTS, *NOTEBOOKS])
