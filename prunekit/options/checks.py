"""Checks of single values: each refuses what cannot be, by the option's name, what came, and what is accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from prunekit.errors import InputError
from prunekit.options.shares import exact_ratio


def refuse(name: str, value: object, accepted: str) -> NoReturn:
    """Raises InputError that names the option, shows the value and says what is accepted."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{type(value).__name__} {shown[:60]}..."
    raise InputError(f"{name}={shown} cannot be used", where=name, hint=f"pass {accepted}")


def check_ratio(name: str, value: Any) -> None:
    """A share in [0, 1), or a mapping from names and patterns to shares."""
    if value is None:
        return
    accepted = "a share in [0, 1), or a mapping from roles, names or patterns to shares"
    if isinstance(value, Mapping):
        if not value:
            refuse(name, value, accepted)
        _check_keys(name, value)
        for key, share in value.items():
            exact_ratio(share, f"{name}[{key if isinstance(key, str) else type(key).__name__!r}]")
    elif isinstance(value, str):
        raise InputError(f"{value!r} is not a pruning ratio", where=name, hint=f"pass {accepted}")
    elif isinstance(value, (list, tuple, set)):
        refuse(name, value, accepted)
    else:
        exact_ratio(value, name)


def check_names(name: str, value: Any) -> None:
    """A name or a module, or several."""
    if value is None or isinstance(value, str) or _is_module(value):
        return
    accepted = "a glob, a module of the model, or a list of them"
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        refuse(name, value, accepted)
    for each in value:
        if not isinstance(each, str) and not _is_module(each):
            refuse(name, each, accepted)


def check_scorer(name: str, value: Any) -> None:
    """A criterion, or its name."""
    if value is None or isinstance(value, str):
        return
    if isinstance(value, type):
        refuse(name, value, f"an object: {value.__name__}()")
    if not callable(getattr(value, "score", None)):
        refuse(name, value, "a criterion such as prunekit.Magnitude(), or its name")


def check_seed(name: str, value: Any) -> None:
    """A whole number that torch's generators take."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        refuse(name, value, "a whole number from 0 to 2**63 - 1")


def check_align(name: str, value: Any) -> None:
    """A whole number of at least 1, or a mapping to such."""
    if isinstance(value, Mapping):
        _check_keys(name, value)
    for each in value.values() if isinstance(value, Mapping) else [] if value is None else [value]:
        if isinstance(each, bool) or not isinstance(each, int) or each < 1:
            raise InputError(f"{each!r} is not a number of units", where=name, hint="pass a whole number >= 1")


def _check_keys(name: str, value: Mapping[Any, Any]) -> None:
    for key in value:
        if not isinstance(key, str) and not _is_module(key):
            refuse(name, key, "names, roles, patterns or modules as the keys of a mapping")


def check_bool(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        refuse(name, value, "True or False")


def check_word(name: str, value: Any, words: Iterable[str]) -> None:
    """One of the words."""
    known = tuple(words)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={value!r} is not a {name}", where=name, hint=f"one of {', '.join(map(repr, known))}")


def check_pools(name: str, value: Any) -> None:
    """Pools of names of roles or modules."""
    if value is None:
        return
    accepted = "a list of pools, each a list of roles or modules"
    if not isinstance(value, (list, tuple, set, frozenset)):
        refuse(name, value, accepted)
    for pool in value:
        if isinstance(pool, str):
            continue
        if not isinstance(pool, (list, tuple, set, frozenset)) or not all(isinstance(role, str) for role in pool):
            refuse(name, pool, accepted)


def check_call(name: str, value: Any, signature: str) -> None:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        refuse(name, value, f"a function {signature}")


def _is_module(value: object) -> bool:
    return hasattr(value, "named_modules")
