"""Counts, limits, gauges, stopwatches and tables of operator times."""
