"""``prunekit compare``: criteria at one budget, on the same data, against chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.console.pulse import PULSE
from prunekit.cli.console.voice import speaker
from prunekit.cli.flags.option_flags import Asked, with_flags
from prunekit.cli.loading.building import built_on, check_count, check_seed_flag, suited
from prunekit.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from prunekit.comparison import Comparison
    from prunekit.registry.building import Built
    from prunekit.samples.sequences import Skipped

SEEDS = 3
IMAGES, VAL_IMAGES = 64, 32  # where the data are given; for generated ones as for prune


@with_flags
def compare(
    model: Annotated[str, typer.Argument(help="timm:NAME, torchvision:NAME, python:pkg.mod:factory or PLUG-IN:NAME.")],
    scorers: Annotated[
        str, typer.Option(help="Criteria, separated by commas; all: every one that needs no labels. random is added.")
    ] = "all",
    seeds: Annotated[int, typer.Option(help="Draws of samples and of whatever a criterion draws itself.")] = SEEDS,
    asked: Asked = {},  # noqa: B006  the flags of with_flags; never written to
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: .safetensors, .pth or .pt.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images to score on; without, generated.")] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of images to judge on; without, generated.")] = None,
    images: Annotated[int | None, typer.Option(help="Images that a seed draws to score on.")] = None,
    val_images: Annotated[int | None, typer.Option(help="Images to judge on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for compare.json, compare.md and compare.png.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, ...")] = "cpu",
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and nothing else.")] = False,
) -> None:
    """Compare criteria at one budget, with random as the control."""
    _check_counts(asked, seeds, seed, images, val_images)

    from prunekit.cli.console.notices import heard
    from prunekit.cli.tables.comparison_table import JSON, show_comparison, write
    from prunekit.cli.tables.run_tables import mention
    from prunekit.files.folders import check_target
    from prunekit.runs.reporting import skipped_in

    console = speaker()
    if out is not None:
        check_target(out, JSON)
    shown = None if as_json else console
    with heard(shown):
        built = built_on(device, model, checkpoint, seed, shown)
        counts = _counts(built, images, val_images, (data is None, val is None))
        names = [name for name in scorers.split(",") if name.strip()]
        with _Bar(shown) as bar:
            found, faults = _contest(built, names, range(seed, seed + seeds), asked, (data, val), counts, bar)
        skipped = skipped_in(faults)
        told = {"model": model, **found.as_dict(), "skipped": skipped}
        if out is not None:
            write(found, out, model, told)
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1) + "\n")
    else:
        show_comparison(console, found, model, out)
        mention(console, skipped, f"listed in {out / JSON}" if out else "listed by --json")


def _check_counts(asked: Asked, seeds: int, seed: int, images: int | None, val_images: int | None) -> None:
    """Whatever can be refused without loading torch is refused first."""
    if asked.get("ratio") is not None and asked.get("target") is not None:
        raise InputError("--ratio and --target both say how much goes", hint="give one of them")
    for name, value in (("--seeds", seeds), ("--images", images), ("--val-images", val_images)):
        check_count(name, value)
    check_seed_flag(seed, seeds)


def _counts(built: Built, images: int | None, val_images: int | None, generated: tuple[bool, bool]) -> tuple[int, int]:
    """How many images a seed draws, and how many are judged on; the model's own numbers for generated ones."""

    suits = suited(built)
    draw = images or (int(suits.get("images", IMAGES)) if generated[0] else IMAGES)
    judge = val_images or (int(suits.get("val_images", VAL_IMAGES)) if generated[1] else VAL_IMAGES)
    return draw, judge


def _contest(
    built: Built,
    names: list[str],
    seeds: range,
    budget: Mapping[str, Any],
    folders: tuple[Path | None, Path | None],
    counts: tuple[int, int],
    listen: Callable[[int, int, str], None],
) -> tuple[Comparison, list[Skipped]]:
    """The comparison, and the samples that could not be used."""
    import copy

    from prunekit.comparison import compare, needs_no_labels
    from prunekit.inputs.batching import moved
    from prunekit.runs.held_out import train_and_val
    from prunekit.runs.metrics import evaluator_for
    from prunekit.runs.prune_stage import Batches

    if not names:
        raise InputError("--scorers names none", hint="for example --scorers magnitude,disturbed_taylor")
    wanted = None if folders[0] else counts[0] * len(seeds)
    train, judged = train_and_val(built, *folders, (wanted, counts[1]), seeds[0], split=False)
    evaluator = evaluator_for(built, copy.deepcopy(built.model))

    def evaluate(part: nn.Module) -> Mapping[str, float]:
        return evaluator(built.model, judged, lambda done, total: None)  # the part is cut in its place

    part = built.model.get_submodule(built.part)
    device = next(part.parameters()).device
    found = compare(
        part,
        needs_no_labels() if names == ["all"] else names,
        evaluate,
        moved(train.batch([0]), device),
        data=Batches(train, len(train)),
        seeds=seeds,
        images=counts[0],
        listen=listen,
        **budget,
    )
    return found, [*train.skipped, *judged.skipped]


class _Bar:
    """One bar over all cuts. Without a console, or off a terminal, it says nothing but to the pulse."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:<18}", markup=False), BarColumn(bar_width=16), MofNCompleteColumn())
        drawn = console and console.is_terminal and not console.quiet
        self._progress = Progress(*columns, TimeRemainingColumn(), console=console) if drawn else None
        self._stack = ExitStack()

    def __enter__(self) -> _Bar:
        PULSE.step("the original")
        if self._progress:
            self._task = self._progress.add_task("the original", total=None)
            self._stack.enter_context(PULSE.about("the original", drawn=True))
            self._stack.enter_context(self._progress)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, done: int, total: int, scorer: str) -> None:
        PULSE.step(f"{scorer}, {done} of {total} cuts done" if scorer else "comparing")
        if self._progress:
            self._progress.update(self._task, completed=done, total=total, description=scorer or "done")
