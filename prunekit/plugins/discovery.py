"""How plug-ins are found: one entry point each, of the group ``prunekit.plugins``."""

from __future__ import annotations

import logging
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # recipes and checkpoints stand above the plug-ins, which bring or are given them as values
    pass
from prunekit.plugins.contract import Plugin

GROUP = "prunekit.plugins"
logger = logging.getLogger(__name__)


def discover() -> tuple[Plugin, ...]:
    """Every installed plug-in that loads, by name. One that does not is named in a warning and left out."""
    return load_all(_points(tuple(sys.path)))


@cache
def _points(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """What is installed on ``path``, looked up once: reading all packages' metadata takes longer than a small plan."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda point: point.name))


@cache
def load_all(points: tuple[EntryPoint, ...]) -> tuple[Plugin, ...]:
    """The plug-ins behind ``points``; cached, so that a broken one warns once a process."""
    found = []
    for point in points:
        try:
            plugin = point.load()
        except Exception as error:  # whatever a plug-in raises while it loads must not stop the others
            logger.warning("plug-in %r (%s) is broken and left out: %r", point.name, point.value, error)
            continue
        if isinstance(plugin, Plugin):
            found.append(plugin)
        else:
            logger.warning("plug-in %r (%s) is left out: it is not a prunekit.plugins.Plugin", point.name, point.value)
    return tuple(found)
