"""``prunekit explain``: what a plan keeps of every group, and why the rest stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import loudness, speaker
from prunekit.cli.loading.folders import kept_in

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.plans.contents import Plan, Width


def explain(
    folder: Annotated[Path, typer.Argument(help="What `prunekit prune` wrote.")],
    group: Annotated[str | None, typer.Option(help="Everything about this group.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")] = False,
) -> None:
    """Say what was kept of every group of a pruned folder, and why."""
    from prunekit.errors import RegistryError

    console = speaker()
    plan, report, story = kept_in(folder)
    about = {each["name"]: each for each in story.get("groups", ())}
    rows = {width.group: _kept_row(width, about.get(width.group, {}), story) for width in plan.widths}
    if group is not None and group not in rows:
        raise RegistryError.unknown("group", group, rows)
    told = {
        "folder": str(folder),
        "model": report.get("model", ""),
        "groups": rows if group is None else {group: rows[group]},
        **({} if group else {"edits": _attributes_set(plan), "folds": len(plan.folds), "frozen": _frozen(plan)}),
    }
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1) + "\n")
    elif group is None:
        show_plan(console, told)
    else:
        _show_kept(console, group, rows[group])


def _kept_row(width: Width, about: Mapping[str, Any], story: Mapping[str, Any]) -> dict[str, Any]:
    score = story.get("scores", {}).get(width.group)
    gone = sorted({*range(width.before)} - {*width.kept})
    return {
        "role": width.role,
        "before": width.before,
        "after": width.after,
        "block": about.get("block", ""),
        "removed": gone,
        "reaches": about.get("reaches", []),
        "ties": about.get("ties", []),
        "normalised": about.get("normalised", False),
        **({"score": score} if score else {}),
    }


def _attributes_set(plan: Plan) -> list[str]:
    at = [f"{e.attribute}{'' if e.index is None else f'[{e.index}]'}" for e in plan.edits]
    return [f"{e.module}.{name}: {e.before:g} -> {e.after:g}" for e, name in zip(plan.edits, at, strict=True)]


def _frozen(plan: Plan) -> list[dict[str, Any]]:
    return [{"name": f.name, "size": f.size, "reason": f.reason, "where": f.where} for f in plan.frozen]


def plan_rows(plan: Plan, model: str) -> dict[str, Any]:
    """What ``show_plan`` shows of a plan alone."""
    rows = {width.group: _kept_row(width, {}, {}) for width in plan.widths}
    return {
        "model": model,
        "groups": rows,
        "edits": _attributes_set(plan),
        "folds": len(plan.folds),
        "frozen": _frozen(plan),
    }


def show_plan(console: Console, told: Mapping[str, Any]) -> None:
    """Every group with what is kept of it, what is frozen and why."""
    from rich.table import Table

    table = Table(title=f"{told['model'] or told['folder']}", title_justify="left", box=None, header_style="bold")
    table.add_column("group", overflow="fold")
    table.add_column("role", overflow="fold")
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("kept", justify="right")
    for name, row in told["groups"].items():
        share = f"{row['after'] / row['before']:.0%}"
        whole = row["after"] == row["before"]
        cells = (name, row["role"], f"{row['before']} -> {row['after']}", share)
        table.add_row(*cells, style="dim" if whole else None)
    console.print(table)
    if loudness().verbose:
        for text in told["edits"]:
            console.print(f"set  {text}", soft_wrap=True)
    elif told["edits"]:
        console.print(f"{len(told['edits'])} attributes of modules follow (-v lists them)", style="dim")
    if told["folds"]:
        console.print(f"{told['folds']} folds keep the function where a constant follows a width", style="dim")
    for frozen in told["frozen"]:
        line = f"frozen  {frozen['name']} ({frozen['size']}): {frozen['reason']}"
        console.print(line, style="dim", soft_wrap=True)


def _show_kept(console: Console, name: str, row: Mapping[str, Any]) -> None:
    from prunekit.cli.commands.tracing import show_group

    show_group(console, name, {**row, "size": f"{row['before']} -> {row['after']}"})
    gone = row["removed"]
    shown = ", ".join(map(str, gone[:20])) + (f", and {len(gone) - 20} more" if len(gone) > 20 else "")
    console.print(f"{'removed':<9}{shown or 'none'}", soft_wrap=True)
    if score := row.get("score"):
        least = "none" if score["least_kept"] is None else f"{score['least_kept']:.4g}"
        line = f"least kept {least}, greatest removed {score['most_removed']:.4g}"
        console.print(f"{'scores':<9}{line} ({score['stage']})", soft_wrap=True)
    elif gone:
        console.print(f"{'scores':<9}were not kept in this folder", style="dim")
