"""``prunekit plan``: what would go, as a file to look at, to change nothing yet, and to apply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import busy, speaker
from prunekit.cli.flags.option_flags import Asked, with_flags
from prunekit.cli.loading.building import built_on, check_count, check_seed_flag, sample_count
from prunekit.cli.running.going_home import uniform_first
from prunekit.errors import DataError, InputError, PlanError, PrunekitError
from prunekit.runfiles.asked_run import DEFAULT_SCORER

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.plans.contents import Plan
    from prunekit.registry.building import Built

_UNUSED = ("compensate",)  # weights are refitted when a plan is applied


@with_flags(without=_UNUSED)
def write_plan(
    model: Annotated[str, typer.Argument(help="timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME.")],
    asked: Asked = {},  # noqa: B006  the flags of with_flags; never written to
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .safetensors, .pth or .pt.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of images, or text, to score on; without, generated.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Samples to score on.")] = None,
    out: Annotated[Path, typer.Option(help="File for the plan.")] = Path("plan.json"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scorer: Annotated[str, typer.Option(help="Criterion; see: prunekit list scorers.")] = DEFAULT_SCORER,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the widths and counts as JSON, and nothing else.")
    ] = False,
) -> None:
    """Decide what goes, and write it to a file; the model stays as it is."""
    from prunekit.cli.console.notices import heard

    _check_plan(asked, out, data, images, seed)
    console = speaker()
    shown = None if as_json else console
    with heard(shown):
        built = built_on(device, model, checkpoint, seed, shown)
        with busy(shown, "scoring what could go"):
            made, counts = _plan_of(built, data, images, {**asked, "scorer": scorer, "seed": seed})
        _write_plan(made, out)
    told = {"model": model, "part": built.part, "out": str(out), **counts, "widths": _width_rows(made)}
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1) + "\n")
    else:
        _show_planned(console, made, told, checkpoint, seed)


def _check_plan(asked: Asked, out: Path, data: Path | None, images: int | None, seed: int) -> None:
    """Whatever can be refused without loading torch is refused first."""
    check_seed_flag(seed)
    if asked.get("ratio") is not None and asked.get("target") is not None:
        raise InputError("--ratio and --target both say how much goes", hint="give one of them")
    check_count("--images", images)
    if data is not None and not data.exists():
        raise DataError(f"there is no {data}", where="--data", hint="what it may be is in docs/data.md")
    if out.is_dir() or not out.absolute().parent.is_dir():
        what = "is a folder" if out.is_dir() else "would lie in a folder that is not there"
        raise InputError(f"{out} {what}", where="--out", hint="give the name of a file")
    if out.exists() and not _is_plan(out):
        raise InputError(f"{out} is there, and no plan", where="--out", hint="give another name")


def _is_plan(path: Path) -> bool:
    from prunekit.plans.contents import Plan

    try:
        Plan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, PlanError):
        return False
    return True


def _plan_of(
    built: Built, data: Path | None, images: int | None, keywords: Mapping[str, Any]
) -> tuple[Plan, dict[str, Any]]:
    """The plan of the part, and counts before and after it."""
    from prunekit.api import plan
    from prunekit.quantities.plan_cost import cost_after
    from prunekit.registry.criteria import scorer
    from prunekit.runs.held_out import train_and_val
    from prunekit.runs.prune_stage import Batches, structure_of

    seed = int(keywords["seed"])
    count = sample_count(built, images, data)
    train, _ = train_and_val(built, data, None, (count, 1), seed, split=False)
    part = built.model.get_submodule(built.part)
    structure = structure_of(part, train)
    options = {**keywords, "scorer": scorer(str(keywords["scorer"]), seed=seed)}
    goes_home = built.entry is not None and built.entry.uniform and options.get("ranking", "local") == "local"

    def once(given: Mapping[str, Any]) -> Plan:
        return plan(part, data=Batches(train, count), structure=structure, **given)

    made = uniform_first(options, once) if goes_home and "uniform" not in options else once(options)
    before = structure.cost()
    after = cost_after(structure, made)
    names = ("params", "macs", "layer_macs")
    return made, {name: {"before": getattr(before, name), "after": getattr(after, name)} for name in names}


def _write_plan(made: Plan, out: Path) -> None:
    """The file, whole or as it was."""
    import os

    draft = out.with_name(f".{out.name}.part")
    try:
        draft.write_text(made.to_json(), encoding="utf-8")
        os.replace(draft, out)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise PrunekitError(f"cannot write {out}: {error.strerror}", where="--out") from error


def _width_rows(made: Plan) -> list[dict[str, Any]]:
    return [{"group": w.group, "role": w.role, "before": w.before, "after": w.after} for w in made.widths]


def _show_planned(console: Console, made: Plan, told: Mapping[str, Any], checkpoint: Path | None, seed: int) -> None:
    import shlex

    from prunekit.cli.commands.explaining import plan_rows, show_plan
    from prunekit.cli.tables.run_tables import show_counts

    show_plan(console, plan_rows(made, told["model"]))
    show_counts(console, told, title="")
    weights = [] if checkpoint is None else ["--checkpoint", str(checkpoint)]
    weights += ["--seed", str(seed)] if seed else []
    line = shlex.join(["prunekit", "apply", told["out"], told["model"], *weights, "--out", "FOLDER"])
    console.print(f"kept in {told['out']}; next: {line}", soft_wrap=True)
