"""What single values of a run file may be: each reads a node, or says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from prunekit.errors import InputError
from prunekit.runfiles.yaml_tree import Entries, Node, Several, Text

_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
Read = Callable[[Node], Any]


def not_taken(node: Node, takes: str) -> NoReturn:
    """Raises InputError that shows the value and says what the key takes."""
    shown = node.value if isinstance(node, Text) else "a list" if isinstance(node, Several) else "a mapping"
    said = "nothing" if shown is None else repr(shown) if isinstance(node, Text) else shown
    said = said if len(said) <= 60 else f"{said[:57]}..."
    raise InputError(f"{said} cannot be used here", where=str(node.spot), hint=f"it takes {takes}")


def one_text(node: Node) -> str:
    """One text, not empty."""
    if isinstance(node, Text) and node.value:
        return node.value
    not_taken(node, "a text")


def perhaps_empty(node: Node) -> str:
    """One text, which may be empty."""
    if isinstance(node, Text) and node.value is not None:
        return node.value
    not_taken(node, 'a value; "" is an empty one')


def one_path(node: Node) -> Path:
    """A path."""
    return Path(one_text(node))


def one_whole(node: Node) -> int:
    """A whole number, at least 0."""
    if isinstance(node, Text) and node.value and node.value.isascii() and node.value.isdigit():
        return int(node.value[:20])  # more digits are no seed either
    not_taken(node, "a whole number, at least 0")


def one_switch(node: Node) -> bool:
    """True or false."""
    word = str(node.value).lower() if isinstance(node, Text) else ""
    if word in _TRUE | _FALSE:
        return word in _TRUE
    not_taken(node, "true or false")


def some_texts(node: Node) -> list[str]:
    """A list of texts, or one."""
    if isinstance(node, Several) and node.items:
        return [one_text(each) for each in node.items]
    if isinstance(node, Text) and node.value:
        return [node.value]
    not_taken(node, "a text or a list of texts")


def some_shares(node: Node) -> float | dict[str, float]:
    """A share, or a mapping from roles, names or patterns to shares."""
    if isinstance(node, Entries) and node.values:
        return {name: _share(each) for name, each in node.values.items()}
    return _share(node)


def _share(node: Node) -> float:
    takes = "a share in [0, 1), or a mapping from roles, names or patterns to shares"
    try:
        value = float(node.value or "") if isinstance(node, Text) else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:  # NaN too
        not_taken(node, takes)
    return value


def some_settings(node: Node) -> dict[str, str]:
    """A mapping from names to texts; a recipe says what they mean."""
    if isinstance(node, Entries):
        return {name: perhaps_empty(each) for name, each in node.values.items()}
    if isinstance(node, Text) and node.value is None:
        return {}
    not_taken(node, "a mapping: NAME: VALUE, one a line, each indented")
