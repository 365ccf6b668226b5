"""What a comparison finds: figures for every scorer and seed, and what they say beside the control."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any, Literal

FORMAT = "prunekit.comparison/1"

Verdict = Literal["control", "better", "worse", "not told apart", "one seed", "failed"]


@dataclass(frozen=True)
class Trial:
    """One cut: the seed, the metrics of the cut model, and its counts."""

    seed: int
    metrics: Mapping[str, float]
    params: int
    macs: int


@dataclass(frozen=True)
class Line:
    """One scorer.

    Attributes:
        scorer: its name.
        trials: one for each seed; one in all where ``fixed``; none where it cannot score the model.
        fixed: neither samples nor a seed reach its scores, so that more runs would give the same figure.
        why: the reason where it cannot score the model, else "".
    """

    scorer: str
    trials: tuple[Trial, ...]
    fixed: bool = False
    why: str = ""

    def values(self, metric: str) -> tuple[float, ...]:
        """The metric of every trial."""
        return tuple(trial.metrics[metric] for trial in self.trials)


@dataclass(frozen=True)
class Comparison:
    """Scorers at one budget, best first by the mean of the metric; those that failed come last.

    Attributes:
        metric: what is ranked by: the first that the evaluator gives; higher is better.
        original: the uncut model's metrics; ``params`` and ``macs`` are its counts.
        control: the name of the line that the others are held against.
        settings: JSON values: ratio or target, ranking, compensate, seeds, samples a seed draws and of how many.
    """

    metric: str
    original: Mapping[str, float]
    params: int
    macs: int
    control: str
    lines: tuple[Line, ...]
    settings: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        lines: Iterable[Line],
        control: str,
        original: Mapping[str, float],
        params: int,
        macs: int,
        settings: Mapping[str, Any],
    ) -> Comparison:
        """The comparison with its lines in order."""
        metric = next(iter(original))

        def place(line: Line) -> tuple[bool, bool, float]:
            value = mean(line.values(metric)) if line.trials else math.nan
            return (not line.trials, math.isnan(value), 0.0 if math.isnan(value) else -value)

        return cls(metric, original, params, macs, control, tuple(sorted(lines, key=place)), settings)

    def line(self, scorer: str) -> Line:
        """The line of that scorer."""
        return next(line for line in self.lines if line.scorer == scorer)

    def verdict(self, line: Line) -> Verdict:
        """Whether all of the line's values lie above, or below, all of the control's; overlapping ranges tell nothing.

        See ``luck`` for what that is worth.
        """
        if not line.trials:
            return "failed"
        if line.scorer == self.control:
            return "control"
        mine, chance = line.values(self.metric), self.line(self.control).values(self.metric)
        if len(chance) < 2:
            return "one seed"
        if min(mine) > max(chance):
            return "better"
        return "worse" if max(mine) < min(chance) else "not told apart"

    @property
    def luck(self) -> float:
        """How probable it is that one more random cut would be above all of the control's: 1 / (m + 1) after m of them.

        The seeds of another scorer are no independent draws of its quality, so they do not make this smaller.
        """
        return 1 / (len(self.line(self.control).trials) + 1)

    def as_dict(self) -> dict[str, Any]:
        """JSON values: everything, with mean, deviation and verdict of each line."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("metric", "control", "luck", "params", "macs")},
            "original": dict(self.original),
            "settings": dict(self.settings),
            "lines": [self._line(line) for line in self.lines],
        }

    def _line(self, line: Line) -> dict[str, Any]:
        values = line.values(self.metric)
        return {
            **asdict(line),
            "mean": mean(values) if values else None,
            "deviation": stdev(values) if len(values) > 1 else None,
            "verdict": self.verdict(line),
        }
