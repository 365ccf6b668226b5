"""The library that a model goes back to, if an installed plug-in knows it."""

from __future__ import annotations

from torch import nn

from prunekit.inputs import Inputs
from prunekit.plugins.discovery import discover
from prunekit.plugins.homes import Home, Settlement, Words


def home_of(model: nn.Module) -> Home | None:
    """Who writes the configuration of ``model``. Plug-ins are loaded only for a model that holds one."""
    if not hasattr(getattr(model, "config", None), "to_dict"):
        return None
    homes = (each for plugin in discover() for each in plugin.homes.values())
    return next((each for each in homes if each.recognises(model)), None)


def words_of(model: nn.Module) -> Words | None:
    """What the configuration of ``model`` can say; None without a home."""
    found = home_of(model)
    return None if found is None else found.study(model)


def settled(model: nn.Module, inputs: Inputs) -> Settlement | None:
    """The pruned model with its configuration made true, or why it cannot be; None without a home."""
    found = home_of(model)
    return None if found is None else found.settle(model, inputs)
