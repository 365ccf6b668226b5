"""``prunekit apply``: a plan carried out on a model, and kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import busy, command_line, speaker
from prunekit.cli.loading.building import built_on, check_seed_flag, sample_count
from prunekit.errors import CheckpointError, DataError, VerificationError

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.coupling.structure import Structure
    from prunekit.plans.contents import Plan
    from prunekit.registry.building import Built


def apply_plan(
    plan: Annotated[Path, typer.Argument(help="What `prunekit plan` wrote, or a pruned folder, whose plan is taken.")],
    model: Annotated[str, typer.Argument(help="The model that it was made for, as prune takes it.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .safetensors, .pth or .pt.")] = None,
    compensate: Annotated[
        str | None, typer.Option(help="ridge or ridge-in-order: refit by least squares after the cut.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of images, or text, to refit on; without, generated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the result; appears only on success.")] = Path("out/pruned"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of everything random, a model without weights included.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Cut a model as a plan says, and keep it in a folder."""
    from prunekit.cli.console.notices import heard

    _check_apply(checkpoint, data, out, seed)
    made = _plan_in(plan)
    console = speaker()
    shown = None if as_json else console
    with heard(shown):
        built = built_on(device, model, checkpoint, seed, shown)
        with busy(shown, "cutting, and looking at what is left"):
            report = {"applied": str(plan), **_applied(built, made, compensate, data, seed)}
        with busy(shown, f"writing {out}"):
            _keep_applied(built, made, report, out)
    if as_json:
        import json

        console.file.write(json.dumps({**report, "out": str(out)}, indent=1) + "\n")
    else:
        _show_applied(console, report, out)


def _check_apply(checkpoint: Path | None, data: Path | None, out: Path, seed: int) -> None:
    """Whatever can be refused without loading torch is refused first."""
    from prunekit.files.folders import check_target

    check_seed_flag(seed)
    if checkpoint is not None and not checkpoint.is_file():
        raise CheckpointError(f"no checkpoint at {checkpoint}", hint="give a .safetensors, .pth or .pt file")
    if data is not None and not data.exists():
        raise DataError(f"there is no {data}", where="--data", hint="what it may be is in docs/data.md")
    check_target(out)


def _plan_in(path: Path) -> Plan:
    from prunekit.checkpoints.description import PLAN, text_of
    from prunekit.plans.contents import Plan

    return Plan.from_json(text_of(path / PLAN if path.is_dir() else path))


def _applied(built: Built, made: Plan, compensate: str | None, data: Path | None, seed: int) -> dict[str, Any]:
    """The part cut, and what there is to report. Raises PlanError and VerificationError; the model is then not kept."""
    from prunekit.compensation.settings import as_compensation
    from prunekit.plugins.homes import home_lines
    from prunekit.registry.homes import settled_for_good
    from prunekit.runs.held_out import train_and_val
    from prunekit.runs.prune_stage import Batches, structure_of
    from prunekit.surgery.cutting import apply

    started = time.perf_counter()
    refit = as_compensation(compensate or None)
    count = sample_count(built, None if refit is None else refit.samples, data)
    train, _ = train_and_val(built, data, None, (count, 1), seed, split=False)
    part = built.model.get_submodule(built.part)
    before = structure_of(part, train)
    given = None if refit is None else [sample.inputs for sample in Batches(train, count)]
    apply(part, made, compensate=refit, data=given)
    after = structure_of(part, train)  # it runs, on the meta device
    if (shapes := _outputs_of(before)) != _outputs_of(after):
        raise VerificationError(
            f"the cut model returns {_outputs_of(after)} in place of {shapes}",
            hint="the plan is damaged, or frees outputs: prunekit.apply(model, plan) in Python asks no further",
        )
    home = settled_for_good(part, after.inputs)
    costs = (before.cost(), after.cost())
    names = ("params", "macs", "layer_macs")
    return {
        "model": built.spec,
        "part": built.part,
        **{
            name: dict(zip(("before", "after"), (getattr(cost, name) for cost in costs), strict=True)) for name in names
        },
        "widths": [{"group": w.group, "role": w.role, "before": w.before, "after": w.after} for w in made.widths],
        "compensate": compensate or "",
        "verify": {"shapes": "passed"},
        "config": home_lines(home),
        "seconds": time.perf_counter() - started,
    }


def _outputs_of(structure: Structure) -> list[tuple[int, ...]]:
    return [tuple(ref.shape) for ref in structure.trace.outputs]


def _keep_applied(built: Built, made: Plan, report: dict[str, Any], out: Path) -> None:
    from types import SimpleNamespace

    from prunekit.checkpoints.saving import save

    kept = SimpleNamespace(
        model=built.model,
        plan=made,
        report=report,
        spec=built.spec,
        options=built.options,
        part=built.part,
        story={"command": command_line()},
    )
    save(kept, out)


def _show_applied(console: Console, report: dict[str, Any], out: Path) -> None:
    from prunekit.cli.tables.run_tables import show_counts

    show_counts(console, report, title=report["model"])
    changed = [width for width in report["widths"] if width["after"] < width["before"]]
    console.print(f"{len(changed)} of {len(report['widths'])} groups are smaller", style="dim")
    for line in report["config"]:
        console.print(line, style="dim")
    console.print(f"kept in {out}", soft_wrap=True)
