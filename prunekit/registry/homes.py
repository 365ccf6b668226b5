"""The library that a model goes back to, if an installed plug-in knows it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from prunekit.errors import RegistryError
from prunekit.inputs import Inputs
from prunekit.plugins.discovery import discover
from prunekit.plugins.homes import Home, Recorded, Settlement, Words

logger = logging.getLogger(__name__)


def home_of(model: nn.Module) -> Home | None:
    """Who writes the configuration of ``model``. Plug-ins are loaded only for a model that holds one."""
    found = _named_home(model)
    return found and found[1]


def _named_home(model: nn.Module) -> tuple[str, Home] | None:
    if not hasattr(getattr(model, "config", None), "to_dict"):
        return None
    return next((each for each in _homes().items() if each[1].recognises(model)), None)


def _homes() -> dict[str, Home]:
    return {name: home for plugin in discover() for name, home in plugin.homes.items()}


def recorded_by(model: nn.Module) -> tuple[str, Recorded] | None:
    """What the home of ``model`` builds it again from, and the home's name; None without one that can."""
    found = _named_home(model)
    recorded = found and found[1].keep(model)
    return (found[0], recorded) if found and recorded else None


def rebuilt_from(name: str, values: Mapping[str, Any]) -> nn.Module:
    """The model without its weights that the home ``name`` builds.

    Raises RegistryError for a home that no installed plug-in brings, and CheckpointError for values that do not build.
    """
    homes = _homes()
    if name not in homes:
        raise RegistryError.unknown("home", name, homes)
    return homes[name].rebuild(values)


def words_of(model: nn.Module) -> Words | None:
    """What the configuration of ``model`` can say; None without a home."""
    found = home_of(model)
    return None if found is None else found.study(model)


def settled(model: nn.Module, inputs: Inputs) -> Settlement | None:
    """The pruned model with its configuration made true, or why it cannot be; None without a home."""
    found = home_of(model)
    return None if found is None else found.settle(model, inputs)


def settled_for_good(model: nn.Module, inputs: Inputs) -> Settlement | None:
    """``settled``, for a model that stays as it is: a trouble is a warning."""
    settlement = settled(model, inputs)
    if settlement is not None and settlement.trouble:
        logger.warning("%s; from_pretrained will not give this model back: pass uniform=True", settlement.trouble)
    return settlement
