"""prunekit plugins new: what it writes is a plug-in whose test passes, as a wheel in an environment of its own too."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import venv

import pytest

from prunekit.cli.app import run
from prunekit.plugins import Plugin


@pytest.fixture
def written(tmp_path, capsys):
    folder = tmp_path / "prunekit-mine"
    assert run(["plugins", "new", "mine", "--folder", str(folder), "--json"]) == 0
    assert "prunekit_mine/plugin.py" in json.loads(capsys.readouterr().out)["files"]
    return folder


def test_the_skeleton_is_a_plugin_whose_test_passes(written, monkeypatch):
    monkeypatch.syspath_prepend(written)
    assert isinstance(importlib.import_module("prunekit_mine.plugin").plugin, Plugin)
    tests = runpy.run_path(str(written / "tests" / "test_mine.py"))
    named = [test for name, test in tests.items() if name.startswith("test_")]
    assert len(named) == 2
    for test in named:
        test()
    for module in [name for name in sys.modules if name.startswith("prunekit_mine")]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("name", ["My Plug", "timm", "9lives", "a-b"])
def test_names_that_cannot_be_are_refused(tmp_path, capsys, name):
    assert run(["plugins", "new", name, "--folder", str(tmp_path / "p")]) == 2
    assert "next:" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_nothing_is_overwritten(written, capsys):
    assert run(["plugins", "new", "mine", "--folder", str(written)]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.timeout(600)
@pytest.mark.skipif(not os.environ.get("PRUNEKIT_WHEELS"), reason="builds wheels and an environment: make wheels")
def test_a_wheel_of_it_is_found_in_an_environment_of_its_own(written, tmp_path):
    """prunekit and the skeleton as wheels; torch and the rest come from the environment that runs this."""
    wheels = tmp_path / "wheels"
    repository = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels)]
    for source in (repository, written):
        subprocess.run([*build, str(source)], check=True)
    home = tmp_path / "env"
    venv.create(home, with_pip=True, system_site_packages=False)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *wheels.glob("*.whl")], check=True)
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    theirs = [path for path in sys.path if path.endswith("site-packages")]
    # after its own packages, and without the hooks by which this environment finds the sources
    with open(os.path.join(site.stdout.strip(), "zz_rest.pth"), "w") as file:
        file.write("\n".join(theirs) + "\n")
    command = [str(home / "bin" / "prunekit")]
    said = subprocess.run([*command, "list", "scorers", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert "mine_largest" in json.loads(said.stdout), said.stderr
    told = json.loads(
        subprocess.run([*command, "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path).stdout
    )
    assert {"name": "mine", "from": "prunekit-mine 0.1.0"}.items() <= next(
        row for row in told["plugins"] if row["name"] == "mine"
    ).items()
