"""What only ``make sweep`` goes through: of a list of models those of which the suite has others of their kind."""

import pytest


def but_for_sweeps(names, swept):
    """Parameters: every name, those of ``swept`` marked."""
    assert set(swept) <= set(names), set(swept) - set(names)
    return [pytest.param(name, marks=pytest.mark.sweep) if name in swept else name for name in names]
