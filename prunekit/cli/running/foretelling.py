"""``prunekit prune --dry-run`` of a model that is too large to go through the recipe for a look: by its shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunekit.cli.running.ready import Ready
    from prunekit.recipes import Recipe
    from prunekit.registry.building import Built
    from prunekit.runs.forecasting import Forecast

LARGE_PARAMS, LARGE_WORK = 5e7, 1e12  # weights; multiply-adds of a rehearsal: half a minute, and a few copies
FACTOR_FORETOLD = 2.0  # see docs/training.md
HOW = "one pass of every stage's model, its operators timed once each here and counted"


def is_large(ready: Ready) -> bool:
    """Whether going through the recipe with a few samples would itself take long, or much memory.

    A target on latency is measured in any case, and whole blocks go if a run says that they can: both take the model.
    """
    from prunekit.planning.parting import scopes_of
    from prunekit.quantities.limits import parse_target
    from prunekit.recipes import Distil, Prune, stages_of

    if any(isinstance(stage, Prune) and stage.deep for stage in stages_of(ready.recipe)):
        return False
    target = ready.asked.options.get("target")
    if scopes_of(_job(ready).scope)[0] is not None:
        return False
    if target is not None and any(limit.runner is not None for limit in parse_target(target)):
        return False
    built = ready.built
    part = built.model.get_submodule(built.part)
    if sum(p.numel() for p in part.parameters()) > LARGE_PARAMS:
        return True
    from prunekit.runs.forecasting import weighed

    batch = int(ready.recipe.settings.get("batch", 1))
    passes = {Prune: 9 * batch, Distil: 24 * batch}  # of a rehearsal, in forward passes; evaluation has few
    return weighed(_job(ready)) * sum(passes.get(type(stage), 6) for stage in stages_of(ready.recipe)) > LARGE_WORK


def foretold(ready: Ready) -> dict[str, Any]:
    """What a dry run tells, as JSON values."""
    from dataclasses import asdict

    from prunekit.runs.forecasting import forecast

    samples = train_count(ready.built, ready.recipe, ready.keywords)

    found: Forecast = forecast(_job(ready), samples)
    after = found.weights * found.after.params / max(1, found.before.params)
    told = {name: {"before": getattr(found.before, name), "after": getattr(found.after, name)} for name in COUNTS}
    whole = {f"whole_{name}": {key: n + getattr(found.rest, name) for key, n in told[name].items()} for name in COUNTS}
    options = ready.asked.options
    return {
        "dry_run": True,
        "model": ready.asked.model,
        "recipe": ready.recipe.name,
        "part": ready.built.part,
        "ratio": None if "target" in options else options["ratio"],
        "target": options.get("target"),
        **told,
        **(whole if ready.built.part else {}),
        "widths": [{"group": w.group, "role": w.role, "before": w.before, "after": w.after} for w in found.plan.widths],
        "verify": {"shapes": "passed"},
        "steps": [asdict(stage) for stage in found.stages],
        "disk_bytes": disk_needed(int(after) + len(found.plan.to_json()), found.weights, ready.recipe.settings),
        "memory_bytes": found.peak,
        "estimate": {"how": HOW, "factor": FACTOR_FORETOLD},
        "left_out": list(found.left_out),
        "config": [],
    }


COUNTS = ("params", "macs", "layer_macs")


def _job(ready: Ready) -> Any:
    from prunekit.options import Options
    from prunekit.runs.job import Job

    given = dict(ready.keywords)
    folders = {name: given.pop(name) for name in ("data", "val", "device")}
    return Job.of(ready.built, ready.recipe, Options.of(**given, scorer=ready.scorer), **folders)


def train_count(built: Built, recipe: Recipe, asked: Mapping[str, Any]) -> int:
    """Samples that the real run trains on."""
    from prunekit.recipes.records import Sampling
    from prunekit.runs.image_data import dataset_for, parts

    sampling, seed = Sampling.of(recipe.settings), int(recipe.settings.get("seed", 0))
    if asked["data"] is None:
        return max(sampling.train_images or sampling.images, sampling.images)
    part = parts(asked["data"], asked["val"], split=sampling.split)[0]
    found = len(dataset_for(built)(built.model, asked["data"], "train", None, seed, part))
    return min(sampling.train_images, found) if sampling.train_images else found


def disk_needed(folder: int, weights: int, settings: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the folder, and of what is kept beside it while the run is under way."""
    cache = int(float(settings.get("cache_gb", 0)) * 2**30) if settings.get("teacher_cache") == "disk" else 0
    return {"folder": folder, "while_running": 4 * weights, "teacher_cache_at_most": cache}
