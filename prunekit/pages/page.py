"""report.html: everything about one pruned model on one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.pages.charts import losses_chart
from prunekit.pages.mapping import map_of
from prunekit.pages.report_figures import Row, budget_of, figure_rows, notes_of
from prunekit.pages.templates import rendered
from prunekit.plans.contents import Plan

TILES = ("parameters", "MACs", "latency")


def report_page(plan: Plan, report: Mapping[str, Any], story: Mapping[str, Any]) -> str:
    """The page as HTML. Without ``story``, as of older folders, it has no scores, losses or pictures of samples."""
    figures = figure_rows(report)
    roles, blocks = map_of(plan, story)
    losses = story.get("losses", {})
    said = "Mean loss of the epoch so far at each step; a line a stage." if losses else ""
    return rendered(
        "report.html",
        title=title_of(report),
        summary=_summary(report),
        tiles=_tiles(figures, report),
        command=story.get("command", ""),
        figures=figures,
        notes=notes_of(report, story),
        exhibits=story.get("exhibits", []),
        roles=roles,
        blocks=blocks,
        whole=_gone_whole(plan),
        frozen=[{"name": f.name, "size": f.size, "reason": f.reason} for f in plan.frozen],
        losses=losses_chart(losses, 1),
        losses_said=said,
        stages=_stages(report),
        asked=_asked_for(report),
    )


def title_of(report: Mapping[str, Any]) -> str:
    """The model's name as far as it is known."""
    return f"{report.get('model') or 'A pruned model'}, slimmed"


def _summary(report: Mapping[str, Any]) -> str:
    recipe = f"recipe {report['recipe']}" if report.get("recipe") else "one call of prunekit.prune"
    recipe = f"the plan {report['applied']}, applied" if report.get("applied") else recipe
    part = f" of {report['part']}" if report.get("part") else ""
    took = f", {report['seconds']:.0f} s" if report.get("seconds") else ""
    return f"{recipe}{part} {budget_of(report)}{took}"


def _gone_whole(plan: Plan) -> list[str]:
    """Blocks that were taken out of their containers, and branches that add nothing any more."""
    return [*(path for removal in plan.removals for path in removal.gone), *(each.module for each in plan.absences)]


def _tiles(figures: list[Row], report: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures that most people look for: sizes, latency, the main metric."""
    main = (report.get("metric") or {}).get("name")
    found = []
    for row in figures:
        if row["label"] in TILES or row["label"] == main:
            found.append({"label": row["label"], "change": row["change"], "pair": f"{row['before']} → {row['after']}"})
    return found


def _stages(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    stages = report.get("stages", [])
    total = sum(stage["seconds"] for stage in stages) or 1.0
    return [
        {
            "title": stage["title"],
            "seconds": f"{stage['seconds']:.1f}",
            "share": round(100 * stage["seconds"] / total, 1),
            "gave": ", ".join(_gave(k, v) for k, v in stage.items() if k not in ("title", "seconds")),
        }
        for stage in stages
    ]


def _gave(name: str, value: Any) -> str:
    """A figure of a stage, or the sentences that it says of itself."""
    return "; ".join(map(str, value)) if isinstance(value, list) else f"{name} {value:.4g}"


def _asked_for(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = ("scorer", "ratio", "target", "device", "ranks", "left_out", "config")
    own = [(name, str(report[name])) for name in names if report.get(name) not in (None, [], "")]
    return [*own, *((name, str(value)) for name, value in report.get("settings", {}).items())]
