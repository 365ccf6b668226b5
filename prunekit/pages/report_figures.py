"""Figures of a report as people read them, whether a recipe or one call wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.quantities.units import Unit, milliseconds, unit_for

NAMES: Mapping[str, tuple[str, str]] = {
    "params": ("parameters", "count"),
    "macs": ("MACs", "count"),
    "layer_macs": ("layer MACs", "count"),
    "whole_params": ("parameters, whole model", "count"),
    "whole_macs": ("MACs, whole model", "count"),
    "whole_layer_macs": ("layer MACs, whole model", "count"),
    "memory": ("weights", "bytes"),
    "latency_ms": ("latency", "ms"),
}
Row = dict[str, str]


def figure_rows(report: Mapping[str, Any]) -> list[Row]:
    """label, before, after and change of every figure of ``report``."""
    found = []
    for name, (label, kind) in NAMES.items():
        pair = latency_of_report(report) if name == "latency_ms" else report.get(name)
        doubled = name.startswith("whole_") and not report.get("part")
        if pair and not doubled:
            found.append(_counted(label, pair, kind))
    for name, pair in report.get("metrics", {}).items():
        change = f"{pair['after'] - pair['before']:+.4f}"
        found.append(
            {"label": name, "before": f"{pair['before']:.4f}", "after": f"{pair['after']:.4f}", "change": change}
        )
    return found


def latency_of_report(report: Mapping[str, Any]) -> dict[str, float] | None:
    """Milliseconds before and after, where they were measured."""
    if report.get("latency_ms"):
        return {side: float(report["latency_ms"][side]) for side in ("before", "after")}
    took = report.get("latency")
    return None if not took else {side: 1e3 * float(took[side]) for side in ("before", "after")}


def budget_of(report: Mapping[str, Any]) -> str:
    """What was asked to go."""
    if report.get("target") is not None:
        return f"within {report['target']}"
    ratio = report.get("ratio")
    if isinstance(ratio, Mapping):
        return f"at ratio {', '.join(f'{share} of {role}' for role, share in ratio.items())}"
    return f"at ratio {ratio}" if ratio is not None else ""


def notes_of(report: Mapping[str, Any], story: Mapping[str, Any]) -> list[str]:
    """What the reader of the figures has to know."""
    found = []
    spread = report.get("latency_range_ms")
    if spread:
        each = [f"{side} {spread[side][0]:.1f} to {spread[side][1]:.1f} ms" for side in ("before", "after")]
        found.append(
            f"Latency is the median of {spread['runs']} runs on {report.get('device', 'cpu')}: {', '.join(each)}."
        )
    val = story.get("samples", {}).get("val")
    if val:
        kind = "generated samples, which say little about real data" if val["generated"] else "samples of the data"
        found.append(
            f"Metrics are means over {val['count']} {kind}; one run, seed {report.get('settings', {}).get('seed', 0)}."
        )
    if checks := checks_said(report.get("verify", {})):
        found.append(f"Checked: {checks}.")
    return found


def checks_said(verify: Mapping[str, Any]) -> str:
    """What the checks of a run found, in one line; lists of what broke are left out where nothing did."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_in_short(value)}" for name, value in verify.items() if value not in ([], None)
    )


def _in_short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def unit_of(kind: str, largest: float) -> Unit:
    """The unit for figures of a kind of NAMES whose largest is ``largest``."""
    return milliseconds(largest) if kind == "ms" else unit_for(largest, in_bytes=kind == "bytes")


def _counted(label: str, pair: Mapping[str, float], kind: str) -> Row:
    before, after = pair["before"], pair["after"]
    change = f"{100 * (after / before - 1):+.1f} %" if before else ""
    unit = unit_of(kind, max(before, after))
    return {"label": label, "before": unit.said(before), "after": unit.said(after), "change": change}
