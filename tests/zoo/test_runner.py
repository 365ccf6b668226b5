"""The runner of ``make zoo``: what a model does to its own process never ends the run."""

from __future__ import annotations

import json

import pytest

from benchmarks.zoo import report
from benchmarks.zoo.__main__ import main
from benchmarks.zoo.row import measure
from benchmarks.zoo.rows import ListError, builder, read_rows
from benchmarks.zoo.runner import Limits, run_row, run_rows

BUILDER = """
import os, signal
import torch
from torch import nn


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        if x.shape[0] > 1:
            raise RuntimeError("one at a time")
        return self.fc(x)


def make_inputs(entry, batch=1):
    return torch.randn(batch, 4)


def build(entry):
    kind = entry["kind"]
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while kind == "loop":
        pass
    if kind == "memory":
        held = [bytearray(b"x" * (1 << 28)) for _ in range(40)]
    sizes = {"refused": [4, 2], "small": [4, 6, 400]}.get(kind, [4, 32, 2])
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.ReLU())][:-1]
    return Fails() if kind == "fails" else nn.Sequential(*layers).eval(), make_inputs(entry)
"""
KINDS = ["ok", "refused", "crash", "fails"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "zoo.py").write_text(BUILDER)
    rows = [{"name": k, "kind": k} for k in (*KINDS, "loop", "memory")]
    rows += [{"name": "old", "kind": "ok", "broken": "by its library"}, {"name": "big", "kind": "ok", "heavy": True}]
    (folder / "zoo.json").write_text(json.dumps(rows))
    return folder / "zoo.json"


@pytest.fixture(scope="module")
def run(path):
    """One run of the whole command over rows that end in every way."""
    out = path.with_name("report.json")
    main(["--list", str(path), "--only", "|".join((*KINDS, "old")), "--jobs", "2", "--out", str(out)])
    return json.loads(out.read_text()), out


@pytest.mark.sweep
def test_every_row_ends_by_its_own_doing(run):
    rows = {name: record["prunekit"] for name, record in run[0]["rows"].items()}
    assert {name: r["status"] for name, r in rows.items()} == {
        "ok": "ok",
        "refused": "refused",
        "crash": "failed",
        "fails": "failed",
    }
    assert "NothingToPruneError" in rows["refused"]["error"]
    assert rows["crash"]["stage"] == "baseline"
    assert "SIGSEGV" in rows["crash"]["error"]
    assert "one at a time" in rows["fails"]["error"]
    assert rows["ok"]["symmetry"] == "passed"
    assert rows["ok"]["removed"] > 0.4
    assert 0 < rows["ok"]["seconds"] < rows["ok"]["cpu_seconds"]


@pytest.mark.sweep
def test_the_report_names_counts_versions_and_reasons(run):
    told, out = run
    assert told["summary"]["status"] == {"ok": 1, "refused": 1, "failed": 2}
    assert told["skipped"] == {"old": "broken in its library: by its library"}
    assert {"torch", "prunekit", "python"} <= told["versions"].keys()
    assert told["date"]
    page = out.with_suffix(".md").read_text()
    assert str(out.parent) not in page + json.dumps(told), "no path of a machine"
    assert "- 4 rows: 2 failed, 1 ok, 1 refused" in page
    assert "- refused: refused: prune: NothingToPruneError" in page
    assert "- old: broken in its library" in page


@pytest.mark.sweep
def test_resume_runs_only_what_is_missing(path, run, monkeypatch):
    rows = [r for r in read_rows(path) if r.name in KINDS]
    done = {name: record for name, record in run[0]["rows"].items() if name != "ok"}
    again = {row.name: record for row, record in run_rows(rows, {"prunekit": Limits()}, path, 1, done)}
    assert set(again) == {"ok"}
    assert again["ok"]["prunekit"]["status"] == "ok"


@pytest.mark.sweep
def test_a_loop_and_a_flood_are_ended(path):
    found = run_row("prunekit", path, "loop", Limits(cpu=5))
    assert found == {"status": "failed", "stage": "baseline", "error": "passed 5 CPU seconds"}
    found = run_row("prunekit", path, "memory", Limits(memory=2500))
    assert found == {"status": "failed", "stage": "baseline", "error": "passed 2500 MB of memory"}
    found = run_row("prunekit", path, "loop", Limits(wall=1))
    assert found["error"] == "passed 1 seconds on the clock"


def test_the_rule(path):
    """A tool that does nothing, changes outputs, or changes what it refuses, is told apart from one that prunes."""
    from prunekit.errors import PlanError

    zoo = builder(path)

    def widen(model, x, entry, rebuild):
        model.append(zoo.nn.Linear(2, 3))
        return {}

    def spoil(model, x, entry, rebuild):
        model[0].weight.data[0, 0] += 1
        raise PlanError("no")

    def refuse(model, x, entry, rebuild):
        raise PlanError("no")

    def left_alone(model, x, entry, rebuild):
        model[0], model[2] = zoo.nn.Linear(4, 8), zoo.nn.Linear(8, 2)
        return {"symmetry": "broken", "left_alone": ["0.weight:0"]}

    tools = {"no-op": lambda *_: {}, "wrong": widen, "wrong ": spoil, "refused": refuse, "failed": left_alone}
    for status, tool in tools.items():
        assert measure(tool, zoo, {"name": "ok", "kind": "ok"})["status"] == status.strip()


def test_rows_are_chosen_by_name_and_weight(path):
    assert [r.name for r in read_rows(path, "^(ok|big)$")] == ["ok"]
    assert [r.name for r in read_rows(path, heavy=True)] == ["big"]
    with pytest.raises(ListError, match="put the folder shared/zoo beside the checkout"):
        read_rows(path.with_name("none.json"))
    with pytest.raises(ListError, match=r"no zoo\.py"):
        builder(path.parent / "other" / "zoo.json")


def test_medians_are_over_rows_that_both_complete():
    ours = {"status": "ok", "seconds": 1.0, "seconds_verified": 2.0, "removed": 0.5}
    rows = {
        "a": {"prunekit": ours, "torch-pruning": {"status": "ok", "seconds": 3.0}},
        "b": {"prunekit": ours, "torch-pruning": {"status": "ok", "seconds": 5.0}},
        "c": {"prunekit": ours, "torch-pruning": {"status": "failed"}},
        "d": {"prunekit": {"status": "refused"}, "torch-pruning": {"status": "ok", "seconds": 9.0}},
    }
    told = report.summary(rows)
    assert (told["both"], told["faster"], told["faster_range"], told["faster_verified"]) == (2, 4.0, [3.0, 5.0], 2.0)
    assert told["other"] == {"ok": 3, "failed": 1}
    assert len(report.table(rows).columns) == 11


def test_a_row_that_is_refused_at_first_and_pruned_then_has_failed(path, monkeypatch):
    import prunekit
    from benchmarks.zoo.tools import TOOLS
    from prunekit.errors import PlanError

    plain = prunekit.prune

    def moody(model, *args, verify="auto", **kwargs):
        if verify == "shapes":
            raise PlanError("not today")
        return plain(model, *args, verify=verify, **kwargs)

    monkeypatch.setattr(prunekit, "prune", moody)
    found = measure(TOOLS["prunekit"], builder(path), {"name": "ok", "kind": "ok"})
    assert found["status"] == "failed"
    assert "left something behind" in found["error"]
