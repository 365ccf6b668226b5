"""``prunekit prune``: one model, one recipe, one folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.building import GENERATED, build_model, check_device
from prunekit.errors import InputError, RecipeError, RegistryError

if TYPE_CHECKING:
    from prunekit.recipes import Recipe
    from prunekit.registry.building import Built
    from prunekit.runs import Run
    from prunekit.scorers import Scorer

DEFAULT_SCORER = "disturbed_taylor"


def prune(
    model: Annotated[
        str | None,
        typer.Argument(help="timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME; a recipe has one."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe to run; without, oneshot.")] = None,
    ratio: Annotated[
        str | None, typer.Option(help="Share of units to remove, in [0, 1), or ROLE=SHARE,ROLE=SHARE. [default: 0.5]")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Limits instead of a ratio: 'macs<=50%, params<=9.1M, latency<=15ms'.")
    ] = None,
    include: Annotated[list[str] | None, typer.Option(help="Glob over parameters, modules, roles; repeat.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Glob over what to leave alone; repeat.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .safetensors, .pth or .pt.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of training images; without, they are generated.")] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of validation images; without, generated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the result; appears only on success.")] = Path("out/pruned"),
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scorer: Annotated[str, typer.Option(help="Criterion; see: prunekit list scorers.")] = DEFAULT_SCORER,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value; repeat for more.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run into --out that was interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Slim a model and keep it: weights, plan, report and pictures in one folder."""
    # whatever can be refused without loading torch is refused first
    share = None if ratio is None else shares(ratio)
    if seed < 0:
        raise InputError(f"--seed {seed} is negative")
    if checkpoint is not None and not checkpoint.is_file():
        from prunekit.errors import CheckpointError

        raise CheckpointError(f"no checkpoint at {checkpoint}", hint="give a .safetensors, .pth or .pt file")

    from rich.console import Console

    from prunekit.checkpoints.saving import save
    from prunekit.cli.notices import heard
    from prunekit.cli.tables import Bars, show
    from prunekit.cli.widths_drawing import widths_picture
    from prunekit.files.folders import check_target

    quiet = int(os.environ.get("RANK", "0")) > 0  # of several ranks one talks and writes
    console = Console(quiet=quiet)
    check_target(out)
    with heard(None if as_json or quiet else console):
        chosen, spec = _recipe(recipe, model)
        check_device(device)
        built = build_model(spec, checkpoint, seed)
        chosen = _settled(chosen, built, settings or [], seed, generated=data is None)
        criterion = _scorer(scorer, chosen)
        from prunekit.recipes import stages_of
        from prunekit.runs import run

        with Bars(None if as_json or quiet else console, stages_of(chosen)) as bars:
            asked: dict[str, Any] = {"ratio": share, "target": target, "include": include, "exclude": exclude}
            asked |= {"data": data, "val": val, "folder": under_way(out), "resume": resume}
            result = run(built, chosen, criterion, **asked, device=device, listen=bars)
        if quiet:
            return
        extras = {"widths.png": widths_picture(result.plan)} | _exports(built, result)
        save(result, out, extras=extras)
        shutil.rmtree(under_way(out), ignore_errors=True)
    if as_json:
        import json

        console.file.write(json.dumps({**result.report, "out": str(out)}, indent=1, default=str) + "\n")
    else:
        show(console, result.report, out)


def under_way(out: Path) -> Path:
    """Where a run into ``out`` is kept until it is done."""
    return out.with_name(f"{out.name}.run")


def shares(text: str) -> float | dict[str, float]:
    """``0.5``, or ``mlp.hidden=0.6,attention.heads=0.25``. Raises InputError for anything else."""
    found: dict[str, float] = {}
    for part in text.split(","):
        role, equals, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--ratio {part.strip()} is no share", hint="0.5, or ROLE=0.6,ROLE=0.25") from None
        if not 0 <= value < 1:  # NaN too
            raise InputError(f"--ratio {part.strip()} is out of range", hint="the share to remove, from 0 to below 1")
        if bool(equals) != ("=" in text) or role.strip() in found:
            raise InputError(f"--ratio {text} is unclear", hint="one share for all, or one for each role")
        found[role.strip()] = value
    return found if "=" in text else found[""]


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


def _settled(recipe: Recipe, built: Built, pairs: list[str], seed: int, *, generated: bool) -> Recipe:
    """The recipe with its settings: the model's own for generated data, then the user's."""
    from prunekit.recipes import override, parse

    values: dict[str, Any] = {"seed": seed}
    if generated:
        suits = built.entry.generated if built.entry else GENERATED
        values |= {name: value for name, value in suits.items() if name in recipe.settings}
    return override(override(recipe, values), parse(pairs))


def _scorer(name: str, recipe: Recipe) -> Scorer:
    from prunekit.registry.criteria import scorer

    wanted: dict[str, Any] = {key: recipe.settings[key] for key in ("accumulation", "seed") if key in recipe.settings}
    return scorer(name, **wanted)


def _exports(built: Built, result: Run) -> dict[str, Any]:
    if not built.entry or not built.plugin:
        return {}
    exporters = built.plugin.exporters

    def writer(name: str) -> Any:
        return lambda path: exporters[name](result.before, result.model, result.val, path)

    return {name: writer(name) for name in built.entry.exporters}
