"""What several commands read of a pruned folder, without building its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.errors import CheckpointError

if TYPE_CHECKING:
    from prunekit.plans.contents import Plan


def kept_in(folder: Path) -> tuple[Plan, dict[str, Any], dict[str, Any]]:
    """The plan of ``folder``, its report, and what its page shows; the latter two empty where they are not there.

    Raises CheckpointError and PlanError.
    """
    from prunekit.checkpoints.description import PLAN, REPORT, json_in, text_of
    from prunekit.pages import STORY
    from prunekit.plans.contents import Plan

    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder", hint="give a folder that prunekit prune wrote")
    plan = Plan.from_json(text_of(folder / PLAN))
    report = json_in(folder / REPORT) if (folder / REPORT).is_file() else {}
    story = json_in(folder / STORY) if (folder / STORY).is_file() else {}
    return plan, dict(report), dict(story)
