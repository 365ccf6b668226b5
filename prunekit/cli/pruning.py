"""``prunekit prune``: one model, one recipe, one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.building import build_model, check_device, suited
from prunekit.cli.ending import asked_to_end, what_is_kept
from prunekit.cli.flags import Asked, with_flags
from prunekit.cli.voice import busy, command_line, speaker
from prunekit.errors import CheckpointError, InputError, RecipeError, RegistryError

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.cli.tracking import Tracking
    from prunekit.recipes import Recipe
    from prunekit.registry.building import Built
    from prunekit.runs import Run
    from prunekit.scorers import Scorer

DEFAULT_SCORER = "disturbed_taylor"


@with_flags
def prune(
    model: Annotated[
        str | None,
        typer.Argument(help="timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME; a recipe has one."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe to run; without, oneshot.")] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Slim a model and keep it: weights, plan, report and pictures in one folder."""
    _check_given(seed, checkpoint)

    from prunekit.cli.notices import heard
    from prunekit.files.folders import check_target

    other_rank = int(os.environ.get("RANK", "0")) > 0  # of several ranks one talks and writes
    console = speaker(silent=other_rank)
    check_target(out)
    kept = run_folder(out)
    shown = None if as_json or other_rank else console
    with heard(shown), what_is_kept(kept), asked_to_end() as stop:
        with busy(shown, "importing torch"):
            chosen, spec = _recipe(recipe, model)
            check_device(device)
        built = _model_of(shown, spec, checkpoint, seed)
        settled, options = _settled(chosen, built, settings or [], seed, asked, generated=data is None)
        rest: dict[str, Any] = {"data": data, "val": val, "device": device}
        goes_home = _goes_home(built, settled, options)
        if dry_run:
            from prunekit.cli.rehearsing import dry_run as in_small

            criterion = _scorer(scorer, settled)
            in_small(console, built, settled, criterion, {**options, **rest}, goes_home=goes_home, as_json=as_json)
            return
        rest |= {"folder": kept, "resume": resume, "stop": stop}
        ear = None if track is None or other_rank else _tracker(track, out, {"model": spec, **settled.settings})
        criterion = _scorer(scorer, settled)
        result = _run(shown, ear, built, settled, criterion, {**options, **rest}, goes_home=goes_home)
        if other_rank:
            return
        _finish(shown, ear, built, result, out)
    _show_done(console, result, out, as_json=as_json)


def _model_of(shown: Console | None, spec: str, checkpoint: Path | None, seed: int) -> Built:
    with busy(shown, f"building {spec}"):
        return build_model(spec, checkpoint, seed)


def _tracker(name: str, out: Path, config: Mapping[str, Any]) -> Tracking:
    """The tracker that was asked for; its files, if it writes some, lie beside the folder."""
    from prunekit.cli.tracking import Tracking

    return Tracking(name, out.with_name(f"{out.name}.{name}"), config)


def _finish(shown: Console | None, ear: Tracking | None, built: Built, result: Run, out: Path) -> None:
    if ear is not None:
        ear.finished(result)
    with busy(shown, f"writing {out}"):
        _keep(built, result, out)


def _keep(built: Built, result: Run, out: Path) -> None:
    """The folder, and then nothing more of what the run kept while it was under way."""
    from prunekit.checkpoints.saving import save
    from prunekit.cli.exhibiting import exhibits_of
    from prunekit.cli.widths_drawing import widths_picture
    from prunekit.runs.keeping import discard

    story = {**result.story, "command": command_line(), "exhibits": exhibits_of(built, result)}
    told = replace(result, story=story)
    save(told, out, extras={"widths.png": widths_picture(result.plan)} | _exports(built, result))
    discard(run_folder(out))


def _show_done(console: Console, result: Run, out: Path, *, as_json: bool) -> None:
    from prunekit.cli.tables import show_report

    if as_json:
        import json

        console.file.write(json.dumps({**result.report, "out": str(out)}, indent=1, default=str) + "\n")
    else:
        show_report(console, result.report, out)


def _goes_home(built: Built, recipe: Recipe, options: Mapping[str, Any]) -> bool:
    """Whether widths that the model's own library can load are tried first, since nobody said otherwise."""
    asked = "uniform" in options or recipe.settings.get("ranking") != "local"
    return built.entry is not None and built.entry.uniform and not asked


def run_folder(out: Path) -> Path:
    """Where a run into ``out`` is kept until it is done."""
    return out.with_name(f"{out.name}.run")


def _check_given(seed: int, checkpoint: Path | None) -> None:
    """Whatever can be refused without loading torch is refused first."""
    if seed < 0:
        raise InputError(f"--seed {seed} is negative")
    if checkpoint is not None and not checkpoint.is_file():
        raise CheckpointError(f"no checkpoint at {checkpoint}", hint="give a .safetensors, .pth or .pt file")


def _run(
    console: Console | None,
    ear: Tracking | None,
    built: Built,
    recipe: Recipe,
    scorer: Scorer,
    asked: Asked,
    *,
    goes_home: bool,
) -> Run:
    """The recipe with its bars, where there is a console for them; to uniform widths first where it goes home."""
    from prunekit.cli.bars import bars_for
    from prunekit.cli.going_home import home_first
    from prunekit.cli.tracking import two_ears
    from prunekit.recipes import stages_of
    from prunekit.runs import run

    def once(model: Built, given: Asked) -> Run:
        with bars_for(console, stages_of(recipe)) as shown:
            return run(model, recipe, scorer, **given, listen=two_ears(shown, ear))

    return home_first(built, asked, once) if goes_home else once(built, asked)


def _recipe(name: str | None, model: str | None) -> tuple[Recipe, str]:
    from prunekit.recipes import ONESHOT
    from prunekit.registry import known_recipes

    known = known_recipes()
    if name is not None and name not in known:
        raise RegistryError.unknown("recipe", name, known)
    recipe = ONESHOT if name is None else known[name]
    spec = model or recipe.model
    if not spec:
        raise RecipeError("no model given", hint="for example: prunekit prune timm:deit_tiny_patch16_224")
    return recipe, spec


def _settled(
    recipe: Recipe, built: Built, pairs: list[str], seed: int, asked: Asked, *, generated: bool
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with its settings, and the options that are none.

    Settings are the model's own for generated data, then flags, then what ``--set`` says.
    """
    from prunekit.options.together import settings_said
    from prunekit.recipes import override, parse

    values: dict[str, Any] = {"seed": seed}
    if generated:
        values |= {name: value for name, value in suited(built).items() if name in recipe.settings}
    flags = {name: value for name, value in asked.items() if name in settings_said()}
    settled = override(override(recipe, values | flags), parse(pairs))
    return settled, {name: value for name, value in asked.items() if name not in flags}


def _scorer(name: str, recipe: Recipe) -> Scorer:
    from prunekit.registry.criteria import scorer

    asked: dict[str, Any] = {key: recipe.settings.get(key, "") for key in ("accumulation", "within", "reads", "seed")}
    return scorer(name, **{key: value for key, value in asked.items() if value != ""})


def _exports(built: Built, result: Run) -> dict[str, Any]:
    if not built.entry or not built.plugin:
        return {}
    exporters = built.plugin.exporters

    def writer(name: str) -> Any:
        return lambda path: exporters[name](result.before, result.model, result.val, path)

    return {name: writer(name) for name in built.entry.exporters}
