"""Every key of a run file: what it is for, what it takes, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any, NoReturn

from prunekit.errors import InputError
from prunekit.options.fields import Said
from prunekit.options.together import options_said
from prunekit.runfiles.asked_run import ExportAsked, RunFile
from prunekit.runfiles.spots import Spot
from prunekit.runfiles.values import (
    Read,
    not_taken,
    one_path,
    one_switch,
    one_text,
    one_whole,
    some_settings,
    some_shares,
    some_texts,
)
from prunekit.runfiles.yaml_tree import Entries, Node, Several


@dataclass(frozen=True)
class Key:
    """``takes`` is said in words; ``default`` is what holds where the key is not there; None: nothing."""

    read: Read
    takes: str
    doc: str
    default: Any = None


_KINDS: Mapping[str, tuple[Read, str]] = {
    "Path": (one_path, "a path"),
    "str": (one_text, "a text"),
    "int": (one_whole, "a whole number"),
}


def run_keys() -> dict[str, Key]:
    """The keys by name, in the order in which they are written."""
    found: dict[str, Key] = {}
    for each in fields(RunFile):
        if each.name == "options":
            found |= {name: _of_option(default, about) for name, (default, about) in _options().items()}
        elif "said" in each.metadata:
            about: Said = each.metadata["said"]
            read, takes = _KINDS.get(str(each.type).removesuffix(" | None"), (one_text, "a text"))
            found[each.name] = Key(read, takes, about.doc, each.default)
    found["settings"] = Key(some_settings, "a mapping from names to values", found["settings"].doc)
    found["export"] = Key(
        _exports_asked, f"a mapping of {', '.join(_of_export())}, or a list of such", found["export"].doc
    )
    return found


def option_keys() -> tuple[str, ...]:
    """The keys that are options of ``prunekit.prune``."""
    return tuple(_options())


def unknown_key(name: str, known: Mapping[str, Any], spot: Spot) -> NoReturn:
    """Raises InputError that names the nearest right keys."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    raise InputError(
        f"there is no key {name!r}",
        where=str(spot),
        hint=f"did you mean {', '.join(near)}?" if near else f"the keys are {', '.join(known)}",
    )


def _options() -> dict[str, tuple[Any, Said]]:
    return {name: (default, about) for name, (default, about) in options_said().items() if about.flag}


def _of_option(default: Any, about: Said) -> Key:
    read: Read
    if isinstance(default, bool):
        read, takes = one_switch, "true or false"
    elif about.repeats:
        read, takes = some_texts, "a text or a list of texts"
    elif about.read is not None:
        read, takes = some_shares, "a share in [0, 1), or a mapping from roles, names or patterns to shares"
    else:
        read, takes = one_text, "a text"
    return Key(read, takes, about.doc, default)


def _of_export() -> dict[str, Key]:
    kinds: dict[str, tuple[Read, str]] = {
        "to": (one_text, "a text"),
        "out": (one_path, "a path"),
        "precision": (some_texts, "a text or a list"),
    }
    return {each.name: Key(*kinds[each.name], each.metadata["said"].doc, each.default) for each in fields(ExportAsked)}


def _exports_asked(node: Node) -> tuple[ExportAsked, ...]:
    if isinstance(node, Several):
        return tuple(_export_asked(each) for each in node.items)
    return (_export_asked(node),)


def _export_asked(node: Node) -> ExportAsked:
    known = _of_export()
    if not isinstance(node, Entries):
        not_taken(node, f"a mapping of {', '.join(known)}")
    given: dict[str, Any] = {}
    for name, value in node.values.items():
        if name not in known:
            unknown_key(name, known, node.spots[name])
        given[name] = known[name].read(value)
    for name, key in known.items():
        if key.default is MISSING and name not in given:
            raise InputError(f"this export has no {name}", where=str(node.spot), hint=f"add {name}: {key.takes}")
    return ExportAsked(given["to"], given["out"], tuple(given.get("precision", ())))
