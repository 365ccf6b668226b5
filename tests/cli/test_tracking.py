"""--track: a tracker of Accelerate hears every loss and the figures at the end; one that is not there is named."""

from __future__ import annotations

import pytest

from prunekit.cli.app import run

accelerate = pytest.importorskip("accelerate")

NET = (
    "import torch\nfrom torch import nn\n"
    "def net():\n    torch.manual_seed(0)\n"
    "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),"
    " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))\n"
)


class Heard:
    """A tracker that keeps what it is told."""

    def __init__(self, run_name):
        self.logged, self.config, self.done = [], {}, False
        Heard.last = self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.done = True


def test_a_tracker_hears_losses_figures_and_settings(tmp_path, monkeypatch, capsys):
    (tmp_path / "toy_tracked.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "wandb", Heard)
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: ["wandb"])
    small = [f"--set={name}" for name in ("images=2", "val_images=2", "train_images=2", "epochs=1", "prune_steps=1")]
    out = str(tmp_path / "out")
    code = run(["prune", "python:toy_tracked:net", "--recipe", "iterative", "--track", "wandb", "--out", out, *small])
    assert code == 0, capsys.readouterr().err
    told = Heard.last
    assert told.done
    assert told.config["epochs"] == 1
    assert [step for step, _ in told.logged] == list(range(1, len(told.logged) + 1))
    assert any(name.endswith("/loss") for _, values in told.logged for name in values)
    assert told.logged[-1][1]["params/after"] < told.logged[-1][1]["params/before"]


@pytest.mark.parametrize(("name", "said"), [("wandbb", "did you mean wandb"), ("mlflow", "pip install")])
def test_a_tracker_that_is_not_there_is_named(tmp_path, monkeypatch, capsys, name, said):
    monkeypatch.setattr(accelerate.tracking, "get_available_trackers", lambda: [])
    (tmp_path / "toy_untracked.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    assert run(["prune", "python:toy_untracked:net", "--track", name, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
