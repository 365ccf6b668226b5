"""``prunekit eval``: models and folders of pruned ones, by one protocol, on the same annotated images or text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.voice import speaker
from prunekit.cli.loading.building import check_count, check_seed_flag
from prunekit.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from prunekit.plugins.examination import Examined, Examiner


def evaluate(
    models: Annotated[list[str], typer.Argument(help="PLUG-IN:NAME, or folders: pruned, or exported --to hf.")],
    data: Annotated[Path, typer.Option(help="Folder of annotated images; of a language model, text.")],
    prompts: Annotated[str, typer.Option(help="How to ask SAM: point, box, points:3, multimask, ...")] = "",
    split: Annotated[str, typer.Option(help="all, train, val or test, by a hash of the file's stem.")] = "all",
    images: Annotated[int | None, typer.Option(help="At most so many images, or windows of text.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the one model that is not a folder.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of everything drawn, random weights included.")] = 0,
    out: Annotated[Path | None, typer.Option(help="File for the report, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
) -> None:
    """Score models on annotated images or text, beside trivial answers."""
    _check_asked(models, checkpoint, images, seed, out)

    import json
    from dataclasses import asdict

    from prunekit.cli.console.bars import Tally
    from prunekit.cli.console.notices import heard
    from prunekit.cli.loading.building import check_device
    from prunekit.cli.tables.run_tables import mention
    from prunekit.plugins.examination import Examination
    from prunekit.runs.reporting import skipped_in

    console = speaker()
    check_device(device)
    shown = None if as_json else console
    with heard(shown), Tally(shown) as listen:
        models = _with_originals(models)
        examiner = _examiner(models)
        done = examiner(
            _builders(models, checkpoint, device, seed), Examination(data, prompts, split, images, seed), listen
        )
    asked: dict[str, Any] = {"data": str(data), "split": split, "seed": seed, "skipped": skipped_in(done.skipped)}
    text = json.dumps({"rows": asdict(done)["rows"], **done.counts, **asked}, indent=1) + "\n"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    if as_json:
        console.file.write(text)
    else:
        _show_figures(console, done)
        mention(console, asked["skipped"], f"listed in {out}" if out else "listed by --json")
        if out is not None:
            console.print(f"kept in {out}", soft_wrap=True)


def _check_asked(models: list[str], checkpoint: Path | None, images: int | None, seed: int, out: Path | None) -> None:
    """Whatever can be refused without loading torch is refused first."""
    check_count("--images", images)
    check_seed_flag(seed)
    if out is not None and out.exists() and not out.is_file():
        raise InputError(
            f"--out {out} is {'a folder' if out.is_dir() else 'no file'}", hint="give a file, for example report.json"
        )
    if checkpoint is not None and sum(not Path(name).is_dir() for name in models) != 1:
        raise InputError("--checkpoint is unclear", hint="give exactly one model that is not a folder with it")
    if checkpoint is not None and not checkpoint.is_file():
        raise CheckpointError(f"no checkpoint at {checkpoint}", hint="give a .safetensors, .pth or .pt file")


def _with_originals(models: list[str]) -> list[str]:
    """The models, and before them the originals whose weights a pruned folder's description leads to."""
    from prunekit.checkpoints.description import describe
    from prunekit.registry.lookup import foreign, lies_at_source

    folders = [Path(name) for name in models if Path(name).is_dir() and foreign(Path(name)) is None]
    specs = [str(describe(folder)["spec"] or "") for folder in folders]
    return list(dict.fromkeys([*(spec for spec in specs if lies_at_source(spec)), *models]))


def _examiner(models: list[str]) -> Examiner:
    """The one that all models share. Raises InputError for a model that has none, or another."""
    from prunekit.checkpoints.description import describe
    from prunekit.errors import RegistryError
    from prunekit.registry.lookup import examiner_of, foreign, home, names

    found: dict[int, Examiner] = {}
    for name in models:
        if Path(name).is_dir() and (known := foreign(Path(name))) is not None:
            examiner = known[0].examiners[known[1].examiner]
            found[id(examiner)] = examiner
            continue
        spec = str(describe(Path(name))["spec"] or "") if Path(name).is_dir() else name
        its = examiner_of(spec)
        if its is None:
            if home(spec) is None and spec.partition(":")[0] not in ("timm", "torchvision", "python") and spec:
                raise RegistryError.unknown("model", spec, names())
            raise InputError(
                f"{name} ({spec or 'of an unknown class'}) can neither be prompted nor reads text, so there is nothing "
                "to score it by",
                hint="models of a plug-in with an examiner can: prunekit list models; prunekit compare and the report "
                "of prunekit prune say how far a pruned model still agrees with its original",
            )
        found[id(its)] = its
    if len(found) > 1:
        raise InputError("these models are scored by different protocols", hint="evaluate them apart")
    return next(iter(found.values()))


def _builders(
    models: list[str], checkpoint: Path | None, device: str, seed: int
) -> Mapping[str, Callable[[], nn.Module]]:
    def build_one(name: str) -> nn.Module:
        import torch

        from prunekit.checkpoints.reading import load
        from prunekit.registry.building import build
        from prunekit.registry.lookup import foreign

        torch.manual_seed(seed)  # factories that draw random weights draw the same ones again
        if not Path(name).is_dir():
            model = build(name, checkpoint=checkpoint).model
        elif known := foreign(Path(name)):
            model = known[1].build(Path(name))
        else:
            model = load(name)
        return model.to(device).eval()

    return {name: partial(build_one, name) for name in models}


def _show_figures(console: Console, done: Examined) -> None:
    from rich.table import Table

    asked = len({asked for row in done.rows.values() for asked in row}) > 1
    table = Table(title=done.title, title_justify="left")
    for name in ("model", "prompt") if asked else ("model",):
        table.add_column(name, overflow="fold")
    for name in done.shown:
        table.add_column(name.replace("_", " "), justify="right")
    for model, rows in done.rows.items():
        for prompt, figures in rows.items():
            cells = [_with_bounds(name, figures) for name in done.shown]
            table.add_row(model, *([prompt] if asked else []), *cells)
    console.print(table)
    if done.remark:
        console.print(done.remark, style="dim")


def _with_bounds(name: str, figures: Mapping[str, float | int | None]) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    told = _shown(figures.get(name))
    return told if low is None or low == high else f"{told} [{_shown(low)}, {_shown(high)}]"


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}" if abs(figure) < 10 else f"{figure:,.1f}"
