"""Tables and curves of a run."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

Line = dict[str, Any]


def curves(lines: list[Line]) -> dict[tuple[str, str, str, str], dict[float, tuple[float, float]]]:
    """(tool, criterion, ranking, step) -> share -> (mean top-1, half the range over seeds)."""
    found: dict[tuple[str, str, str, str], dict[float, list[float]]] = {}
    for line in lines:
        if line["tool"] == "original":
            continue
        name = (line["tool"], line["criterion"], line["ranking"], line["step"])
        found.setdefault(name, {}).setdefault(line["share"], []).append(line["top1"])
    return {
        name: {share: (mean(values), (max(values) - min(values)) / 2) for share, values in by_share.items()}
        for name, by_share in found.items()
    }


def table(lines: list[Line]) -> str:
    """Markdown: of every criterion and step the best ranking by the mean over sizes, best first."""
    shares = sorted({line["share"] for line in lines if line["tool"] != "original"}, reverse=True)
    best: dict[tuple[str, str, str], tuple[float, str, dict[float, tuple[float, float]]]] = {}
    for (tool, criterion, ranking, step), by_share in curves(lines).items():
        value = mean(by_share[s][0] for s in by_share) if by_share.keys() == set(shares) else -1.0
        if value > best.get((tool, criterion, step), (-2.0, "", {}))[0]:
            best[tool, criterion, step] = (value, ranking, by_share)
    head = [f"{100 * (1 - share):.0f} %" for share in shares]
    rows = ["| tool | criterion | ranking | then | " + " | ".join(head) + " |", "|---" * (4 + len(head)) + "|"]
    for line in lines:
        if line["tool"] == "original":
            rows.append(f"| the original | | | | {line['top1']:.1%} |" + " |" * (len(head) - 1))
    for (tool, criterion, step), (_, ranking, by_share) in sorted(best.items(), key=lambda item: -item[1][0]):
        cells = []
        for share in shares:
            value, spread = by_share.get(share, (float("nan"), 0.0))
            cells.append(f"{value:.1%}" + (f" ± {spread:.1%}" if spread else ""))
        rows.append(f"| {tool} | {criterion} | {ranking} | {step} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def plot(lines: list[Line], path: Path) -> None:
    """A panel for each step; of every criterion the ranking that does best on the average."""
    from matplotlib.figure import Figure

    steps = [("one-shot", "one-shot"), ("ridge", "ridge refit"), ("distilled", "then distilled")]
    figure = Figure(figsize=(15, 6.5), layout="constrained")
    axes = figure.subplots(1, len(steps), sharey=True)
    whole = next((line["top1"] for line in lines if line["tool"] == "original"), None)
    found = curves(lines)
    for ax, (step, title) in zip(axes, steps, strict=True):
        chosen: dict[tuple[str, str], tuple[float, str]] = {}
        for (tool, criterion, ranking, at), by_share in found.items():
            value = mean(v for v, _ in by_share.values())
            if at == step and value > chosen.get((tool, criterion), (-1.0, ""))[0]:
                chosen[tool, criterion] = (value, ranking)
        for index, ((tool, criterion), (_, ranking)) in enumerate(sorted(chosen.items())):
            by_share = found[tool, criterion, ranking, step]
            x = sorted(by_share, reverse=True)
            control = criterion == "random"
            ax.errorbar(
                [100 * (1 - s) for s in x],
                [100 * by_share[s][0] for s in x],
                [100 * by_share[s][1] for s in x],
                color="black" if control else f"C{index % 10}",
                linestyle="--" if tool != "prunekit" else "-",
                marker="o" if tool == "prunekit" else "x",
                linewidth=2 if control else 1.2,
                label=f"{criterion} ({ranking})" + ("" if tool == "prunekit" else ", Torch-Pruning"),
            )
        if whole is not None:
            ax.axhline(100 * whole, color="grey", linewidth=0.8)
        ax.set_title(title)
        ax.set_xlabel("multiply-adds removed, %")
        ax.legend(fontsize=6, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.13))
    axes[0].set_ylabel("top-1 on held-out photos, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
