"""``prunekit diff``: two pruned folders side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import speaker
from prunekit.cli.loading.folders import kept_in

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.plans.contents import Plan

COUNTS = ("params", "macs", "layer_macs", "whole_params", "whole_macs", "latency_ms")
ASKED = ("model", "recipe", "ratio", "target", "scorer")


def diff(
    first: Annotated[Path, typer.Argument(help="What `prunekit prune` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another such folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON, and nothing else.")] = False,
) -> None:
    """Set two pruned folders side by side: settings, figures, widths."""
    console = speaker()
    (plan, report, _), (other_plan, other_report, _) = kept_in(first), kept_in(second)
    told = {
        "folders": [str(first), str(second)],
        "asked": _asked_differently(report, other_report),
        "figures": _figures_beside(report, other_report),
        "widths": _units_in_both(plan, other_plan),
        "same_original": plan.fingerprint == other_plan.fingerprint,
    }
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1) + "\n")
    else:
        _show_both(console, told)


def _asked_differently(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What was asked for differently: [first, second] by name."""
    pairs = {name: [one.get(name), other.get(name)] for name in ASKED}
    mine, theirs = one.get("settings", {}), other.get("settings", {})
    pairs |= {f"--set {name}": [mine.get(name), theirs.get(name)] for name in {**mine, **theirs}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _figures_beside(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Counts and metrics before pruning, and after in either folder."""
    rows = {}
    for name in COUNTS:
        doubled = name.startswith("whole_") and not (one.get("part") or other.get("part"))
        if (name in one or name in other) and not doubled:
            rows[name] = [one.get(name, {}), other.get(name, {})]
    for name in {**one.get("metrics", {}), **other.get("metrics", {})}:
        rows[name] = [report.get("metrics", {}).get(name, {}) for report in (one, other)]
    return {
        name: {"before": next((p["before"] for p in pair if p), None), "after": [p.get("after") for p in pair]}
        for name, pair in rows.items()
    }


def _units_in_both(one: Plan, other: Plan) -> dict[str, dict[str, Any]]:
    """Groups whose kept units differ, with how many both keep."""
    mine, theirs = ({w.group: w for w in plan.widths} for plan in (one, other))
    rows = {}
    for name in {**mine, **theirs}:
        pair = [mine.get(name), theirs.get(name)]
        kept = [None if width is None else set(width.kept) for width in pair]
        if kept[0] == kept[1]:
            continue
        known = next(width for width in pair if width is not None)
        both = None if None in kept else len((kept[0] or set()) & (kept[1] or set()))
        after = [None if each is None else len(each) for each in kept]
        rows[name] = {"role": known.role, "before": known.before, "after": after, "both": both}
    return rows


def _show_both(console: Console, told: Mapping[str, Any]) -> None:
    from rich.table import Table

    first, second = told["folders"]
    for name, pair in told["asked"].items():
        console.print(f"{name}: {' | '.join('-' if each is None else str(each) for each in pair)}", soft_wrap=True)
    table = Table("", "before", first, second, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in told["figures"].items():
        table.add_row(name.replace("_", " "), *(_cell_of(value) for value in (row["before"], *row["after"])))
    console.print(table)
    if not told["same_original"]:
        console.print("the originals have other shapes: groups of one name need not be the same", style="yellow")
    if not told["widths"]:
        console.print("both keep the same units of every group")
        return
    table = Table("group", "role", "before", first, second, "in both", box=None, header_style="bold")
    for column in table.columns[:2]:
        column.overflow = "fold"  # a name that is cut short names nothing
    for column in table.columns[2:]:
        column.justify = "right"
    for name, row in told["widths"].items():
        cells = (row["before"], *row["after"], row["both"])
        table.add_row(name, row["role"], *("-" if cell is None else str(cell) for cell in cells))
    console.print(table)


def _cell_of(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
