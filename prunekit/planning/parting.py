"""What the options ask of depth apart from what they ask of widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from prunekit.errors import InputError
from prunekit.options import Options, Scope
from prunekit.roles import DEPTH

_PREFIX = "depth."


@dataclass(frozen=True)
class Parted:
    """What the options ask of depth, and what they ask of widths; None where nothing."""

    depth: Options | None
    widths: Options | None


def parted(options: Options) -> Parted:
    """Options for depth apart from those for widths; raises what ``scopes_of`` raises."""
    depth, widths = scopes_of(options.scope)
    return Parted(
        None if depth is None else replace(options, scope=depth),
        None if widths is None else replace(options, scope=widths),
    )


def scopes_of(scope: Scope) -> tuple[Scope | None, Scope | None]:
    """What is asked of depth, and of widths; None where nothing.

    Blocks and branches go only where a role ``depth.*`` is named.

    Raises InputError for a ratio that leaves out some of what is asked for.
    """
    asked = {name: _apart(getattr(scope, name)) for name in ("roles", "include")}
    share = scope.ratio if isinstance(scope.ratio, Mapping) else None
    deep_keys = [key for key in share or {} if _is_deep(key)]
    if not (asked["roles"][0] or asked["include"][0] or (deep_keys and scope.roles is None)):
        return None, scope
    named = [name for name, (deep, _) in asked.items() if deep]
    shallow = any(asked[name][1] for name in named) or (not named and len(deep_keys) < len(share or {}))
    widths: dict[str, Any] = {name: list(asked[name][1]) for name in named}
    if share is not None and shallow:
        widths["ratio"] = {key: value for key, value in share.items() if key not in deep_keys}
    patterns = [*asked["roles"][0], *asked["include"][0]] or deep_keys
    depth: dict[str, Any] = {"roles": [str(r) for r in DEPTH if any(fnmatchcase(r, each) for each in patterns)]}
    if share is not None and (deep_keys or shallow):
        depth["ratio"] = {key: value for key, value in share.items() if key in deep_keys}
    depth["include"] = None if asked["include"][0] else scope.include
    if shallow and share is not None and not (depth["ratio"] and widths["ratio"]):
        raise InputError("the ratio says nothing of some of the roles", where="ratio", hint="name each of them")
    return replace(scope, **depth), replace(scope, **widths) if shallow else None


def _apart(names: Any) -> tuple[list[str], list[str]]:
    each = [names] if isinstance(names, str) else list(names or ())
    deep = [name for name in each if isinstance(name, str) and _is_deep(name)]
    return deep, [name for name in each if name not in deep]


def _is_deep(pattern: str) -> bool:
    return pattern.startswith(_PREFIX) and any(fnmatchcase(role, pattern) for role in DEPTH)
