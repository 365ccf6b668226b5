"""Measurements behind the figures in docs/; each file says its command."""
