"""The page of the table: figures, and claim by claim whether they hold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .rows import ALIGNED_CLAIMS, CLAIMS, GROUPS, OWN_CLAIMS, RETENTION, Claim

Record = dict[str, Any]
METRICS = ("point", "box")


def markdown(told: Mapping[str, Any], quick: bool) -> str:
    """The page for what one run of the benchmark has recorded so far."""
    records: Sequence[Record] = told["records"]
    seeds = sorted({record["seed"] for record in records})
    ratios = sorted({record["ratio"] for record in records})
    teacher = {metric: statistics.mean(r["before"][metric] for r in records) for metric in METRICS}
    lines = [
        "# SlimSAM's table, re-enacted" + (", quick" if quick else ""),
        "",
        "The tables of Chen et al., arXiv 2312.05284, on `sam:tiny` ([card](../benchmarks/assets/tiny.md)), a teacher",
        "of 4.6 M parameters trained on BSDS500. The students learn from photos of ImageNet without labels; judged by",
        "mean IoU on BSDS500's validation photos. Such a teacher says which way things go, not what real SAM gains.",
        "",
        f"    make slimsam-table{'-quick' if quick else ''} TABLE_FLAGS='{_flags(records, ratios, seeds)}'",
        "",
        f"Every row: `{told['command']} OPTIONS --ratio RATIO --seed N`. All rows of a ratio see as many images",
        "and train as many steps, but those whose names and options say otherwise. Seeds "
        f"{', '.join(str(seed) for seed in seeds)}; mean ± half the range. The teacher: point {teacher['point']:.3f}, "
        f"box {teacher['box']:.3f}.",
        f"Commit {told['commit']}, {', '.join(f'{name} {version}' for name, version in told['versions'].items())}.",
        "",
    ]
    for ratio in ratios:
        lines += _table([r for r in records if r["ratio"] == ratio], ratio, teacher, quick)
    lines += ["## Claim by claim", "", *_claims(records, ratios, (*CLAIMS, *OWN_CLAIMS, *ALIGNED_CLAIMS)), ""]
    return "\n".join([*lines, *_retention(records, ratios, teacher), *_loss_gone(records, ratios), ""])


def _flags(records: Sequence[Record], ratios: Sequence[float], seeds: Sequence[int]) -> str:
    """What asks for the runs that are recorded, and for those that are missing among them."""
    names = {record["row"] for record in records}
    groups = [group for group, rows in GROUPS.items() if names & {row.name for row in rows}]
    asked = {"groups": groups, "ratios": ratios, "seeds": seeds}
    return " ".join(f"--{flag} {' '.join(str(value) for value in values)}" for flag, values in asked.items())


def _table(records: Sequence[Record], ratio: float, teacher: Mapping[str, float], quick: bool) -> list[str]:
    lines = [
        f"## {ratio:.0%} of every width removed",
        "",
        "| row | runs | params left | MACs left | point | box | of the teacher's point | paper's mIoU | options |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for rows in GROUPS.values() for row in rows):
        own = [record for record in records if record["row"] == row.name]
        if not own:
            continue
        params, macs = (statistics.mean(r[name] for r in own) for name in ("params", "macs"))
        scores = {metric: [r[metric] for r in own] for metric in METRICS}
        paper = dict(row.paper).get(ratio)
        cells = [
            row.name,
            str(len(own)),
            f"{params:.1%}",
            f"{macs:.1%}",
            *(_spread(scores[metric]) for metric in METRICS),
            f"{statistics.mean(scores['point']) / teacher['point']:.1%}",
            "" if paper is None else f"{paper:.2f}",
            f"`{row.written(quick)}`",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _claims(records: Sequence[Record], ratios: Sequence[float], claims: Sequence[Claim]) -> list[str]:
    lines = [
        "What a row scores more than the other, seed by seed, point / box. *Holds* where every seed says so with both",
        "prompts and the mean is above the spread; *holds not* where every seed says the contrary so; else *cannot be",
        "told here*, as with a single seed.",
        "",
        "| claim | " + " | ".join(f"{ratio:.0%}" for ratio in ratios) + " |",
        "|---|" + "---|" * len(ratios),
    ]
    for claim in claims:
        cells = [_verdict(records, ratio, claim) for ratio in ratios]
        if any(cells):
            lines.append(f"| {claim.said} | {' | '.join(cell or 'not run' for cell in cells)} |")
    return lines


def _verdict(records: Sequence[Record], ratio: float, claim: Claim) -> str:
    found = {(r["row"], r["seed"]): r for r in records if r["ratio"] == ratio}
    seeds = sorted({seed for row, seed in found if row == claim.better and (claim.worse, seed) in found})
    if not seeds:
        return ""
    gains = {
        metric: [found[claim.better, seed][metric] - found[claim.worse, seed][metric] for seed in seeds]
        for metric in METRICS
    }
    figures = " / ".join(", ".join(f"{gain:+.3f}" for gain in gains[metric]) for metric in METRICS)
    return f"**{judged(gains)}** ({figures})"


def judged(gains: Mapping[str, Sequence[float]]) -> str:
    """ "holds", "holds not" or "cannot be told here", from what is gained by metric and seed."""
    verdicts = set()
    for values in gains.values():
        mean, half = statistics.mean(values), (max(values) - min(values)) / 2
        told = len(values) > 1 and abs(mean) > half and (min(values) > 0 or max(values) < 0)
        verdicts.add(("holds" if mean > 0 else "holds not") if told else "cannot be told here")
    return verdicts.pop() if len(verdicts) == 1 else "cannot be told here"


def _retention(records: Sequence[Record], ratios: Sequence[float], teacher: Mapping[str, float]) -> list[str]:
    lines = []
    for ratio in (ratio for ratio in ratios if ratio in RETENTION):
        for name in ("disturbed Taylor, alternate", "slimsam-plus"):
            own = [r["point"] for r in records if r["row"] == name and r["ratio"] == ratio]
            if own:
                kept = statistics.mean(own) / teacher["point"]
                lines.append(
                    f"- {name} keeps {kept:.1%} of the teacher's one-point mIoU at {ratio:.0%}; the paper's keeps "
                    f"{RETENTION[ratio]:.1%}."
                )
    return lines


def _loss_gone(records: Sequence[Record], ratios: Sequence[float]) -> list[str]:
    """Of what the faithful recipe loses against the teacher, how much slimsam-plus does not lose, seed by seed."""
    lines = []
    for ratio in ratios:
        found = {(r["row"], r["seed"]): r for r in records if r["ratio"] == ratio}
        seeds = sorted(seed for row, seed in found if row == "slimsam-plus" and ("slimsam-paper", seed) in found)
        cells = []
        for metric in METRICS if seeds else ():
            pairs = [(found["slimsam-paper", seed], found["slimsam-plus", seed]) for seed in seeds]
            lost = [(a["before"][metric] - a[metric], b["before"][metric] - b[metric]) for a, b in pairs]
            cells.append(f"{metric} {', '.join(_lost(a, b) for a, b in lost)}")
        if cells:
            lines.append(f"- At {ratio:.0%} slimsam-paper loses, and slimsam-plus: {'; '.join(cells)}.")
    return lines


def _lost(faithful: float, other: float) -> str:
    gone = f" ({1 - other / faithful:.0%} of it gone)" if faithful >= 0.001 else ""
    return f"{faithful:.4f} to {other:.4f}{gone}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"
