"""What a finished run leaves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from prunekit.options.types import as_json
from prunekit.pages.anatomy import anatomy_of
from prunekit.plugins.homes import home_lines
from prunekit.registry.homes import settled_for_good
from prunekit.runs.job import Job
from prunekit.runs.outcome import Run
from prunekit.runs.reporting import report, skipped_in
from prunekit.runs.telling import samples_said
from prunekit.runs.under_way import UnderWay


def finished(job: Job, run: UnderWay, started: float) -> Run:
    """The slimmed model with its plan and report; ``started`` is the perf_counter at the beginning."""
    at, scope = run.position, job.scope
    settlement = settled_for_good(run.part, run.structure.inputs)
    # what was measured on rank 0 is not measured again on the others
    latency = job.settings.reporting.latency and job.ranks.first
    numbers = report(
        job.built, run.original, run.train, at.plan, at.metrics, at.verified, run.structure, latency=latency
    )
    skipped = skipped_in(job.ranks.gathered([*run.train.skipped, *run.val.skipped]))
    return Run(
        model=run.model,
        before=run.original,
        plan=at.plan,
        report={
            "recipe": job.recipe.name,
            "model": job.built.spec,
            "part": job.built.part,
            "ratio": None if scope.target is not None else as_json(scope.share),
            "target": as_json(scope.target),
            "scorer": repr(job.settings.options.choice.scorer),
            **numbers,
            "config": home_lines(settlement),
            "skipped": skipped,
            "settings": dict(job.recipe.settings),
            "stages": at.done,
            "left_out": list(run.fit.left_out),
            "device": str(job.device),
            "ranks": job.ranks.count,
            "seconds": time.perf_counter() - started,
        },
        val=run.val,
        spec=job.built.spec,
        options=job.built.options,
        part=job.built.part,
        story={**anatomy_of(run.structure), **at.told.values(), "samples": samples_said(run.train, run.val)},
    )
