"""``prunekit prune --dry-run``: the whole recipe in small, on a copy, and what the real one would take."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prunekit.cli.console.pulse import PULSE
from prunekit.cli.console.voice import busy
from prunekit.cli.running.foretelling import disk_needed, train_count
from prunekit.cli.tables.run_tables import show_counts

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from prunekit.cli.running.ready import Ready
    from prunekit.recipes import Recipe
    from prunekit.recipes.stages import Stage
    from prunekit.registry.building import Built
    from prunekit.runs import Event, Run
    from prunekit.scorers import Scorer

FACTOR_REHEARSED = 1.5  # see docs/training.md
FEW = 3  # samples of each kind; training passes over them twice, for the second time with what teachers gave


@dataclass
class _Times:
    """When every step of every stage was done, in seconds, and the most that one said to need, in GiB."""

    stages: Sequence[Stage]
    needs: float = 0.0
    at: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        PULSE.step(f"a few samples of {event.title}, {event.stage + 1} of {len(self.stages)} steps")
        self.needs = max(self.needs, event.figures.get("needs_gib", 0.0))
        self.at.setdefault(event.stage, []).append((event.done, time.perf_counter()))

    def per_step(self, stage: int, first: int, last: int) -> float:
        """Mean seconds of the steps after ``first`` up to ``last``; 0 where they were not seen."""
        seen = dict(self.at.get(stage, ()))
        known = [step for step in seen if first <= step <= last]
        if len(known) < 2:
            return 0.0
        return (seen[max(known)] - seen[min(known)]) / (max(known) - min(known))


def dry_run(console: Console, ready: Ready, whole: Callable[[], Ready], *, as_json: bool) -> None:
    """Shows the plan and what the run that was asked for would take; the model stays as it is.

    A model that is small goes through the recipe with a few samples. Of one that is large, shapes and the times of its
    operators tell (``foretelling``): ``ready`` may hold it without weights, and ``whole`` builds it with them.
    """
    from prunekit.cli.running.foretelling import foretold, is_large

    shown = None if as_json else console
    with busy(shown, "weighing the model"):
        large = is_large(ready)
    if large:
        with busy(shown, "planning by shapes, and timing operators"):
            told = foretold(ready)
    else:
        told = _rehearsed(shown, whole())
    told["seconds"] = sum(step["seconds"] for step in told["steps"])
    if as_json:
        import json

        console.file.write(json.dumps(told, indent=1, default=str) + "\n")
    else:
        _show_rehearsed(console, told, ready.scorer)


def _rehearsed(shown: Console | None, ready: Ready) -> dict[str, Any]:
    """The recipe gone through on a copy."""
    from prunekit.cli.running.going_home import home_first
    from prunekit.recipes import override, stages_of
    from prunekit.runs import run

    recipe, asked, built = ready.recipe, ready.keywords, ready.built
    settings = {name: value for name, value in _small(recipe.settings).items() if name in recipe.settings}
    small = override(recipe, settings)
    times = _Times(stages_of(small))

    def once(model: Built, given: Mapping[str, Any]) -> Run:
        times.at.clear()
        return run(model, small, ready.scorer, **given, listen=times)

    trial = replace(built, model=copy.deepcopy(built.model))
    with busy(shown, "going through the recipe with a few samples"):
        done = home_first(trial, asked, once) if ready.goes_home else once(trial, asked)
    weights = sum(value.nbytes for value in done.before.get_submodule(done.part).state_dict().values())
    return {
        "dry_run": True,
        **{name: done.report[name] for name in ("model", "recipe", "part", "ratio", "target", "params", "macs")},
        **{name: done.report[name] for name in ("layer_macs", "latency_ms", "widths", "verify") if name in done.report},
        "steps": _steps(built, recipe, asked, done, times),
        "disk_bytes": disk_needed(len(done.plan.to_json()) + held(done.model), weights, recipe.settings),
        "memory_bytes": 3 * weights + int(times.needs * 2**30),
        "estimate": {"how": "a few steps of every stage, timed here", "factor": FACTOR_REHEARSED},
        "config": done.report["config"],
    }


def _small(settings: Mapping[str, Any]) -> dict[str, Any]:
    batch = int(settings.get("batch", 1))
    samples = FEW * batch
    return {"images": samples, "val_images": FEW, "train_images": samples, "steps": 2 * FEW}


def _steps(built: Built, recipe: Recipe, asked: Mapping[str, Any], done: Run, times: _Times) -> list[dict[str, Any]]:
    """For each stage that was gone through: how much the real one does of it, and for how long."""
    from prunekit.recipes import stages_of

    samples = train_count(built, recipe, asked)
    seconds = {stage["title"]: stage["seconds"] for stage in done.report["stages"]}
    rows = []
    for number, stage in enumerate(stages_of(recipe)):
        if stage.title not in seconds:
            continue
        counts = _counts_of(stage, recipe.settings, samples)
        tried = times.at.get(number, [(0, 0.0)])[-1][0]
        first, later = times.per_step(number, 1, tried), times.per_step(number, FEW, tried)
        fixed = max(0.0, seconds[stage.title] - first * tried)
        cached = min(counts["first"], counts["steps"])
        took = fixed + first * cached + (later or first) * (counts["steps"] - cached)
        rows.append({"title": stage.title, "unit": counts["unit"], "count": counts["steps"], "seconds": took})
    return rows


def _counts_of(stage: Stage, settings: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """Steps of the stage, and how many of them come before what is kept of teachers helps."""
    from prunekit.recipes import Distil, Prune
    from prunekit.recipes.records import Training
    from prunekit.runs.distillation.rate import steps_in

    if isinstance(stage, Distil):
        training = Training.of(settings)
        return {"unit": "steps", "steps": steps_in(samples, training, 1), "first": -(-samples // training.batch)}
    name = "images" if isinstance(stage, Prune) else "val_images"
    count = min(int(settings[name]), samples) if name == "images" else int(settings[name])
    return {"unit": "samples", "steps": count, "first": count}


def held(model: nn.Module) -> int:
    """Bytes of a model's state."""
    return sum(value.nbytes for value in model.state_dict().values() if hasattr(value, "nbytes"))


def _show_rehearsed(console: Console, told: Mapping[str, Any], scorer: Scorer) -> None:
    from rich.table import Table

    from prunekit.scorers.needs import WEIGHTS

    show_counts(console, told)
    changed = [width for width in told["widths"] if width["after"] < width["before"]]
    console.print(f"{len(changed)} of {len(told['widths'])} groups shrink; --json lists them")
    table = Table("step", "work", "about", box=None, header_style="bold")
    for number, step in enumerate(told["steps"], 1):
        table.add_row(f"{number}. {step['title']}", f"{step['count']:,} {step['unit']}", duration(step["seconds"]))
    console.print(table)
    disk = told["disk_bytes"]
    how = told["estimate"]
    within = f"within a factor of {how['factor']:g}, where nothing else runs"
    console.print(f"time  about {duration(told['seconds'])}, {within}: from {how['how']}")
    console.print(f"memory  about {told['memory_bytes'] / 2**30:,.1f} GiB beyond Python's own")
    beside = disk["while_running"] + disk["teacher_cache_at_most"]
    mib = f"{disk['folder'] / 2**20:,.1f} MiB, and at most {beside / 2**20:,.0f} MiB while it runs"
    console.print(f"disk  {mib}")
    if getattr(scorer, "needs", None) != WEIGHTS:
        console.print("units were chosen on few samples or by chance: the real run may choose others", style="dim")
    console.print("nothing was written", style="dim")


def duration(seconds: float) -> str:
    """For people: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
