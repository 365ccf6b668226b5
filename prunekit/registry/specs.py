"""How a model's name is written: ``source:name``, with arguments as ``?key=value&key=value``."""

from __future__ import annotations

import ast
from typing import Any

from prunekit.errors import RegistryError


def parts_of(spec: str) -> tuple[str, str, dict[str, Any]]:
    """(source, name, arguments). An argument is a Python literal, or else text. Raises RegistryError."""
    named, mark, written = spec.partition("?")
    source, _, name = named.partition(":")
    found: dict[str, Any] = {}
    for pair in written.split("&") if mark else []:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier() or key in found:
            raise RegistryError(
                f"{spec} is not written as a model's name", hint="SOURCE:NAME?num_classes=10&in_chans=1"
            )
        found[key] = _literal(text)
    return source, name, found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)
