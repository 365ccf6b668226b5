"""``--track``: what a run says goes to an experiment tracker too, through Accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.errors import InputError, RegistryError

if TYPE_CHECKING:
    from prunekit.runs import Event, Listener, Run

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
PROJECT = "prunekit"
_NEEDS_FOLDER = ("tensorboard",)


class Tracking:
    """One run in one tracker. ``heard`` takes events, ``finished`` the report; figures are named by their stage."""

    def __init__(self, name: str, beside: Path, config: Mapping[str, Any]) -> None:
        """Raises RegistryError for an unknown tracker, InputError where its library, or Accelerate, is not there."""
        if name not in TRACKERS:
            raise RegistryError.unknown("tracker", name, TRACKERS)
        try:
            from accelerate import tracking

            if name not in map(str, tracking.get_available_trackers()):
                raise ImportError(f"{name} is not installed")
            kind = tracking.LOGGER_TYPE_TO_CLASS[name]
            given = {"logging_dir": str(beside)} if name in _NEEDS_FOLDER else {}
            self._tracker: Any = kind(PROJECT, **given)
            if hasattr(self._tracker, "start"):
                self._tracker.start()
        except (ImportError, KeyError) as error:
            raise InputError(
                f"--track {name} cannot be used: {error}", hint=f"pip install 'prunekit[distributed]' {name}"
            ) from error
        self._tracker.store_init_configuration(_plain(config))
        self._step = 0

    def heard(self, event: Event) -> None:
        """Logs the event's figures under the stage's title, one step further."""
        if event.figures:
            self._step += 1
            self._tracker.log({f"{event.title}/{k}": float(v) for k, v in event.figures.items()}, step=self._step)

    def finished(self, result: Run) -> None:
        """Logs counts and metrics, before and after, and closes the tracker's run."""
        report = result.report
        pairs = {name: report[name] for name in ("params", "macs", "layer_macs", "latency_ms") if name in report}
        pairs |= report["metrics"]
        figures = {f"{name}/{side}": float(pair[side]) for name, pair in pairs.items() for side in ("before", "after")}
        self._tracker.log(figures, step=self._step + 1)
        self._tracker.finish()


def two_ears(first: Listener, second: Tracking | None) -> Listener:
    """Who is told of every event: ``first``, and then ``second`` if there is one."""

    def hear(event: Event) -> None:
        first(event)
        if second is not None:
            second.heard(event)

    return hear


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that every tracker takes."""
    return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in config.items()}
