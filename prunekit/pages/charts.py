"""Charts as SVG that takes the colours of the page it stands in. Matplotlib draws: no script, and it prints."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

# drawn in these, shown in those: a page decides what is ink and what is paper, in the light and in the dark
INKS = {"#010203": "var(--ink)", "#010204": "var(--muted)", "#010205": "var(--line)", "#010206": "var(--accent)"}
INK, MUTED, LINE, ACCENT = INKS
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
_COLOURS = INKS | {colour: f"var(--role-{number})" for number, colour in enumerate(SERIES)}


def losses_chart(losses: Mapping[str, Sequence[Sequence[float]]], number: int) -> str:
    """Losses by step, a line a stage, on a logarithmic scale; "" without matplotlib or without losses."""
    if not any(losses.values()) or (axes := _plain_axes((6.4, 2.6))) is None:
        return ""
    from matplotlib.ticker import MaxNLocator

    figure, ax = axes
    for place, (stage, points) in enumerate(losses.items()):
        steps, values = [p[0] for p in points], [p[1] for p in points]
        ax.plot(steps, values, color=SERIES[place % len(SERIES)], linewidth=1.4, label=stage)
    if all(p[1] > 0 for points in losses.values() for p in points):
        ax.set_yscale("log")
        _label_few_decades(ax)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("step", color=MUTED, fontsize=9)
    ax.set_ylabel("loss", color=MUTED, fontsize=9)
    ax.legend(fontsize=8, frameon=False, labelcolor=INK)
    return _svg(figure, number)


def _label_few_decades(ax: Any) -> None:
    """Plain numbers on a logarithmic axis, between decades too where it holds less than two of them."""
    from matplotlib.ticker import LogLocator

    low, high = ax.get_ylim()
    steps = [1.0] if high / low > 30 else [1.0, 2.0, 5.0] if high / low > 4 else [float(at) for at in range(1, 10)]
    ax.yaxis.set_major_locator(LogLocator(subs=steps))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    ax.yaxis.set_minor_formatter(lambda value, _: "")


def pareto_chart(points: Sequence[tuple[str, float, float]], size: str, metric: str, number: int) -> str:
    """``metric`` over ``size``, a point a folder: (name, size, metric); "" without matplotlib or without two points."""
    if len(points) < 2 or (axes := _plain_axes((4.4, 3.0))) is None:
        return ""
    figure, ax = axes
    best = front(points)
    ax.plot([p[1] for p in best], [p[2] for p in best], color=ACCENT, linewidth=1, zorder=1)
    for place, (_, x, y) in enumerate(points):
        ax.plot([x], [y], "o", color=ACCENT if (_, x, y) in best else MUTED, markersize=6)
        ax.annotate(str(place + 1), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=INK)
    ax.set_xlabel(size, color=MUTED)
    ax.set_ylabel(metric, color=MUTED)
    ax.margins(0.12)
    return _svg(figure, number)


def front(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """The points that no other one is at least as small and as good as, by size."""
    found: list[tuple[str, float, float]] = []
    for point in sorted(points, key=lambda p: (p[1], -p[2])):
        if not found or point[2] > found[-1][2]:
            found.append(point)
    return found


def _plain_axes(size: tuple[float, float]) -> tuple[Any, Any] | None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure: Any = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    ax.tick_params(which="both", colors=MUTED, labelsize=8)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    ax.grid(axis="y", color=LINE, linewidth=0.6)
    return figure, ax


def _svg(figure: Any, number: int) -> str:
    """The figure as an element of a page: no header, its own names, the page's colours and letters."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "prunekit", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1c{number}-", svg)
    svg = re.sub(r"""font: ([\d.]+)px [^;"]*""", r"font: \1px inherit; font-family: inherit; font-size: \1px", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg)
    for drawn, shown in _COLOURS.items():
        svg = svg.replace(drawn, shown)
    return svg
