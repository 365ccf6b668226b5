"""``prunekit prune``: one model, one recipe, one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit.cli.flags.option_flags import Asked, with_flags
from prunekit.runfiles.asked_run import DEFAULT_SCORER, RunFile


@with_flags
def prune(
    model: Annotated[
        str | None,
        typer.Argument(help="timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME; a recipe has one."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe, by name or a file.yaml; without, oneshot.")] = None,
    asked: Asked = {},  # noqa: B006  the flags of with_flags; never written to
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .safetensors, .pth or .pt.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of images, or text for a model of text; without, generated.")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of validation images; without, generated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the result; appears only on success.")] = Path("out/pruned"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scorer: Annotated[str, typer.Option(help="Criterion; see: prunekit list scorers.")] = DEFAULT_SCORER,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; repeat for more.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run into --out that was interrupted.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan it, time a few steps, say what it would take; write nothing.")
    ] = False,
    track: Annotated[
        str | None, typer.Option(help="Log to tensorboard, wandb, mlflow or trackio too, through Accelerate.")
    ] = None,
    offload: Annotated[
        Path | None, typer.Option(help="Folder on a large disk: weights lie there and in their files, not in memory.")
    ] = None,
    offload_memory: Annotated[
        str | None, typer.Option(help="Memory that --offload holds the process to, as 500MB. [default: 8GB]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Slim a model and keep it: weights, plan, report and pictures in one folder."""
    from prunekit.cli.running.one_run import do_run
    from prunekit.recipes import parse

    run = RunFile(
        model=model,
        recipe=recipe,
        options=asked,
        checkpoint=checkpoint,
        data=data,
        val=val,
        out=out,
        device=device,
        seed=seed,
        scorer=scorer,
        settings=parse(settings or []),
        track=track,
        offload=offload,
        offload_memory=offload_memory,
    )
    do_run(run, resume=resume, dry_run=dry_run, as_json=as_json)
