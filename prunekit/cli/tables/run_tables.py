"""How a run looks when it is done: a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prunekit.pages.report_figures import checks_said
from prunekit.quantities.units import milliseconds, unit_for

COUNTED = {"params": "parameters", "macs": "MACs", "layer_macs": "layer MACs"}


def show_report(console: Console, report: Mapping[str, Any], out: Path) -> None:
    """The before/after table, and where the files are."""
    show_counts(console, report)
    for note in (n for stage in report["stages"] for n in stage.get("allocation", ()) if n.startswith("latency")):
        console.print(note, soft_wrap=True)  # what a limit on time was held against
    console.print(f"verified  {checks_said(report['verify'])}", style="dim", soft_wrap=True)
    console.print("MACs: all multiply-adds; layer MACs: convolution and linear layers only", style="dim")
    mention(console, report["skipped"], "listed in report.json")
    console.print(f"kept in {out} after {report['seconds']:.0f} s", soft_wrap=True)


def show_counts(console: Console, report: Mapping[str, Any], title: str | None = None) -> None:
    """Counts, latency and metrics before and after; ``title`` says of what, "" where that is said already.

    A report of a recipe knows.
    """
    said = f"{report['model']}  {report['recipe']} at {_asked(report)}" if title is None else title
    table = Table(title=said or None, title_justify="left")
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    part = report["part"] or "model"
    for key, label in COUNTED.items():
        _row(table, f"{part}: {label}", report[key])
    if "whole_params" in report and report["part"]:
        for key, label in COUNTED.items():
            _row(table, f"whole: {label}", report[f"whole_{key}"])
    if "latency_ms" in report:
        before, after = report["latency_ms"]["before"], report["latency_ms"]["after"]
        unit = milliseconds(max(before, after))
        table.add_row(f"{part}: {_latency_said(report)}", unit.said(before), unit.said(after), _change(before, after))
    for name, pair in report.get("metrics", {}).items():
        table.add_row(name, f"{pair['before']:.4f}", f"{pair['after']:.4f}", f"{pair['after'] - pair['before']:+.4f}")
    console.print(table)


def mention(console: Console, skipped: Mapping[str, Any], listed: str) -> None:
    """One line about the samples that could not be used, if there are any; ``listed`` says where the others are."""
    if skipped["count"]:
        first = skipped["items"][0]
        text = first["reason"] if first["name"] in first["reason"] else f"{first['name']}: {first['reason']}"
        line = f"skipped  {skipped['count']} unusable samples, {listed}; the first: {text}"
        console.print(line, style="yellow")


def _asked(report: Mapping[str, Any]) -> str:
    return f"ratio {report['ratio']}" if report["target"] is None else str(report["target"])


def _latency_said(report: Mapping[str, Any]) -> str:
    """The passes of a report are eager ones, which is said where a target is on those of another runner."""
    from prunekit.quantities.limits import PLAIN, parse_target

    limits = () if report.get("target") is None else parse_target(report["target"])
    return f"latency, {PLAIN}" if any(limit.runner not in (None, PLAIN) for limit in limits) else "latency"


def _row(table: Table, label: str, pair: Mapping[str, float]) -> None:
    before, after = pair["before"], pair["after"]
    unit = unit_for(max(before, after))
    table.add_row(label, unit.said(before), unit.said(after), _change(before, after))


def _change(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""
