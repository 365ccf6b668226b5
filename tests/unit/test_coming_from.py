"""docs/coming-from-torch-pruning.md: every pair runs with both libraries, and no argument or importance is left out."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

tp = pytest.importorskip("torch_pruning")

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-torch-pruning.md"
TEXT = PAGE.read_text()
SECTIONS = re.findall(r"## ([^\n]+)\n((?:(?!\n## ).)*?```python.*?)(?=\n## |\Z)", TEXT, re.S)
PAIRS = {title: re.findall(r"```python\n(.*?)```", body, re.S) for title, body in SECTIONS}
# both libraries end at the same sizes; the others count, keep or only train
SAME = {
    "One cut",
    "A ratio for one layer",
    "In steps, with training between them",
    "Units that you name",
    "Taylor, with a loss",
}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return self.fc(x.mean((2, 3)))


def fresh():
    torch.manual_seed(0)
    return Small().eval()


def executed(code):
    """The names after the code has run on a fresh network."""
    torch.manual_seed(1)
    names = {"model": fresh(), "fresh": fresh, "x": torch.randn(2, 3, 8, 8), "target": torch.tensor([1, 2])}
    names |= {"loss": nn.functional.cross_entropy, "finetune": lambda model: names.setdefault("tuned", []).append(1)}
    exec(compile(code, PAGE.name, "exec"), names)
    return names


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore::UserWarning:torch_pruning.*", "ignore::DeprecationWarning:torch_pruning.*")
@pytest.mark.parametrize("title", PAIRS)
def test_a_pair_runs_with_both_and_does_the_same(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs, ours = (executed(code) for code in PAIRS[title])
    if title in SAME:
        assert shapes(ours["model"]) == shapes(theirs["model"])
        assert shapes(ours["model"]) != shapes(fresh())
        assert ours.get("tuned") == theirs.get("tuned")
    elif title == "Counting":
        assert ours["params"] == theirs["params"]
    elif title == "Sparse training":
        assert all(names["model"].conv1.weight.grad.abs().sum() > 0 for names in (theirs, ours))
    else:
        assert ours["model"](ours["x"]).shape == theirs["model"](theirs["x"]).shape == (2, 10)


def test_all_pairs_are_there_and_are_pairs():
    assert set(PAIRS) > SAME
    for title, codes in PAIRS.items():
        assert [code.split("\n")[0] for code in codes] == ["# Torch-Pruning", "# prunekit"], title


def test_every_argument_and_every_importance_is_mapped():
    taken = set(inspect.signature(tp.pruner.BasePruner.__init__).parameters) - {"self"}
    classes = {
        name for name, value in vars(tp.importance).items() if inspect.isclass(value) and name.endswith("Importance")
    }
    rows = {word for row in re.findall(r"^\| (`.*?) \|", TEXT, re.M) for word in re.findall(r"\w+", row)}
    assert taken - rows == set()
    assert classes - {"Importance"} - rows == set()
