"""What the stages of a recipe file may say, key by key: reading a stage and writing it share the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from prunekit.errors import InputError
from prunekit.recipes import Distil, Evaluate, Even, Falling, Prune, Term, Weighting
from prunekit.roles import DEPTH, ROLES
from prunekit.runfiles.keys import unknown_key
from prunekit.runfiles.values import not_taken, one_switch, one_text, perhaps_empty
from prunekit.runfiles.yaml_tree import Entries, Node, Several, Text

MOST_STAGES, MOST_TERMS, LONGEST = 64, 32, 200  # stages of a file, terms of a loss, characters of a title
WEIGHTINGS: Mapping[str, Weighting] = {"even": Even(), "falling": Falling()}
KINDS: Mapping[str, type] = {"evaluate": Evaluate, "prune": Prune, "distil": Distil}  # by the key that holds the title


@dataclass(frozen=True)
class StageKey:
    """``takes`` is said in words; ``default`` is MISSING where the key must be there."""

    read: Callable[[Node], Any]
    takes: str
    default: Any


def keys_of(kind: type) -> dict[str, StageKey]:
    """The keys of a stage or term by name, out of its fields."""
    hints = get_type_hints(kind)
    found = {}
    for each in fields(kind):
        reader, takes = _READERS.get((kind, each.name)) or _by_type(hints[each.name])
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        found[each.name] = StageKey(reader, takes, default)
    return found


def read_fields(kind: type, node: Node, first: str = "") -> Any:
    """A stage or term out of a mapping, in which ``first`` stands for its title. Raises InputError with the line."""
    known = keys_of(kind)
    names = {first if first and name == "title" else name: name for name in known}
    if not isinstance(node, Entries):
        not_taken(node, f"a mapping of {', '.join(names)}")
    given = {}
    for said, value in node.values.items():
        if said not in names:
            unknown_key(said, names, node.spots[said])
        given[names[said]] = known[names[said]].read(value)
    for said, name in names.items():
        if known[name].default is MISSING and name not in given:
            raise InputError(f"this has no {said}", where=str(node.spot), hint=f"add {said}: {known[name].takes}")
    return kind(**given)


def _by_type(hint: Any) -> tuple[Callable[[Node], Any], str]:
    words = [word for word in _words_of(hint) if isinstance(word, str)]
    if words:
        return (lambda node: _one_of(node, words)), "one of " + ", ".join(word or '""' for word in words)
    if hint is bool:
        return one_switch, "true or false"
    if hint is float:
        return _share_of_all, "a share in (0, 1]"
    return one_line, "a text"


def _words_of(hint: Any) -> list[Any]:
    """The words of a Literal, also inside a union."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for each in get_args(hint) for word in _words_of(each)] if get_args(hint) else []


def _one_of(node: Node, words: list[str]) -> str:
    text = perhaps_empty(node)
    if text not in words:
        not_taken(node, "one of " + ", ".join(word or '""' for word in words))
    return text


def one_line(node: Node) -> str:
    """A text of one line, not too long to be shown."""
    text = one_text(node)
    if len(text) > LONGEST or not text.isprintable():
        not_taken(node, f"a text of one line, of {LONGEST} characters at most")
    return text


def _share_of_all(node: Node) -> float:
    try:
        value = float(one_text(node))
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:  # NaN too
        not_taken(node, "a share in (0, 1]")
    return value


def _above_zero(node: Node) -> float:
    try:
        value = float(one_text(node))
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:  # NaN too
        not_taken(node, "a number above 0")
    return value


def some_roles(node: Node) -> tuple[str, ...]:
    """A role or a list of roles, each known here or to a plug-in."""
    several = node.items if isinstance(node, Several) and node.items else (node,)
    return tuple(_role(each) for each in several)


def _role(node: Node) -> str:
    from prunekit.plugins.discovery import discover

    text = one_text(node)
    known = [str(role) for role in (*(role for plugin in discover() for role in plugin.roles), *ROLES, *DEPTH)]
    if text not in known:
        near = get_close_matches(text, known, n=3, cutoff=0.5) or known
        raise InputError(f"there is no role {text!r}", where=str(node.spot), hint=f"try {', '.join(near)}")
    return text


def _pools(node: Node) -> tuple[tuple[str, ...], ...]:
    if not isinstance(node, Several) or not node.items:
        not_taken(node, "a list of pools, each a role or a list of roles: [[attention.head_dim], [mlp.hidden]]")
    return tuple(some_roles(each) for each in node.items)


def _alignment(node: Node) -> dict[str, int | str]:
    if not isinstance(node, Entries):
        not_taken(node, "a mapping from roles to whole numbers, or to heads")
    return {_role(Text(role, node.spots[role])): _alignment_step(each) for role, each in node.values.items()}


def _alignment_step(node: Node) -> int | str:
    text = one_text(node)
    if text == "heads":
        return text
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        not_taken(node, "a whole number, at least 1, or heads")
    return int(text)


def _some_terms(node: Node) -> tuple[Term, ...]:
    if not isinstance(node, Several) or not 0 < len(node.items) <= MOST_TERMS:
        not_taken(node, f"a list of terms, {MOST_TERMS} at most: - name: output")
    return tuple(read_fields(Term, each) for each in node.items)


def _one_weighting(node: Node) -> Weighting:
    return WEIGHTINGS[_one_of(node, list(WEIGHTINGS))]


_READERS: Mapping[tuple[type, str], tuple[Callable[[Node], Any], str]] = {
    (Prune, "pools"): (_pools, "a list of pools, each a role or a list of roles"),
    (Prune, "align"): (_alignment, "a mapping from roles to whole numbers, or to heads"),
    (Prune, "bound"): (some_roles, "a role or a list of roles"),
    (Term, "roles"): (some_roles, "a role or a list of roles"),
    (Term, "factor"): (_above_zero, "a number above 0"),
    (Distil, "terms"): (_some_terms, "a list of terms"),
    (Distil, "weighting"): (_one_weighting, "even or falling"),
}
