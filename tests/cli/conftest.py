"""Commands run in this process: on a loaded machine they would fill silences on the standard error."""

import pytest

from prunekit.cli.console import pulse


@pytest.fixture(autouse=True)
def without_pulse(monkeypatch):
    """A test of the pulse sets its own patience."""
    monkeypatch.setattr(pulse, "FIRST", 3600.0)
