"""The report: a table for people, JSON for programs, a page for docs/."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from rich.table import Table

Rows = Mapping[str, Mapping[str, Any]]  # row name -> tool -> record
PACKAGES = ("torch", "torchvision", "timm", "transformers", "segment-anything", "prunekit", "torch-pruning")
OTHER = "torch-pruning"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def header(command: str) -> dict[str, Any]:
    today = datetime.date.today().isoformat()
    return {"date": today, "versions": versions(), "cores": os.cpu_count(), "command": command}


def summary(rows: Rows) -> dict[str, Any]:
    """Counts by status, and how many times faster than the other tool, in the median of the rows both complete."""
    ours = {n: r["prunekit"] for n, r in rows.items() if "prunekit" in r}
    found: dict[str, Any] = {"rows": len(ours), "status": dict(Counter(r["status"] for r in ours.values()))}
    timed = {n: r for n, r in ours.items() if "seconds" in r and "seconds_verified" in r}
    if timed:
        slowest = sorted(timed, key=lambda n: -timed[n]["seconds_verified"])[:5]
        found["slowest"] = {n: timed[n]["seconds_verified"] for n in slowest}
        extra = [r["seconds_verified"] - r["seconds"] for r in timed.values()]
        found["symmetry_seconds"] = {"median": round(statistics.median(extra), 2), "all": round(sum(extra), 1)}
    theirs = {n: r[OTHER] for n, r in rows.items() if OTHER in r}
    if theirs:
        found["other"] = dict(Counter(r["status"] for r in theirs.values()))
        both = [n for n in theirs if theirs[n]["status"] == "ok" and ours.get(n, {}).get("status") == "ok"]
        if both:
            found |= _against(both, ours, theirs)
    return found


def _against(both: Sequence[str], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    ratios = [theirs[n]["seconds"] / ours[n]["seconds"] for n in both]
    verified = [theirs[n]["seconds"] / ours[n]["seconds_verified"] for n in both]
    return {
        "both": len(both),
        "faster": round(statistics.median(ratios), 2),
        "faster_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "faster_verified": round(statistics.median(verified), 2),
        "total_seconds": {
            OTHER: round(sum(theirs[n]["seconds"] for n in both), 1),
            "prunekit": round(sum(ours[n]["seconds"] for n in both), 1),
        },
    }


def one_line(record: Mapping[str, Mapping[str, Any]]) -> str:
    """What the progress of a run says of a row."""
    return "   ".join(
        f"{tool} {r['status']} {_share(r.get('removed'))} {_seconds(r.get('seconds'))}".rstrip()
        for tool, r in record.items()
    )


def _cells(name: str, record: Mapping[str, Mapping[str, Any]]) -> list[str]:
    ours, theirs = record.get("prunekit", {}), record.get(OTHER)
    cells = [
        name,
        str(ours.get("status", "")),
        _share(ours.get("removed")),
        _verification(ours),
        _seconds(ours.get("seconds")),
        _seconds(ours.get("seconds_verified")),
        str(ours.get("peak_rss_mb", "")),
    ]
    if theirs is not None:
        same = theirs.get("status") == ours.get("status") == "ok"
        ratio = f"{theirs['seconds'] / ours['seconds']:.1f}" if same else ""
        cells += [str(theirs.get("status", "")), _share(theirs.get("removed")), _seconds(theirs.get("seconds")), ratio]
    return cells


def _verification(record: Mapping[str, Any]) -> str:
    if "symmetry" not in record:
        return ""
    error = record.get("symmetry_error")
    text = "passed" if record["symmetry"] == "passed" else f"{len(record.get('left_alone', []))} left alone"
    return f"{text} ({error:.0e})" if isinstance(error, float) else text


def _share(value: Any) -> str:
    return f"{value:.0%}" if isinstance(value, float) else ""


def _seconds(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else ""


COLUMNS = ["row", "status", "removed", "symmetry", "s", "s verified", "peak MB"]
OTHER_COLUMNS = ["Torch-Pruning", "its removed", "its s", "x faster"]


def columns(rows: Rows) -> list[str]:
    return COLUMNS + (OTHER_COLUMNS if any(OTHER in r for r in rows.values()) else [])


def table(rows: Rows) -> Table:
    found = Table(title="prunekit on the zoo")
    for name in columns(rows):
        found.add_column(name, overflow="fold")
    for name in sorted(rows):
        cells = _cells(name, rows[name])
        cells[3] = cells[3].split(" (")[0]  # the error is in the files; a terminal is narrow
        found.add_row(*cells)
    return found


RULE = """\
A row is **ok** if `prunekit.prune(model, example_inputs, ratio=0.5)` leaves a model that runs forward and backward,
also at another batch size (full-size rows: not tried), with outputs that are finite and of unchanged shape, with at
least 20 % of the parameters gone, and if symmetry verification passed before the cut. **refused**: a typed error, the
model bit-identical. **no-op**: less removed. **wrong**: output shapes, or a refused model, changed. **failed**: all
else.

**s** is trace + plan + apply, in CPU seconds on one thread, on a newly built model (`verify="shapes"`); **s
verified** is the whole call with `verify="full"` on another one, after it in the same process. Symmetry verification,
which runs the model twice on perturbed weights, is thus extra. Torch-Pruning's seconds are its build + prune, in a
process of its own on the same core; it verifies nothing. Each tool prunes a tiny network before any clock starts."""


def markdown(rows: Rows, skipped: Mapping[str, str], head: Mapping[str, Any]) -> str:
    """The page for docs/."""
    told = summary(rows)
    built = ", ".join(f"{k} {v}" for k, v in head["versions"].items())
    lines = ["# The zoo: what is pruned with nothing configured", ""]
    lines += [f"{head['date']}, {head['cores']} cores, {built}.", "", f"    {head['command']}", "", RULE, ""]
    lines += ["## Result", "", *_result(told), "", "## Rows", ""]
    lines += ["| " + " | ".join(columns(rows)) + " |", "|" + "---|" * len(columns(rows))]
    lines += ["| " + " | ".join(_cells(n, rows[n])) + " |" for n in sorted(rows)]
    lines += _reasons(rows, "prunekit", "Not ok, and why") + _reasons(rows, OTHER, "Torch-Pruning: not ok, and why")
    if skipped:
        lines += ["", "## Not run", ""] + [f"- {n}: {reason}" for n, reason in sorted(skipped.items())]
    return "\n".join(lines) + "\n"


def _result(told: Mapping[str, Any]) -> list[str]:
    lines = [f"- {told['rows']} rows: " + ", ".join(f"{v} {k}" for k, v in sorted(told["status"].items()))]
    if "slowest" in told:
        cost = told["symmetry_seconds"]
        lines += ["- slowest, verified, CPU s: " + ", ".join(f"{k} {v:.1f}" for k, v in told["slowest"].items())]
        lines += [f"- symmetry verification costs {cost['median']} s in the median, {cost['all']} s on all rows"]
    if "other" in told:
        lines.append("- Torch-Pruning: " + ", ".join(f"{v} {k}" for k, v in sorted(told["other"].items())))
    if "both" in told:
        (low, high), total, median = told["faster_range"], told["total_seconds"], told["faster"]
        lines += [
            f"- on the {told['both']} rows that both complete, Torch-Pruning's seconds / prunekit's: median {median}"
            f" ({low} to {high}), with symmetry verification {told['faster_verified']}",
            f"- those rows together: Torch-Pruning {total[OTHER]} s, prunekit {total['prunekit']} s",
        ]
    return lines


def _reasons(rows: Rows, tool: str, title: str) -> list[str]:
    found = [
        f"- {n}: {r[tool]['status']}: {_reason(r[tool])}"
        for n, r in sorted(rows.items())
        if r.get(tool, {}).get("status", "ok") != "ok"
    ]
    return ["", f"## {title}", "", *found] if found else []


def _reason(record: Mapping[str, Any]) -> str:
    text = f"{record.get('stage', '')}: " + " ".join(str(record.get("error", "")).split())[:300]
    return f"{text} [{record['where']}]" if record.get("where") else text
