"""The Python of README and docs is run as it stands, but for counts of what is tried, statement by statement.

The model is one of the test's own.
"""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
import timm
import torch
from support.timers import FakeTimer

import prunekit
from prunekit.operators import TABLE
from prunekit.quantities.stopwatch import Clock

REPOSITORY = Path(__file__).parents[2]
ELSEWHERE = {
    "docs/coming-from-torch-pruning.md": "runs with both libraries, see tests/unit/test_coming_from.py",
    "docs/architecture.md": "a list of signatures, held by tests/unit/test_architecture.py",
    "docs/data.md": "reads tars, see plugins/sam/tests/test_data.py",
    "docs/experts.md": "needs a mixture, see tests/unit/test_experts.py",
    "docs/offloading.md": "needs a model in a file, see tests/unit/test_offloading.py",
    "docs/export.md": "reads what a run exported, see plugins/sam/tests/test_export.py",
    "docs/ultralytics.md": "needs ultralytics, see tests/zoo/test_ultralytics.py",
    "docs/training.md": "is called in several processes, see tests/unit/test_shared_calibration.py",
    "docs/latency_targets.md": "reads a table kept by an earlier call, see tests/unit/test_latency.py",
}
SNIPPETS = [
    (str(path.relative_to(REPOSITORY)), code)
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    if str(path.relative_to(REPOSITORY)) not in ELSEWHERE
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.S)
]


FEW = prunekit.Measured(widths=(0.5,), samples=2, sets=2, rounds=0)  # what "measured" means here


def small(*names, **more):
    """What the snippets are run on: a vision transformer of the same kind, small enough for a test."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 10}
    model = timm.models.VisionTransformer(**sizes, **more).eval()
    model.pretrained_cfg = {"input_size": (3, 32, 32)}
    return model


def train(model, step, steps):
    assert 1 <= step <= steps


@pytest.mark.parametrize(("where", "code"), SNIPPETS, ids=[f"{where} {n}" for n, (where, _) in enumerate(SNIPPETS)])
def test_a_snippet_runs(where, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm, "create_model", small)
    fake = FakeTimer()  # seconds are measured elsewhere
    monkeypatch.setattr(Clock, "seconds", lambda clock, run, device: fake.seconds(run, device))
    monkeypatch.setattr("prunekit.checkpoints.saving.check_spec", lambda *given: None)  # the spec is of the large one
    few = tuple(getattr(FEW, each.name) for each in fields(FEW))
    monkeypatch.setattr(prunekit.Measured.__init__, "__defaults__", few)
    photos = [torch.randn(1, 3, 32, 32) for _ in range(4)]
    names = {"prunekit": prunekit, "timm": timm, "photos": photos, "train": train, "model": small()}
    names |= {"images": torch.cat(photos), "inputs": photos[0], "samples": photos, "validation": photos}
    names["accuracy"] = lambda model, images: float(model(images[0]).detach().mean())
    for statement in ast.parse(code.replace("trials=200", "trials=4")).body:
        calls = [
            node.func.attr for node in ast.walk(statement) if isinstance(node, ast.Call) and hasattr(node.func, "attr")
        ]
        if "prune" in calls and isinstance(statement, ast.Expr):
            names["model"] = small()  # each of a list of calls is on a model of its own
        exec(compile(ast.Module([statement], []), where, "exec"), names)


def test_there_are_snippets_and_none_is_left_out():
    assert sum(where == "README.md" for where, _ in SNIPPETS) == 3
    assert any(where == "docs/operators.md" for where, _ in SNIPPETS)
    assert "gatelib.gated" not in TABLE
