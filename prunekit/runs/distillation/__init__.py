"""Distillation towards frozen teachers: what is compared, what is remembered, and the loop that learns from it."""

from prunekit.runs.distillation.loop import distil
from prunekit.runs.distillation.losses import floats, term_losses

__all__ = ["distil", "floats", "term_losses"]
