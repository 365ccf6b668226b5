"""Widths that the model's own library can load, tried first."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunekit.errors import ConfigError

if TYPE_CHECKING:
    from prunekit.registry.building import Built
    from prunekit.runs import Run


def home_first(built: Built, asked: Mapping[str, Any], once: Callable[[Built, Mapping[str, Any]], Run]) -> Run:
    """What ``once`` makes of a copy with uniform widths; where no such widths can be said, of the model without."""
    try:
        # on a copy: a recipe of several cuts may have made some before one is refused
        return once(replace(built, model=copy.deepcopy(built.model)), {**asked, "uniform": True})
    except ConfigError as error:
        logging.getLogger(__name__).warning("%s: pruned as without --uniform", error.what)
    if asked.get("folder") is not None:
        from prunekit.runs.keeping import discard

        discard(asked["folder"])
    return once(built, asked)
