"""Pages of every kind that prunekit writes, made in seconds of small random networks, to be looked at in a browser."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import prunekit
from prunekit.cli.app import run
from prunekit.pages import report_page

SMALL = [f"--set={name}" for name in ("images=2", "val_images=2", "train_images=2", "epochs=2", "prune_steps=1")]


def convolutional() -> nn.Module:
    """What runs of the command prune here."""
    torch.manual_seed(0)
    wide = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*wide, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


class Residual(nn.Module):
    """A block that may go whole."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Routed(nn.Module):
    """Two of eight experts a row."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        gates, at = torch.topk(self.router(x).softmax(-1), 2, dim=-1)
        return torch.einsum("bk,bkij,bj->bi", gates, self.experts[at], x)


def _saved(folder: Path, model: nn.Module, inputs: Tensor, **asked: object) -> Path:
    return prunekit.save(prunekit.prune(model.eval(), inputs, **asked), folder) / "report.html"


def _told(*arguments: str) -> None:
    """A command that says nothing. Raises RuntimeError with what it said where it failed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run(list(arguments))
    if code:
        raise RuntimeError(f"prunekit {' '.join(arguments)} ended with {code}: {said.getvalue()}")


def _with_photos(folder: Path, run_folder: Path) -> Path:
    """A run's page as a plug-in that shows samples has it."""
    from PIL import Image

    picture = io.BytesIO()
    Image.linear_gradient("L").save(picture, format="PNG")
    png = base64.b64encode(picture.getvalue()).decode()
    shown = [{"caption": caption, "png": png, "figures": {"IoU": 0.5}} for caption in ("photo", "before", "after")]
    story = json.loads((run_folder / "page.json").read_text())
    story["exhibits"] = [{"name": f"sample {number}", "pictures": shown} for number in (1, 2)]
    plan = prunekit.Plan.from_json((run_folder / "plan.json").read_text())
    path = folder / "photos.html"
    path.write_text(report_page(plan, json.loads((run_folder / "report.json").read_text()), story))
    return path


def sample_pages(folder: Path) -> dict[str, Path]:
    """A page a kind, under ``folder``: of a call, depth, experts, a run, with photos, of an old folder, of several."""
    torch.manual_seed(0)
    wide = nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 2))
    deep = nn.Sequential(*(Residual() for _ in range(5)), nn.Linear(8, 3))
    mixture = nn.Sequential(nn.Linear(8, 8), Routed(), nn.Linear(8, 2))
    pages = {
        "call": _saved(folder / "call", wide, torch.randn(1, 32), ratio=0.5, scorer="magnitude"),
        "depth": _saved(
            folder / "depth", deep, torch.randn(2, 8), ratio={"depth.block": 0.4, "mlp.hidden": 0.5}, scorer="random"
        ),
        "experts": _saved(
            folder / "experts", mixture, torch.randn(4, 8), roles=["experts"], ratio=0.5, scorer="magnitude"
        ),
    }
    runs = [folder / f"run-{part}" for part in ("0.25", "0.5")]
    for at in runs:
        spec = "python:benchmarks.sample_pages:convolutional"
        _told("prune", spec, "--recipe", "iterative", "--ratio", at.name[4:], "--out", str(at), *SMALL)
    old = folder / "old"
    old.mkdir()
    for name in ("plan.json", "report.json", "model.safetensors"):
        (old / name).write_bytes((folder / "call" / name).read_bytes())
    _told("report", str(old))
    _told("report", *map(str, runs), "--out", str(folder / "several.html"))
    _told("report", str(runs[0]), str(folder / "call"), "--out", str(folder / "unlike.html"))
    pages |= {"run": runs[1] / "report.html", "old": old / "report.html", "photos": _with_photos(folder, runs[1])}
    return pages | {name: folder / f"{name}.html" for name in ("several", "unlike")}
