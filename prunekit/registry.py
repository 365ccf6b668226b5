"""Models by name: ``timm:NAME``, ``torchvision:NAME``, ``python:pkg.mod:factory`` and ``<plug-in>:NAME``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.errors import RegistryError
from prunekit.plugins import Foreign, ModelEntry, Plugin, discover
from prunekit.weights import load_state, read_state

if TYPE_CHECKING:
    from prunekit.scorers import Scorer


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
        spec: ``timm:NAME``, ``torchvision:NAME``, ``python:pkg.mod:factory`` or ``<plug-in>:NAME``.
        checkpoint: weights to load, strictly; without, what the factory gives (random for timm and torchvision).
        plugins: the plug-ins to look in; by default every installed one.
        options: keyword arguments for the factory of a library or Python model.

    Raises RegistryError for an unknown name (with the nearest) and CheckpointError for weights that do not fit.
    """
    known = tuple(discover() if plugins is None else plugins)
    source, _, name = spec.partition(":")
    plugin = next((p for p in known if p.name == source), None)
    if plugin is not None and name:
        if name not in plugin.models:
            raise RegistryError.unknown("model", spec, [f"{source}:{other}" for other in plugin.models])
        if options:
            raise RegistryError(f"{spec} takes no options", hint=f"leave out {', '.join(sorted(options))}")
        entry = plugin.models[name]
        model = entry.factory(Path(checkpoint) if checkpoint is not None else None)
        return Built(model.eval(), spec, {}, entry, plugin)
    if source not in _SOURCES or not name:
        raise RegistryError.unknown("model", spec, [*names(known), *(f"{source}:NAME" for source in _SOURCES)])
    model = _SOURCES[source](name, options)
    if checkpoint is not None:
        load_state(model, read_state(checkpoint), checkpoint)
    return Built(model.eval(), spec, dict(options))


def home(spec: str, plugins: Iterable[Plugin] | None = None) -> tuple[Plugin, ModelEntry] | None:
    """The plug-in that ``spec`` belongs to and what it says about that model; None for other models."""
    source, _, name = spec.partition(":")
    known = discover() if plugins is None else plugins
    return next(((p, p.models[name]) for p in known if p.name == source and name in p.models), None)


def foreign(folder: Path, plugins: Iterable[Plugin] | None = None) -> tuple[Plugin, Foreign] | None:
    """The plug-in that knows another library's ``folder``, and how; None where none does."""
    known = discover() if plugins is None else plugins
    return next(((p, f) for p in known for f in p.foreign.values() if f.recognises(folder)), None)


def names(plugins: Iterable[Plugin] | None = None) -> tuple[str, ...]:
    """Every model of every plug-in, as ``<plug-in>:NAME``."""
    known = discover() if plugins is None else plugins
    return tuple(f"{plugin.name}:{name}" for plugin in known for name in plugin.models)


def known_scorers(plugins: Iterable[Plugin] | None = None) -> dict[str, Callable[..., Scorer]]:
    """Every criterion by name: prunekit's own and those of the plug-ins."""
    from prunekit import scorers  # criteria are no part of building a model, and loading one should not wait for them

    own: dict[str, Callable[..., Scorer]] = {
        "activation": scorers.Activation,
        "apoz": partial(scorers.Activation, measure="apoz"),
        "batch_norm_scale": scorers.BatchNormScale,
        "disturbed_taylor": scorers.DisturbedTaylor,
        "fisher": scorers.Fisher,
        "fpgm": scorers.FPGM,
        "group_norm": scorers.GroupNorm,
        "lamp": scorers.LAMP,
        "magnitude": scorers.Magnitude,
        "magnitude_l1": partial(scorers.Magnitude, p=1),
        "obd": scorers.OBD,
        "random": scorers.Random,
        "saliency": scorers.Saliency,
        "taylor": scorers.Taylor,
        "wanda": scorers.Wanda,
    }
    for plugin in discover() if plugins is None else plugins:
        own |= plugin.scorers
    return own


def scorer(name: str, plugins: Iterable[Plugin] | None = None, **options: Any) -> Scorer:
    """The criterion ``name``, with those of ``options`` that it takes. Raises RegistryError with the nearest names."""
    known = known_scorers(plugins)
    plain = name.strip().lower().replace("-", "_")
    if plain not in known:
        raise RegistryError.unknown("scorer", name, known)
    taken = inspect.signature(known[plain]).parameters
    return known[plain](**{key: value for key, value in options.items() if key in taken})


def _timm(name: str, options: Mapping[str, Any]) -> nn.Module:
    timm = _library("timm")
    if name not in timm.list_models() and name not in timm.list_pretrained():
        raise RegistryError.unknown("model", f"timm:{name}", [f"timm:{other}" for other in timm.list_models()])
    return _made(f"timm:{name}", lambda: timm.create_model(name, **options))


def _torchvision(name: str, options: Mapping[str, Any]) -> nn.Module:
    models = _library("torchvision").models
    known = models.list_models()
    if name not in known:
        raise RegistryError.unknown("model", f"torchvision:{name}", [f"torchvision:{other}" for other in known])
    return _made(f"torchvision:{name}", lambda: models.get_model(name, **options))


def _python(name: str, options: Mapping[str, Any]) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise RegistryError(f"python:{name} names no factory", hint="write python:package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RegistryError(f"cannot import {module_name}: {error}", hint="is it on PYTHONPATH?") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [f"python:{module_name}:{n}" for n in vars(module) if not n.startswith("_")]
        raise RegistryError.unknown("model factory", f"python:{name}", public)
    return _made(f"python:{name}", lambda: factory(**options))


_SOURCES: Mapping[str, Callable[[str, Mapping[str, Any]], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "python": _python,
}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RegistryError(f"{name} is not installed", hint="pip install 'prunekit[timm]'") from error


def _made(spec: str, factory: Callable[[], Any]) -> nn.Module:
    try:
        model = factory()
    except Exception as error:  # the factory is someone else's code: any error of it is an unusable name or option
        raise RegistryError(f"{spec} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise RegistryError(f"{spec} gives a {type(model).__name__}, not a torch module")
    return model
