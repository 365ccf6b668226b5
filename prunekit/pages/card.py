"""The model card of a folder: what it holds, from what, how, with which figures and limits. Markdown with metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from prunekit.pages.report_figures import budget_of, figure_rows, notes_of
from prunekit.plans.contents import Plan


def model_card(plan: Plan, report: Mapping[str, Any], story: Mapping[str, Any], spec: str) -> str:
    """The card as Markdown; its metadata are JSON values, which YAML reads."""
    meta = {"library_name": "prunekit", "tags": ["prunekit", "structured-pruning", "pytorch"]}
    base = spec or str(report.get("model") or "")
    head = [f"{name}: {json.dumps(value)}" for name, value in meta.items()]
    head += [f"prunekit_base: {json.dumps(base)}"] if base else []
    changed = [width for width in plan.widths if width.after < width.before]
    how = f"recipe `{report['recipe']}`" if report.get("recipe") else "`prunekit.prune`"
    how = "a plan, carried out by `prunekit apply`" if report.get("applied") else f"{how} {budget_of(report)}"
    how += f", criterion `{report['scorer']}`" if report.get("scorer") else ""
    parts = [
        "---\n" + "\n".join(head) + "\n---",
        f"# {base or 'A model'}, slimmed by prunekit",
        f"{how}: {len(changed)} of {len(plan.widths)} "
        f"widths are smaller, {len(plan.frozen)} are frozen. `report.html` shows every one of them.",
        *_command(story),
        "## Figures\n\n" + _figure_table(report),
        "\n".join(f"- {note}" for note in notes_of(report, story)),
        _use(spec),
        _limits(report, story),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _command(story: Mapping[str, Any]) -> list[str]:
    return [f"```\n{story['command']}\n```"] if story.get("command") else []


def _figure_table(report: Mapping[str, Any]) -> str:
    rows = [f"| {r['label']} | {r['before']} | {r['after']} | {r['change']} |" for r in figure_rows(report)]
    return "\n".join(["| | before | after | change |", "|---|---|---|---|", *rows])


def _use(spec: str) -> str:
    given = "" if spec else ", model"
    lead = "" if spec else "With `model`, a fresh instance of the original class:\n\n"
    return f'## Use\n\n{lead}```\nimport prunekit\n\nmodel = prunekit.load("this folder"{given})\n```'


def _limits(report: Mapping[str, Any], story: Mapping[str, Any]) -> str:
    lines = ["It can do at most what the original can, and its licence is that of the original weights."]
    samples = story.get("samples", {})
    kinds = {name: each for name, each in samples.items() if not each["generated"]}
    if samples and not kinds:
        lines.append("Nothing but generated samples was used: measure it on your own data before you rely on it.")
    elif kinds:
        lines.append(
            f"Data were given for {' and '.join(sorted(kinds))}; their licence holds for what was learned of them."
        )
    elif not report.get("metrics"):
        lines.append("Nothing was measured but its size: measure it on your own data before you rely on it.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
