"""Templates of pages, filled in: what is not marked as HTML is escaped."""

from __future__ import annotations

import re
from functools import cache
from typing import Any


def rendered(template: str, **values: Any) -> str:
    """``template`` of this room with ``values``. Charts are HTML already."""
    from importlib.metadata import version

    from markupsafe import Markup

    safe = {name: Markup(value) if name == "losses" else value for name, value in values.items()}
    text: str = _environment().get_template(template).render(version=version("prunekit"), **safe)
    return text


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("prunekit.pages", "")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    made.filters["breakable"] = _breakable
    return made


def _breakable(path: Any) -> Any:
    """A path of modules or folders that a narrow column breaks between its parts, not within one."""
    from markupsafe import Markup, escape

    # what is escaped holds none of these
    return Markup(re.sub(r"([./]|:(?=[A-Za-z]))(?=[^./:])", r"\1<wbr>", str(escape(path))))
