"""One run of a recipe, from what was asked to the folder: what ``prunekit prune`` and ``prunekit run`` do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.cli.console.ending import asked_to_end, what_is_kept
from prunekit.cli.console.voice import busy, command_line, loudness, speaker
from prunekit.cli.flags.offload_flags import held_in_files
from prunekit.cli.flags.option_flags import Asked
from prunekit.cli.loading.building import build_model, check_device, check_seed_flag, light_model, suited
from prunekit.cli.running.ready import Ready
from prunekit.errors import CheckpointError, DataError, RecipeError, RegistryError
from prunekit.options.shares import DEFAULT_RATIO
from prunekit.runfiles import ExportAsked, RunFile, is_recipe_file, recipe_text, run_text

if TYPE_CHECKING:
    from rich.console import Console

    from prunekit.cli.running.tracking import Tracking
    from prunekit.exports import Exported
    from prunekit.recipes import Recipe
    from prunekit.registry.building import Built
    from prunekit.runs import Run
    from prunekit.scorers import Scorer

RUN_FILE, RECIPE_FILE = "run.yaml", "recipe.yaml"


def do_run(asked: RunFile, *, resume: bool = False, dry_run: bool = False, as_json: bool = False) -> None:
    """Does what ``asked`` says and tells of it. Raises PrunekitError, with the place in the file where one was read."""
    from prunekit.cli.console.notices import heard
    from prunekit.files.folders import check_target

    _check_given(asked)
    other_rank = int(os.environ.get("RANK", "0")) > 0  # of several ranks one talks and writes
    console = speaker(silent=other_rank)
    shown = None if as_json or other_rank else console
    with asked.spots.about("out"):
        check_target(asked.out)
    kept = folder_under_way(asked.out)
    with heard(shown), what_is_kept(kept), asked_to_end() as stop, held_in_files(asked):
        ready = _ready(shown, asked, light_model if dry_run else build_model)
        if loudness().verbose and shown is not None:
            shown.print(run_text(ready.asked).rstrip(), style="dim")
        if dry_run:
            from prunekit.cli.running.rehearsing import dry_run as in_small

            in_small(console, ready, lambda: _ready(shown, asked, build_model), as_json=as_json)
            return
        ear = None if asked.track is None or other_rank else _tracker(ready)
        more = {"folder": kept, "resume": resume, "stop": stop}
        result = _run(shown, ear, ready, more)
        if other_rank:
            return
        if ear is not None:
            ear.finished(result)
        with busy(shown, f"writing {asked.out}"):
            _keep(ready, result)
        exported = [_export_after(shown, asked, each) for each in asked.export]
    _show_done(console, result, asked.out, exported, as_json=as_json)


def folder_under_way(out: Path) -> Path:
    """Beside ``out``: where a run is kept until it is done."""
    return (out if out.name else out.absolute()).with_name(f"{out.name or out.absolute().name}.run")


def _ready(shown: Console | None, asked: RunFile, build: Callable[[str, Path | None, int], Built]) -> Ready:
    for each in asked.export:
        _check_export(asked, each)
    with busy(shown, "importing torch"):
        recipe, spec = _recipe(asked.recipe, asked.model)
        with asked.spots.about("device"):
            check_device(asked.device)
    with asked.spots.about("model", "checkpoint"), busy(shown, f"building {spec}"):
        built = build(spec, asked.checkpoint, asked.seed)
    settled, options = _settled(recipe, built, asked)
    options = options if "target" in asked.options else {"ratio": DEFAULT_RATIO, **options}
    again = recipe.name if asked.recipe is None or not is_recipe_file(asked.recipe) else str(asked.out / RECIPE_FILE)
    spelt = replace(asked, model=spec, recipe=again, options=options, settings=dict(settled.settings))
    return Ready(spelt, built, settled, _scorer(asked.scorer, settled))


def _check_given(asked: RunFile) -> None:
    """Raises InputError and CheckpointError for what can be told before torch is imported."""
    check_seed_flag(asked.seed)
    if asked.checkpoint is not None and not asked.checkpoint.is_file():
        with asked.spots.about("checkpoint"):
            raise CheckpointError(f"no checkpoint at {asked.checkpoint}", hint="give a .safetensors, .pth or .pt file")
    for name, folder in (("data", asked.data), ("val", asked.val)):
        if folder is not None and not folder.exists():
            with asked.spots.about(name):
                raise DataError(f"there is no {folder}", where=f"--{name}", hint="what it may be is in docs/data.md")
    if asked.track is not None:
        from prunekit.cli.running.tracking import TRACKERS

        if asked.track not in TRACKERS:
            with asked.spots.about("track"):
                raise RegistryError.unknown("tracker", asked.track, TRACKERS)


def _check_export(asked: RunFile, each: ExportAsked) -> None:
    from prunekit.exports import RECORD, known_formats
    from prunekit.files.folders import check_target

    with asked.spots.about("export"):
        if each.to not in (known := known_formats()):
            raise RegistryError.unknown("format", each.to, known)
        check_target(each.out, RECORD)


def _tracker(ready: Ready) -> Tracking:
    """The tracker that was asked for; its files, if it writes some, lie beside the folder."""
    from prunekit.cli.running.tracking import Tracking

    name, out = str(ready.asked.track), ready.asked.out
    return Tracking(name, out.with_name(f"{out.name}.{name}"), {"model": ready.asked.model, **ready.recipe.settings})


def _keep(ready: Ready, result: Run) -> None:
    """The folder, and then nothing more of what the run kept while it was under way."""
    from prunekit import __version__
    from prunekit.checkpoints.saving import save
    from prunekit.cli.running.exhibiting import exhibits_of
    from prunekit.cli.tables.widths_drawing import widths_picture
    from prunekit.runs.keeping import discard

    story = {**result.story, "command": command_line(), "exhibits": exhibits_of(ready.built, result)}
    again = run_text(ready.asked, f"prunekit {__version__}: all that this run was told; prunekit run does it again")
    extras = {"widths.png": widths_picture(result.plan), RUN_FILE: lambda path: path.write_text(again, "utf-8")}
    if ready.asked.recipe == str(ready.asked.out / RECIPE_FILE):  # the run is done again by the recipe as it was
        extras[RECIPE_FILE] = lambda path: path.write_text(recipe_text(ready.recipe), "utf-8")
    save(replace(result, story=story), ready.asked.out, extras=extras | _exports(ready.built, result))
    discard(folder_under_way(ready.asked.out))


def _export_after(shown: Console | None, asked: RunFile, each: ExportAsked) -> Exported:
    """Raises what ``prunekit export`` raises, with a note that the folder itself is there."""
    from prunekit.exports import export as write

    try:
        with busy(shown, f"writing {each.to}, and reading it back"), asked.spots.about("export"):
            return write(asked.out, each.to, each.out, precisions=each.precision)
    except Exception as error:
        error.add_note(f"  kept: {asked.out} is whole; prunekit export tries again")
        raise


def _show_done(console: Console, result: Run, out: Path, exported: Iterable[Exported], *, as_json: bool) -> None:
    from prunekit.cli.tables.export_table import show_exported
    from prunekit.cli.tables.run_tables import show_report

    if as_json:
        import json

        told = {**result.report, "out": str(out)}
        exports = [asdict(done) for done in exported]
        console.file.write(json.dumps(told | ({"exports": exports} if exports else {}), indent=1, default=str) + "\n")
        return
    show_report(console, result.report, out)
    for done in exported:
        show_exported(console, done)
    again = shlex.join(["prunekit", "run", str(out / RUN_FILE)])
    console.print(f"{again} does it again", style="dim", soft_wrap=True)


def _run(console: Console | None, ear: Tracking | None, ready: Ready, more: Mapping[str, Any]) -> Run:
    """The recipe with its bars, where there is a console for them; to uniform widths first where it goes home."""
    from prunekit.cli.console.bars import bars_for
    from prunekit.cli.running.going_home import home_first
    from prunekit.cli.running.tracking import two_ears
    from prunekit.recipes import stages_of
    from prunekit.runs import run

    def once(built: Built, given: Asked) -> Run:
        with bars_for(console, stages_of(ready.recipe)) as shown:
            return run(built, ready.recipe, ready.scorer, **given, listen=two_ears(shown, ear))

    given = {**ready.keywords, **more}
    return home_first(ready.built, given, once) if ready.goes_home else once(ready.built, given)


def _recipe(name: str | None, model: str | None) -> tuple[Recipe, str]:
    from prunekit.recipes import ONESHOT
    from prunekit.runfiles import recipe_named

    recipe = ONESHOT if name is None else recipe_named(name)
    spec = model or recipe.model
    if not spec:
        raise RecipeError("no model given", hint="for example: prunekit prune timm:deit_tiny_patch16_224")
    return recipe, spec


def _settled(recipe: Recipe, built: Built, asked: RunFile) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with its settings, and the options that are none.

    Settings are the model's own for generated data, then flags, then what ``--set`` says.
    """
    from prunekit.options.together import settings_said
    from prunekit.recipes import override

    values: dict[str, Any] = {"seed": asked.seed}
    if asked.data is None:
        values |= {name: value for name, value in suited(built).items() if name in recipe.settings}
    flags = {name: value for name, value in asked.options.items() if name in settings_said()}
    settled = override(override(recipe, values | flags), asked.settings)
    return settled, {name: value for name, value in asked.options.items() if name not in flags}


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
