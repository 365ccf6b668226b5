"""What the installed plug-ins know by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prunekit.plugins.contract import Foreign, ModelEntry, Plugin
from prunekit.plugins.discovery import discover
from prunekit.plugins.examination import Examiner
from prunekit.registry.specs import parts_of


def home(spec: str, plugins: Iterable[Plugin] | None = None) -> tuple[Plugin, ModelEntry] | None:
    """The plug-in that ``spec`` belongs to and what it says about that model; None for other models."""
    source, _, name = spec.partition(":")
    known = discover() if plugins is None else plugins
    return next(((p, p.models[name]) for p in known if p.name == source and name in p.models), None)


def foreign(folder: Path, plugins: Iterable[Plugin] | None = None) -> tuple[Plugin, Foreign] | None:
    """The plug-in that knows another library's ``folder``, and how; None where none does."""
    known = discover() if plugins is None else plugins
    return next(((p, f) for p in known for f in p.foreign.values() if f.recognises(folder)), None)


def examiner_of(spec: str, plugins: Iterable[Plugin] | None = None) -> Examiner | None:
    """What scores the model of this name; None where nothing does. No model is built."""
    known = tuple(discover() if plugins is None else plugins)
    if named := home(spec, known):
        return named[0].examiners.get(named[1].examiner)
    found = _source_of(spec, known)
    if found is None:
        return None
    # where the weights lie in a folder that another plug-in knows, it is for that one to judge them
    place = Path(parts_of(spec)[1])
    others = tuple(plugin for plugin in known if plugin is not found)
    if place.is_dir() and (theirs := foreign(place, others)):
        return theirs[0].examiners.get(theirs[1].examiner)
    return found.examiners.get(found.source_examiner)


def lies_at_source(spec: str, plugins: Iterable[Plugin] | None = None) -> Plugin | None:
    """The plug-in for which ``spec`` says where weights lie; None where a model is only named."""
    found = _source_of(spec, discover() if plugins is None else plugins)
    return found if spec.partition(":")[2] else None


def _source_of(spec: str, known: Iterable[Plugin]) -> Plugin | None:
    """The plug-in that builds models by where they lie, if ``spec`` is of its kind; the place may be missing."""
    source, _, name = spec.partition(":")
    return next((p for p in known if p.name == source and p.source is not None and name not in p.models), None)


def names(plugins: Iterable[Plugin] | None = None) -> tuple[str, ...]:
    """Every model of every plug-in, as ``<plug-in>:NAME``."""
    known = discover() if plugins is None else plugins
    return tuple(f"{plugin.name}:{name}" for plugin in known for name in plugin.models)
