"""Flags of a command that follow from the fields of the options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from prunekit.options.together import options_said

ASKED = "asked"  # the parameter of a command that these flags stand for
Asked = Mapping[str, Any]


def _kind(repeats: bool, is_switch: bool) -> Any:
    return bool | None if is_switch else list[str] | None if repeats else str | None


def with_flags(command: Callable[..., None] | None = None, *, without: Collection[str] = ()) -> Callable[..., Any]:
    """Gives ``command`` a flag for every option that says so; ``asked`` gets those that were given, by name, read.

    ``without`` are options that the command has no use for; given alone, it makes the decorator.
    """
    if command is None:
        return functools.partial(with_flags, without=without)
    said = {name: about for name, (_, about) in options_said().items() if about.flag and name not in without}
    switches = {name for name, (default, _) in options_said().items() if isinstance(default, bool)}
    hints: dict[str, Any] = get_type_hints(command, include_extras=True)
    hints.pop(ASKED)
    flags = {
        name: Annotated[_kind(about.repeats, name in switches), typer.Option(help=about.flag)]
        for name, about in said.items()
    }

    @functools.wraps(command)
    def run(**given: Any) -> None:
        asked = {}
        for name, about in said.items():
            value = given.pop(name)
            if value is not None:
                asked[name] = value if about.read is None else about.read(value)
        command(**given, asked=asked)

    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == ASKED:
            parameters += [
                inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=flag)
                for name, flag in flags.items()
            ]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = hints | flags
    del run.__wrapped__  # or typer would look past this function
    return run
