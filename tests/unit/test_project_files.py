"""What a project has beside its code says the same as the code."""

import tomllib
from pathlib import Path

import pytest

import prunekit

ROOT = Path(__file__).parents[2]
yaml = pytest.importorskip("yaml")


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == prunekit.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == prunekit.__version__


def test_issues_ask_for_what_the_doctor_says():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 2
    for form in forms:
        fields = {field["id"]: field for field in yaml.safe_load(form.read_text())["body"]}
        assert "prunekit doctor" in fields["doctor"]["attributes"]["label"]
        assert fields["doctor"]["validations"]["required"]


def test_the_workflow_runs_targets_that_are_there():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    makefile = (ROOT / "Makefile").read_text()
    for run in [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]:
        tool, _, target = run.partition(" ")
        assert (ROOT / target).is_file() if tool == "bash" else f"\n{target}:" in makefile, run
