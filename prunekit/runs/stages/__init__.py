"""One function a kind of stage: it does its work on the run as it stands and returns figures for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prunekit.recipes.stages import Distil, Evaluate, Prune
from prunekit.runs.job import Job
from prunekit.runs.stages.cutting import cut_part
from prunekit.runs.stages.judging import judge
from prunekit.runs.stages.training import train_part
from prunekit.runs.under_way import UnderWay

# A new kind of stage is a class in recipes/stages.py and a line here
DOES: Mapping[type, Callable[[Job, UnderWay, int, Any], dict[str, Any]]] = {
    Prune: cut_part,
    Distil: train_part,
    Evaluate: judge,
}
