"""The reference reference of the options, out of their fields."""

from __future__ import annotations

from prunekit.options.fields import said_of
from prunekit.options.together import RECORDS

HEAD = """# Options

Keywords of `prunekit.prune`, and, where they have a use for them, of `prunekit.plan` and `prunekit.compare`; or, as
one value, `options=prunekit.options.Options.of(ratio=0.3, ranking="global")`. This page is made from the fields in
`prunekit/options/` by `python -m benchmarks.options_page`, and a test holds it to them.
"""


def options_reference() -> str:
    """Markdown: a table for every record."""
    parts = [HEAD]
    for record in RECORDS.values():
        title = (record.__doc__ or "").split(".")[0]
        rows = [
            f"| `{name}` | `{each.default!r}` | {_ways(name, about.flag, about.setting)} | {about.doc} |"
            for name, (each, about) in said_of(record).items()
        ]
        parts.append(f"## {title}\n\n| keyword | default | elsewhere | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _ways(name: str, flag: str, setting: object) -> str:
    ways = [f"`--{name.replace('_', '-')}`"] if flag else []
    return ", ".join([*ways, *([f"setting `{name}={setting}`"] if setting is not None else [])])
