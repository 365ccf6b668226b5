"""The worked diffs of CONTRIBUTING.md apply to this tree; the test that each brings passes with it, fails without."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()
DIFFS = dict(re.findall(r"^### (.+?)\n.*?^```diff\n(.*?)^```$", TEXT, re.M | re.S))
WANTED = ["An option", "A criterion", "An operator's rule", "A role", "A recipe"]


def touched(diff):
    return re.findall(r"^\+\+\+ b/(\S+)$", diff, re.M)


def brought_by(diff):
    return [path for path in touched(diff) if path.startswith("tests/")]


def applied(tree, diff, *more):
    command = ["git", "apply", *more, "-"]
    return subprocess.run(command, cwd=tree, input=diff, capture_output=True, text=True, check=False)


def outcomes(tree):
    """passed, failed or error by the file of each diff's test, run in the tree."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tree), str(tree / "plugins" / "sam")))}
    tests = [path for diff in DIFFS.values() for path in brought_by(diff)]
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=short", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    found = re.findall(r"^(PASSED|FAILED|ERROR) (\S+?\.py)", done.stdout, re.M)
    return {path: {how for how, of in found if of == path} for path in tests}, done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    copy = tmp_path_factory.mktemp("tree")
    skip = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.png")
    for part in ("prunekit", "plugins", "tests/support", "benchmarks"):
        shutil.copytree(REPOSITORY / part, copy / part, ignore=skip)
    shutil.copy(REPOSITORY / "pyproject.toml", copy)
    return copy


@pytest.mark.parametrize("kind", WANTED)
def test_a_diff_is_two_files_at_most_and_a_test_and_applies_by_itself(tree, kind):
    assert list(DIFFS) == WANTED
    assert len(brought_by(DIFFS[kind])) == 1
    assert len(touched(DIFFS[kind])) <= 3
    checked = applied(tree, DIFFS[kind], "--check")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.sweep  # two runs of pytest in a copy of the repository
def test_what_each_diff_promises_holds_with_it_and_not_without(tree):
    for diff in DIFFS.values():
        assert applied(tree, diff).returncode == 0
    found, said = outcomes(tree)
    assert all(how == {"PASSED"} for how in found.values()), said[-3000:]
    for diff in DIFFS.values():
        for path in touched(diff):
            if path not in brought_by(diff):
                original = REPOSITORY / path
                shutil.copy(original, tree / path) if original.is_file() else (tree / path).unlink()
    found, said = outcomes(tree)
    assert all("PASSED" not in how for how in found.values()), said[-3000:]
