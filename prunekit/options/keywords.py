"""Functions whose keywords are the options: their signatures and docstrings show every field."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Collection
from typing import TypeVar

from prunekit.options.together import options_said

MARK = "{options}"
Function = TypeVar("Function", bound=Callable[..., object])


def takes_options(without: Collection[str] = ()) -> Callable[[Function], Function]:
    """Shows the options in the place of ``**keywords``, and in that of ``{options}`` in the docstring."""

    def show(function: Function) -> Function:
        taken = {name: default_and_said for name, default_and_said in options_said().items() if name not in without}
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        named = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, (default, _) in taken.items()
        ]
        at = next((n for n, p in enumerate(own) if p.kind is inspect.Parameter.KEYWORD_ONLY), len(own))
        function.__signature__ = signature.replace(parameters=[*own[:at], *named, *own[at:]])  # type: ignore[attr-defined]
        lines = [_line(name, about.doc) for name, (_, about) in taken.items()]
        function.__doc__ = (function.__doc__ or "").replace(MARK, "\n".join(lines).strip())
        return function

    return show


def _line(name: str, doc: str) -> str:
    return textwrap.fill(f"{name}: {doc}", 110, initial_indent=" " * 8, subsequent_indent=" " * 12)
