"""prunekit and its plug-ins as wheels and sdists, in an environment of their own: make wheels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"prunekit": ROOT, "prunekit_sam": ROOT / "plugins" / "sam", "prunekit_hf": ROOT / "plugins" / "hf"}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "site", "out", "__pycache__", "*.egg-info", "build", "*_cache")
# stands before everything else on the path of a process in which these cannot be imported
WITHOUT = "import sys\nfor name in {names!r}:\n    sys.modules[name] = None\n"
MINE = """from torch import nn


def net():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model.img_size = 16
    return model
"""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("PRUNEKIT_WHEELS"), reason="builds wheels and an environment: make wheels"),
]


def ran(*line, **more):
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Every sdist, and every wheel made out of its sdist: what the index would hold."""
    folder = tmp_path_factory.mktemp("dist")
    for name, source in SOURCES.items():
        copy = folder / "tree" / name
        shutil.copytree(source, copy, ignore=LEFT_OUT)
        make = "from setuptools import build_meta; build_meta.build_sdist(OUT)".replace("OUT", repr(str(folder)))
        ran(sys.executable, "-c", make, cwd=copy)
        (sdist,) = folder.glob(f"{name}-*.tar.gz")
        ran(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, sdist)
    return folder


@pytest.fixture(scope="module")
def home(built, tmp_path_factory):
    """An environment with the wheels; torch and the rest are lent by the one that runs this."""
    home = tmp_path_factory.mktemp("env")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    ran(python, "-m", "pip", "install", "--quiet", "--no-deps", *built.glob("*.whl"))
    site = Path(ran(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    (site / "zz_lent.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    return home


@pytest.mark.parametrize("name", SOURCES)
def test_a_wheel_and_an_sdist_hold_what_is_needed_and_no_tests(built, name):
    (wheel,), (sdist,) = built.glob(f"{name}-*.whl"), built.glob(f"{name}-*.tar.gz")
    inside = zipfile.ZipFile(wheel).namelist()
    assert f"{name}/py.typed" in inside
    assert not [each for each in inside if each.startswith(("tests/", "benchmarks/", "docs/"))]
    if name == "prunekit":
        pages = {f"prunekit/pages/{path.name}" for path in (ROOT / "prunekit" / "pages").glob("*.html")}
        assert pages <= {*inside}
        assert any(each.endswith("licenses/LICENSE") for each in inside)
    with tarfile.open(sdist) as packed:
        assert any(each.endswith("pyproject.toml") for each in packed.getnames())


def test_it_prunes_saves_loads_and_reports(home, tmp_path):
    prunekit = home / "bin" / "prunekit"
    assert ran(prunekit, "--version", cwd=tmp_path).startswith("prunekit ")
    where = ran(home / "bin" / "python", "-c", "import prunekit; print(prunekit.__file__)", cwd=tmp_path)
    assert where.startswith(str(home))
    few = ("--scorer", "magnitude", "--set=images=2", "--set=val_images=1", "--set=latency=false")
    ran(prunekit, "prune", "timm:resnet10t", "--ratio", "0.5", *few, "--out", "slim", "-q", cwd=tmp_path)
    code = "import prunekit, torch; print(prunekit.load('slim')(torch.zeros(1, 3, 64, 64)).shape)"
    assert "1000" in ran(home / "bin" / "python", "-c", code, cwd=tmp_path)
    assert (tmp_path / "slim" / "report.html").stat().st_size > 10_000
    ran(prunekit, "run", "slim/run.yaml", "--dry-run", "--json", cwd=tmp_path)
    plugins = json.loads(ran(prunekit, "doctor", "--json", cwd=tmp_path))["plugins"]
    assert {"sam", "hf"} <= {row["name"] for row in plugins if row["state"] == "loads"}


def test_prunekit_alone_says_which_extra_to_add(home, tmp_path):
    """Without what the extras bring timm is asked for by its extra, and a model of one's own is pruned all the same."""
    names = ["timm", "torchvision", "matplotlib", "PIL", "transformers", "accelerate"]
    (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(names=names))
    (tmp_path / "mine.py").write_text(MINE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    prunekit = home / "bin" / "prunekit"
    line = [str(prunekit), "prune", "timm:resnet18"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install 'prunekit[timm]'" in done.stderr
    few = ("--scorer", "magnitude", "--set=images=2", "--set=val_images=1", "--set=latency=false")
    ran(prunekit, "prune", "python:mine:net", *few, "--out", "slim", cwd=tmp_path, env=environment)
    assert (tmp_path / "slim" / "report.html").is_file()
