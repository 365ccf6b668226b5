"""Distillation towards frozen teachers: what is compared, what is remembered, and the loop that learns from it."""

from prunekit.recipes.distil.loop import distil
from prunekit.recipes.distil.losses import floats, term_losses
from prunekit.recipes.distil.settings import Settings

__all__ = ["Settings", "distil", "floats", "term_losses"]
