"""One page about several folders: a table, and what a metric costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunekit.pages.charts import pareto_chart
from prunekit.pages.report_figures import NAMES, budget_of, latency_of_report, unit_of
from prunekit.pages.templates import rendered
from prunekit.quantities.units import Unit

SIZES = ("params", "macs", "latency_ms")


def comparison_page(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """HTML that compares the reports, by the names of their folders."""
    metric = next((str(r["metric"]["name"]) for r in reports.values() if (r.get("metric") or {}).get("name")), "")
    metrics = list(dict.fromkeys(name for report in reports.values() for name in report.get("metrics", {})))
    units = {size: _unit_of_all(size, reports) for size in SIZES}
    charts = [_chart(at, size, units[size], metric, reports) for at, size in enumerate(SIZES)] if metric else []
    originals = {str(report.get("model")) for report in reports.values()}
    notes = [] if len(originals) == 1 else ["These folders come from different models."]
    return rendered(
        "comparison.html",
        title="Pruned models compared",
        summary=f"{len(reports)} folders",
        columns=[*(NAMES[size][0] for size in SIZES), *metrics],
        rows=[_row_of(name, report, metrics, units) for name, report in reports.items()],
        charts=[chart for chart in charts if chart["svg"]],
        notes=notes,
        roles=[],
    )


def _unit_of_all(size: str, reports: Mapping[str, Mapping[str, Any]]) -> Unit:
    """One unit a column: of the largest original in it."""
    sides = [_size(report, size, side) for report in reports.values() for side in ("before", "after")]
    return unit_of(NAMES[size][1], max((value for value in sides if value is not None), default=0.0))


def _row_of(name: str, report: Mapping[str, Any], metrics: Sequence[str], units: Mapping[str, Unit]) -> dict[str, Any]:
    cells = []
    for size in SIZES:
        value, before = _size(report, size), _size(report, size, "before")
        change = f"{100 * (value / before - 1):+.0f} %" if value and before else ""
        cells.append({"value": "–" if value is None else units[size].said(value), "change": change})
    for metric in metrics:
        pair = report.get("metrics", {}).get(metric)
        cells.append({"value": "–" if pair is None else f"{pair['after']:.4f}", "change": ""})
    asked = f"{report.get('model', '')} {report.get('recipe', '')} {budget_of(report)}"
    return {"name": name, "asked": asked.strip(), "cells": cells}


def _chart(number: int, size: str, unit: Unit, metric: str, reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    from markupsafe import Markup

    label = NAMES[size][0]
    points = []
    for name, report in reports.items():
        value, pair = _size(report, size), report.get("metrics", {}).get(metric)
        if value is not None and pair is not None:
            points.append((name, value / unit.size, float(pair["after"])))
    whole = len(points) == len(reports)
    svg = pareto_chart(points, f"{label}, {unit.mark}".rstrip(", "), metric, number) if whole else ""
    return {"svg": Markup(svg), "said": f"{metric} against {label}"}


def _size(report: Mapping[str, Any], size: str, side: str = "after") -> float | None:
    pair = latency_of_report(report) if size == "latency_ms" else report.get(size)
    return None if not pair else float(pair[side])
