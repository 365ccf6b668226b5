"""What is tried next: optuna's samplers over one share for each site, kept in a file where one is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prunekit.errors import InputError
from prunekit.inputs.per_rank import ALONE, Alone

SAMPLERS = ("nsga2", "cmaes", "tpe", "random")
LEAST = 0.1  # share of a site beside the most of another one, before both are scaled to the budget
_POPULATION = 20


@dataclass(frozen=True)
class Ask:
    """How many ``sites`` have a share, how many ``trials`` are made, by which sampler and seed, and where they stay."""

    sites: int
    trials: int
    sampler: str
    seed: int
    store: str | Path | None
    identity: str


def asked_in_turn(
    ask: Ask,
    score: Callable[[Sequence[float]], float],
    listen: Callable[[int, int, float], object] | None,
    ranks: Alone = ALONE,
) -> list[tuple[list[float], float]]:
    """(shares, score) of every trial, those in the store first, the same on all ``ranks``.

    Each rank scores a part; the first one alone draws, keeps and tells them. Raises InputError without
    optuna or for a sampler.
    """
    if ask.sampler not in SAMPLERS:
        raise InputError(f"{ask.sampler!r} is not a sampler", where="sampler", hint=f"one of {', '.join(SAMPLERS)}")
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "the search needs optuna, which is not installed", where="search", hint="pip install 'prunekit[search]'"
        ) from error
    with _quiet(optuna):
        study = _Study(optuna, ask) if ranks.rank == 0 else None
        while True:
            drawn = ranks.all("the next trials", study.drawn(ranks.size) if study else None)[0]
            if not drawn:
                return list(ranks.all("all trials", study.told() if study else None)[0])
            mine = [score(shares) for shares in drawn[ranks.rank : ranks.rank + 1]]  # none where fewer are left
            everybodys = [value for each in ranks.all("the scores", mine) for value in each]
            if study:
                study.tell(everybodys, listen)


class _Study:
    """The trials of one search, as optuna keeps them."""

    def __init__(self, optuna: ModuleType, ask: Ask) -> None:
        self._ask = ask
        self._names = [f"share{number}" for number in range(ask.sites)]
        self._study = _study(optuna, ask, self._names)
        self._open: list[Any] = []

    def drawn(self, count: int) -> list[list[float]]:
        """The shares of the next trials, at most ``count``; none where all were made."""
        left = self._ask.trials - len(_scored_trials(self._study))
        self._open = [self._study.ask() for _ in range(min(count, left))]
        return [[trial.suggest_float(name, LEAST, 1.0) for name in self._names] for trial in self._open]

    def tell(self, scores: Sequence[float], listen: Callable[[int, int, float], object] | None) -> None:
        for trial, score in zip(self._open, scores, strict=True):
            self._study.tell(trial, score)
            if listen is not None:
                made = _scored_trials(self._study)
                listen(len(made), self._ask.trials, max(float(each.value) for each in made))

    def told(self) -> list[tuple[list[float], float]]:
        made = _scored_trials(self._study)
        return [([trial.params[name] for name in self._names], float(trial.value)) for trial in made]


def _scored_trials(study: Any) -> list[Any]:
    """Trials with a score; one that a killed process left has none."""
    return [trial for trial in study.trials if trial.state.is_finished() and trial.value is not None]


def _study(optuna: ModuleType, ask: Ask, names: Sequence[str]) -> Any:
    storage = None
    if ask.store is not None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        Path(ask.store).parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(ask.store)))
    study = optuna.create_study(
        storage=storage, study_name=f"{ask.sampler}-{ask.identity}", load_if_exists=True, direction="maximize"
    )
    done = len(study.trials)
    study.sampler = _sampler(optuna, ask, ask.seed + done)  # what goes on must not draw what was drawn
    if not done:
        study.enqueue_trial(dict.fromkeys(names, 1.0))
    return study


def _sampler(optuna: ModuleType, ask: Ask, seed: int) -> Any:
    made = {
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION),
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    return made[ask.sampler]()


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """optuna prints of every trial; inside it does not, afterwards it is as it was."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
