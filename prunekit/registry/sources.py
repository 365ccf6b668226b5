"""Libraries that models come from: ``timm:NAME``, ``torchvision:NAME`` and ``python:pkg.mod:factory``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from prunekit.errors import RegistryError


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


SOURCES: Mapping[str, Callable[[str, Mapping[str, Any]], nn.Module]] = {
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
