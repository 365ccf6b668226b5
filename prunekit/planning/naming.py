"""Module objects in the place of their names: wherever an option takes a name, the module itself is as good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import nn

from prunekit.errors import InputError
from prunekit.options import Options
from prunekit.options.together import RECORDS

NAMES = ("include", "exclude", "ratio", "min_ratio", "max_ratio", "align")


def by_name(options: Options, model: nn.Module) -> Options:
    """``options`` with the paths of modules of ``model`` in the place of the modules. Raises InputError for others."""
    paths: dict[int, str] = {}

    def named(value: Any, where: str) -> Any:
        if isinstance(value, nn.Module):
            if not paths:
                paths.update((id(module), path) for path, module in model.named_modules())
            if not paths.get(id(value)):
                raise InputError(
                    f"{type(value).__name__} is no module inside the model", where=where, hint="pass one of its modules"
                )
            return paths[id(value)]
        return value

    def all_named(value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            return {named(key, where): each for key, each in value.items()}
        if isinstance(value, (list, tuple, set, nn.ModuleList)):
            return [named(each, where) for each in value]
        found = named(value, where)
        return [found] if isinstance(value, nn.Module) else found

    changed = {}
    for home, record in RECORDS.items():
        given = {each.name: getattr(getattr(options, home), each.name) for each in fields(record) if each.name in NAMES}
        written = {name: all_named(value, name) for name, value in given.items() if value is not None}
        if any(written[name] != given[name] for name in written):
            changed[home] = replace(getattr(options, home), **written)
    return replace(options, **changed) if changed else options
