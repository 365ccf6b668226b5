"""``prunekit trace``: what a model consists of, before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import busy, speaker
from prunekit.cli.loading.building import build_model, check_seed_flag

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.coupling.groups import Group
    from prunekit.coupling.structure import Structure

SHOWN = 12  # parameters of a group that its panel lists


def show_structure(
    model: Annotated[str, typer.Argument(help="timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME.")],
    group: Annotated[str | None, typer.Option(help="Everything about this group.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .safetensors, .pth or .pt.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the structure as JSON, and nothing else.")] = False,
) -> None:
    """Show what a model consists of: groups, ties, what cannot shrink."""
    from prunekit.cli.console.notices import heard
    from prunekit.errors import RegistryError

    check_seed_flag(seed)
    console = speaker()
    shown = None if as_json else console
    with heard(shown):
        with busy(shown, f"building {model}"):
            built = build_model(model, checkpoint, seed)
        with busy(shown, "running it once on the meta device"):
            told = traced(built.model.get_submodule(built.part), model, built.part)
    if group is not None and group not in told["groups"]:
        raise RegistryError.unknown("group", group, told["groups"])
    if group is not None:
        told = {"model": model, "part": built.part, "groups": {group: told["groups"][group]}}
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1) + "\n")
    elif group is not None:
        show_group(console, group, told["groups"][group])
    else:
        _show_all(console, told)


def traced(part: Any, model: str, path: str) -> dict[str, Any]:
    """JSON values of the structure of ``part``. Raises TraceError and InputError."""
    from dataclasses import asdict

    from prunekit.api import trace

    structure: Structure = trace(part)
    ties: dict[str, list[str]] = {}
    for tie in structure.ties:
        for name in tie.groups:
            ties.setdefault(name, []).append(f"{', '.join(n for n in tie.groups if n != name)}: {tie.reason}")
    every = (*structure.groups, *structure.depth.groups)
    return {
        "model": model,
        "part": path,
        "cost": asdict(structure.cost()),
        "groups": {group.name: _group_row(group, ties.get(group.name, [])) for group in every},
        "ties": [{"groups": list(tie.groups), "reason": tie.reason} for tie in structure.ties],
        "frozen": [asdict(frozen) for frozen in (*structure.frozen, *structure.depth.frozen)],
        "unknown": dict(structure.unknown),
        "opaque": [str(each) for each in structure.trace.opaque],
    }


def _group_row(group: Group, ties: list[str]) -> dict[str, Any]:
    return {
        "role": str(group.role),
        "size": group.size,
        "block": group.block,
        "normalised": group.normalised,
        "reaches": [f"{member.tensor}:{member.axis}" for member in group.members],
        "ties": ties,
    }


def _show_all(console: Console, told: Mapping[str, Any]) -> None:
    from rich.table import Table

    from prunekit.cli.console.glossary import ROOM
    from prunekit.quantities.units import unit_for

    cost = told["cost"]
    params, macs = (unit_for(cost[name]).said(cost[name]) for name in ("params", "macs"))
    size = f"{params} parameters, {macs} multiply-adds"
    title = f"{told['model']}{' / ' + told['part'] if told['part'] else ''}  {size}"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("group", overflow="fold")
    table.add_column("role", overflow="fold")
    table.add_column("units", justify="right")
    table.add_column("axes", justify="right")
    has_room = console.width >= ROOM
    if has_room:
        table.add_column("block", overflow="fold")
    table.add_column("")
    for name, row in told["groups"].items():
        marks = [*(["tied"] if row["ties"] else []), *(["normalised"] if row["normalised"] else [])]
        cells = (name, row["role"], str(row["size"]), str(len(row["reaches"])), *([row["block"]] if has_room else []))
        table.add_row(*cells, ", ".join(marks), style=None)
    console.print(table)
    for frozen in told["frozen"]:
        line = f"frozen  {frozen['name']} ({frozen['size']}): {frozen['reason']}"
        console.print(line, style="dim", soft_wrap=True)
    for name, where in told["unknown"].items():
        line = f"no rule for {name}, met at {where}: docs/operators.md says how to bring one"
        console.print(line, style="yellow", soft_wrap=True)
    console.print("axes: parameter and buffer axes that shrink together; --group NAME lists them", style="dim")


def show_group(console: Console, name: str, row: Mapping[str, Any]) -> None:
    """Everything about one group, a line a fact."""
    reaches = list(row["reaches"])
    more = [f"and {len(reaches) - SHOWN} more (--json lists them all)"] if len(reaches) > SHOWN else []
    facts: list[tuple[str, str]] = [("group", name), ("role", row["role"]), ("units", str(row["size"]))]
    facts += [("block", row["block"])] if row.get("block") else []
    facts += [("cuts", where) for where in [*reaches[:SHOWN], *more]]
    facts += [("tied to", text) for text in row["ties"]]
    facts += [("", "a norm, softmax or mean reads it: removing a unit is not masking it")] if row["normalised"] else []
    last = ""
    for label, text in facts:
        shown = label if label != last else ""
        last = label
        console.print(f"{shown:<9}{text}", soft_wrap=True)
