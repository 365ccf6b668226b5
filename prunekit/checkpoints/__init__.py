"""Pruned models as folders of safetensors and JSON, without pickle."""

from prunekit.checkpoints.description import FORMAT, describe
from prunekit.checkpoints.reading import load, read
from prunekit.checkpoints.saving import Saveable, save

__all__ = ["FORMAT", "Saveable", "describe", "load", "read", "save"]
