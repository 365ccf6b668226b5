"""A run that is asked to end: it does so where it can be gone on with."""

from __future__ import annotations

from collections.abc import Callable

Asked = Callable[[], bool]  # whether the run is to end as soon as what it did is kept


class Stopped(BaseException):
    """A run ended since it was asked to. No Exception, so that nothing takes it for a fault and goes on."""
