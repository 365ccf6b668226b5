"""A model by its name, built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from prunekit.errors import RegistryError
from prunekit.files.weights import load_state, read_state
from prunekit.plugins.contract import ModelEntry, Plugin
from prunekit.plugins.discovery import discover
from prunekit.registry.lookup import names
from prunekit.registry.sources import SOURCES
from prunekit.registry.specs import parts_of


@dataclass(frozen=True)
class Built:
    """A model, the name that rebuilds it, and what its plug-in says about it.

    ``build(spec, **options)`` gives the same class with the same shapes again.
    """

    model: nn.Module
    spec: str
    options: Mapping[str, Any] = field(default_factory=dict)
    entry: ModelEntry | None = None
    plugin: Plugin | None = None

    @property
    def part(self) -> str:
        """Path of the submodule that is pruned; "" is the whole model."""
        return self.entry.part if self.entry else ""


def build(
    spec: str, *, checkpoint: str | Path | None = None, plugins: Iterable[Plugin] | None = None, **options: Any
) -> Built:
    """The model that ``spec`` names, in evaluation mode on the CPU.

    Args:
        spec: ``timm:NAME``, ``torchvision:NAME``, ``python:pkg.mod:factory`` or ``<plug-in>:NAME``; with arguments as
            ``timm:resnet18?num_classes=10&in_chans=1``.
        checkpoint: weights to load, strictly; without, what the factory gives (random for timm and torchvision).
        plugins: the plug-ins to look in; by default every installed one.
        options: keyword arguments for the factory of a library or Python model.

    Raises RegistryError for an unknown name (with the nearest) and CheckpointError for weights that do not fit.
    """
    known = tuple(discover() if plugins is None else plugins)
    source, name, written = parts_of(spec)
    options = written | options
    plugin = next((p for p in known if p.name == source), None)
    if plugin is not None and name:
        if name not in plugin.models and plugin.source is not None:
            model, entry = plugin.source(name, options)
            if checkpoint is not None:
                load_state(model, read_state(checkpoint), checkpoint)
            given = {key: value for key, value in options.items() if key not in written}
            return _spoken_for(Built(model.eval(), spec, given, entry, plugin), known)
        if name not in plugin.models:
            raise RegistryError.unknown("model", spec, [f"{source}:{other}" for other in plugin.models])
        if options:
            raise RegistryError(f"{spec} takes no options", hint=f"leave out {', '.join(sorted(options))}")
        entry = plugin.models[name]
        model = entry.factory(Path(checkpoint) if checkpoint is not None else None)
        return Built(model.eval(), spec, {}, entry, plugin)
    if source not in SOURCES or not name:
        raise RegistryError.unknown("model", spec, [*names(known), *(f"{source}:NAME" for source in SOURCES)])
    model = SOURCES[source](name, options)
    if checkpoint is not None:
        load_state(model, read_state(checkpoint), checkpoint)
    # what stands in the spec is said there
    given = {key: value for key, value in options.items() if key not in written}
    return _spoken_for(Built(model.eval(), spec, given), known)


def _spoken_for(built: Built, known: Iterable[Plugin]) -> Built:
    """``built`` with what another plug-in says of its model; whether widths should be uniform stays its source's."""
    for plugin in known:
        if plugin is not built.plugin and plugin.entry_of is not None:
            entry = plugin.entry_of(built.model)
            if entry is not None:
                uniform = entry.uniform or (built.entry is not None and built.entry.uniform)
                return replace(built, entry=replace(entry, uniform=uniform), plugin=plugin)
    return built
