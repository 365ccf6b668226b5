"""How a comparison looks: a table, and a folder with JSON, Markdown and a plot."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from prunekit.comparison import Comparison, Line, Trial

logger = logging.getLogger(__name__)

JSON, MARKDOWN, PLOT = "compare.json", "compare.md", "compare.png"
SIZES, LAST = ("params", "MACs"), "against random"
WORDS = {
    "control": "the control",
    "not told apart": "not told apart from random",
    "one seed": "one seed tells nothing",
}


def show_comparison(console: Console, found: Comparison, model: str, out: Path | None) -> None:
    """The table, best first, and what its words mean."""
    table = Table(title=title(found, model), title_justify="left", box=None, header_style="bold")
    for name in head(found):
        words = name in ("scorer", LAST)
        least = len(LAST) if name == LAST else None
        side: Literal["left", "right"] = "left" if words else "right"
        table.add_column(name, justify=side, no_wrap=name != LAST, min_width=least, overflow="fold")
    for line in found.lines:
        style = {"control": "bold", "failed": "dim"}.get(found.verdict(line))
        table.add_row(*cells(found, line), style=style)
    console.print(table)
    for text in notes(found):
        console.print(text, style="dim")
    if out is not None:
        console.print(f"kept in {out}", soft_wrap=True)


def title(found: Comparison, model: str) -> str:
    """One line: the model, the budget, the metric."""
    settings = found.settings
    budget = settings["target"] if settings["target"] is not None else f"ratio {settings['ratio']}"
    refit = f", then {settings['compensate']}" if settings["compensate"] else ""
    return f"{model} at {budget}, {settings['ranking']} ranking{refit}: {found.metric}"


def head(found: Comparison) -> tuple[str, ...]:
    """The names of the columns; sizes stand below the table where they are the same in all rows."""
    return ("scorer", "mean", "range", "runs", *(SIZES if len(sizes(found)) > 1 else ()), LAST)


def sizes(found: Comparison) -> set[tuple[str, str]]:
    """Parameters and MACs of all cuts, as shares of the original."""
    trials = [trial for line in found.lines for trial in line.trials]
    return {_sizes(found, [trial]) for trial in trials}


def _sizes(found: Comparison, trials: Sequence[Trial]) -> tuple[str, str]:
    params = mean(t.params for t in trials) / found.params
    macs = mean(t.macs for t in trials) / found.macs if found.macs else 1.0
    return f"{params:.1%}", f"{macs:.1%}"


def cells(found: Comparison, line: Line) -> tuple[str, ...]:
    """One row of the table; of a scorer that failed the reason stands where the others have their verdict."""
    if not line.trials:
        return (line.scorer, *[""] * (len(head(found)) - 2), line.why)
    values = line.values(found.metric)
    verdict = found.verdict(line)
    span = f"{min(values):.3f}..{max(values):.3f}" if len(values) > 1 else ""
    size = _sizes(found, line.trials) if len(sizes(found)) > 1 else ()
    runs = "fixed" if line.fixed else str(len(values))
    return (line.scorer, f"{mean(values):.4f}", span, runs, *size, WORDS.get(verdict, verdict))


def notes(found: Comparison) -> list[str]:
    """What the reader of the table has to know."""
    settings = found.settings
    seen = ", ".join(f"{name} {value:.4f}" for name, value in found.original.items())
    drawn = f"{settings['images']} of {settings['of_images']} images a seed, seeds {_listed(settings['seeds'])}"
    lines = [f"the original: {seen}; scored on {drawn}"]
    if any(line.fixed for line in found.lines):
        lines.append("fixed: reads no data and draws nothing, so it was run once")
    if len(sizes(found)) == 1:
        params, macs = next(iter(sizes(found)))
        lines.append(f"every cut leaves {params} of the parameters and {macs} of the MACs")
    runs = len(found.line(found.control).trials)
    if runs > 1:
        lines.append(
            f"better, worse: beyond all of random's; one more random cut would be so in 2 of {runs + 1} cases, half of "
            "them better"
        )
    return lines


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


def write(found: Comparison, out: Path, model: str, told: Mapping[str, Any]) -> None:
    """The three files, ``told`` as JSON, all or none; an earlier comparison in ``out`` is replaced."""
    from prunekit.files.folders import new_folder

    with new_folder(out, JSON) as draft:
        (draft / JSON).write_text(json.dumps(told, indent=1) + "\n")
        (draft / MARKDOWN).write_text(markdown(found, model))
        plot(found, draft / PLOT, model)


def markdown(found: Comparison, model: str) -> str:
    """The table for a document."""
    names = head(found)
    rows = [names, ("---",) * len(names), *(cells(found, line) for line in found.lines)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return f"{title(found, model)}\n\n{table}\n\n" + "\n".join(f"- {text}" for text in notes(found)) + "\n"


def plot(found: Comparison, path: Path, model: str) -> None:
    """Every value, the mean, and the range of the control as a band."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logger.warning("no %s: matplotlib is not installed (pip install 'prunekit[plots]')", path.name)
        return
    lines = [line for line in found.lines if line.trials][::-1]  # the first row of the table is on top
    figure: Any = Figure(figsize=(7, 1.2 + 0.3 * len(lines)), layout="constrained")
    ax = figure.subplots()
    chance = found.line(found.control).values(found.metric)
    ax.axvspan(min(chance), max(chance), color="#dddddd", label=f"range of {found.control}", zorder=0)
    ax.axvline(found.original[found.metric], color="black", linewidth=0.8, label="the original")
    for place, line in enumerate(lines):
        values = line.values(found.metric)
        color = "black" if line.scorer == found.control else "#d9730d"
        ax.plot([min(values), max(values)], [place, place], color=color, linewidth=1)
        ax.plot(values, [place] * len(values), ".", color=color)
        ax.plot([mean(values)], [place], "D", color=color)
    ax.set_yticks(range(len(lines)), [line.scorer for line in lines])
    ax.set_xlabel(found.metric)
    ax.set_title(title(found, model), fontsize="small")
    ax.legend(fontsize="x-small", loc="best")
    figure.savefig(path, dpi=110)
