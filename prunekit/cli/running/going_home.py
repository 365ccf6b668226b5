"""Widths that the model's own library can load, tried first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from prunekit.errors import ConfigError

T = TypeVar("T")

if TYPE_CHECKING:
    from prunekit.registry.building import Built
    from prunekit.runs import Run


def uniform_first(asked: Mapping[str, Any], once: Callable[[Mapping[str, Any]], T]) -> T:
    """What ``once`` makes of ``asked`` with uniform widths; where no such widths can be said, without."""
    try:
        return once({**asked, "uniform": True})
    except ConfigError as error:
        logging.getLogger(__name__).warning("%s: pruned as without --uniform", error.what)
    return once(asked)


def home_first(built: Built, asked: Mapping[str, Any], once: Callable[[Built, Mapping[str, Any]], Run]) -> Run:
    """``uniform_first`` for a run, which cuts: with uniform widths it does so on a copy."""

    def each(given: Mapping[str, Any]) -> Run:
        if "uniform" in given:
            from prunekit.offloading.copies import copied_in_files

            # on a copy: a recipe of several cuts may have made some before one is refused
            return once(replace(built, model=copied_in_files(built.model)), given)
        if given.get("folder") is not None:
            from prunekit.runs.keeping import discard

            discard(given["folder"])
        return once(built, given)

    return uniform_first(asked, each)
