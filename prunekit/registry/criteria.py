"""Criteria by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from prunekit.errors import RegistryError
from prunekit.plugins.contract import Plugin
from prunekit.plugins.discovery import discover

if TYPE_CHECKING:
    from prunekit.scorers import Scorer


def known_scorers(plugins: Iterable[Plugin] | None = None) -> dict[str, Callable[..., Scorer]]:
    """Every criterion by name: prunekit's own and those of the plug-ins. A name of prunekit's own stays its own."""
    from prunekit import scorers  # criteria are no part of building a model, and loading one should not wait for them

    known: dict[str, Callable[..., Scorer]] = dict(scorers.OWN)
    for plugin in discover() if plugins is None else plugins:
        known |= {name: make for name, make in plugin.scorers.items() if name not in scorers.OWN}
    return known


def scorer(name: str, plugins: Iterable[Plugin] | None = None, **options: Any) -> Scorer:
    """The criterion ``name``, with those of ``options`` that it takes. Raises RegistryError with the nearest names."""
    from prunekit.scorers import OWN

    plain = name.strip().lower().replace("-", "_")
    # the libraries of all plug-ins take seconds to import, which a criterion that is here need not wait for
    known = OWN if plain in OWN else known_scorers(plugins)
    if plain not in known:
        raise RegistryError.unknown("scorer", name, known)
    taken = inspect.signature(known[plain]).parameters
    return known[plain](**{key: value for key, value in options.items() if key in taken})


def criterion(given: Scorer | str | None) -> Scorer:
    """What an option asks for: a criterion, the one of that name, or ``DisturbedTaylor()``."""
    from prunekit.scorers import DisturbedTaylor

    return DisturbedTaylor() if given is None else scorer(given) if isinstance(given, str) else given
