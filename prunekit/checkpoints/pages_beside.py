"""What a saved folder has for people: a page, a model card, and what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunekit.pages import CARD, PAGE, STORY
from prunekit.plans.contents import Plan


def write_pages(folder: Path, plan: Plan, report: Any, story: Mapping[str, Any], spec: str) -> None:
    """README.md and report.html; page.json where a run has told a story."""
    from prunekit.pages import model_card, report_page  # whoever loads a model needs none

    told = json.loads(json.dumps(report, default=str)) if isinstance(report, Mapping) else {}
    (folder / CARD).write_text(model_card(plan, told, story, spec))
    (folder / PAGE).write_text(report_page(plan, told, story), encoding="utf-8")
    if story:
        (folder / STORY).write_text(json.dumps(story) + "\n")
