"""All options in one value, made from the keywords of ``prunekit.prune`` and handed on unopened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from prunekit.errors import InputError
from prunekit.options.choice import Choice
from prunekit.options.cutting import Cutting
from prunekit.options.fields import Said, Setting, said_of
from prunekit.options.scope import Scope

RECORDS: Mapping[str, Any] = {"scope": Scope, "choice": Choice, "cutting": Cutting}


@dataclass(frozen=True)
class Options:
    """What goes (``scope``), how it is chosen (``choice``), how it is cut and checked (``cutting``)."""

    scope: Scope = field(default_factory=Scope)
    choice: Choice = field(default_factory=Choice)
    cutting: Cutting = field(default_factory=Cutting)

    @classmethod
    def of(cls, **keywords: Any) -> Options:
        """The options that keywords name. Raises InputError for an unknown one, with the nearest, and for values."""
        return cls().replaced(**keywords)

    def replaced(self, **keywords: Any) -> Options:
        """These options with some replaced. Raises what ``of`` raises."""
        from difflib import get_close_matches

        homes = {each.name: home for home, record in RECORDS.items() for each in fields(record)}
        for name in keywords:
            if name not in homes:
                near = ", ".join(get_close_matches(name, homes, n=3, cutoff=0.4)) or ", ".join(homes)
                raise InputError(f"there is no option {name!r}", where=name, hint=f"try {near}")
        changed = {}
        for home in dict.fromkeys(homes[name] for name in keywords):
            values = {name: value for name, value in keywords.items() if homes[name] == home}
            changed[home] = replace(getattr(self, home), **values)
        return replace(self, **changed)

    def refuse(self, caller: str, names: Collection[str]) -> None:
        """Raises InputError where one of ``names`` was asked for, which ``caller`` has no use for."""
        for home, record in RECORDS.items():
            for each in fields(record):
                if each.name in names and getattr(getattr(self, home), each.name) != each.default:
                    raise InputError(
                        f"{caller} has no use for {each.name}",
                        where=each.name,
                        hint="leave it out, or call prunekit.prune",
                    )


def options_said() -> dict[str, tuple[Any, Said]]:
    """Every option by name: its default, and what it says of itself."""
    return {
        name: (each.default, about) for record in RECORDS.values() for name, (each, about) in said_of(record).items()
    }


def settings_said() -> dict[str, Said]:
    """The options that are recipe settings too."""
    return {name: about for name, (_, about) in options_said().items() if about.setting is not None}


def from_settings(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The options among a recipe's settings, as keywords; an empty or zero one stands for None where None may be."""
    defaults = options_said()
    found = {}
    for name in settings_said():
        if name in settings:
            value = settings[name]
            found[name] = None if defaults[name][0] is None and not value else value
    return found
