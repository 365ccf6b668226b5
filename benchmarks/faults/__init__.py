"""Faults on purpose: nothing may be lost, nothing silently wrong. ``python -m benchmarks.faults`` counts them."""
