"""Options that say something of widths alone are refused where nothing but depth is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunekit.errors import ConfigError, InputError
from prunekit.options import Options
from prunekit.planning.uniform_widths import known_words
from prunekit.roles import BRANCHES

_INSTEAD: Mapping[str, Mapping[str, tuple[tuple[Any, ...], str]]] = {  # what leaves depth as it is, and what to do
    "choice": {
        "ranking": (("local", "global"), "units of depth are ranked together; bound a role's share by max_ratio"),
        "normaliser": (("gaussian",), "scores of depth are compared as they are; leave it out"),
        "align": ((None, 1), "units of depth are counted, not aligned; leave it out"),
        "granularity": ((None, 1), "units of depth go one by one; leave it out"),
        "pools": ((None,), "give a ratio for each role, as in ratio={'depth.block': 0.2, 'depth.mlp': 0.1}"),
    },
    "cutting": {
        "compensate": ((None,), "no layer reads less than it did; replace='affine' fits what stands for a block"),
    },
}


def check_depth_options(model: nn.Module, options: Options) -> None:
    """Raises InputError where an option that is asked for says nothing of depth.

    With ``uniform`` also where nobody knows a configuration of the model; ConfigError for branches, which none says.
    """
    if options.choice.uniform:
        known_words(model)
        if branches := [str(role) for role in BRANCHES if role in (options.scope.roles or ())]:
            raise ConfigError(
                f"no configuration says that a layer is without one of its branches ({', '.join(branches)})",
                hint='roles=["depth.block"] takes whole layers; or leave uniform out',
            )
    for record, table in _INSTEAD.items():
        for name, (fitting, instead) in table.items():
            value = getattr(getattr(options, record), name)
            if not any(value is each or (type(value) is type(each) and value == each) for each in fitting):
                raise InputError(
                    f"{name}={value!r} is asked for, and nothing but blocks or branches goes",
                    where=name,
                    hint=f"{instead}; or prune widths in the same call, by their roles beside depth",
                )


def beside_widths(options: Options) -> Options:
    """The options of a recipe for depth: what says something of widths alone is left to its other stages."""
    return options.replaced(**{name: fitting[0] for table in _INSTEAD.values() for name, (fitting, _) in table.items()})
