"""Which formats there are, and for which models."""

from __future__ import annotations

from collections.abc import Iterable

from prunekit.exports.onnx_file import onnx_format
from prunekit.exports.torch_export import exported
from prunekit.plugins.contract import Plugin
from prunekit.plugins.discovery import discover
from prunekit.plugins.formats import Format
from prunekit.registry.lookup import home

GENERIC: dict[str, Format] = {"exported": exported, "onnx": onnx_format}


def known_formats(plugins: Iterable[Plugin] | None = None) -> dict[str, Format]:
    """Every format by name: those for any model, and those of the plug-ins."""
    known = discover() if plugins is None else plugins
    return GENERIC | {name: write for plugin in known for name, write in plugin.formats.items()}


def formats_for(spec: str, plugins: Iterable[Plugin] | None = None) -> dict[str, Format]:
    """The formats for the model that ``spec`` names: those for any model, and those that its plug-in has for it."""
    found = home(spec, plugins)
    if found is None:
        known = discover() if plugins is None else plugins
        source = spec.partition(":")[0]
        mine = (plugin.formats for plugin in known if plugin.name == source and plugin.source is not None)
        return GENERIC | dict(next(mine, {}))
    plugin, entry = found
    return GENERIC | {name: plugin.formats[name] for name in entry.formats}
