"""What no test may leave behind it."""

import gc
from collections.abc import Iterator

import pytest
import torch


def pytest_collection_finish() -> None:
    """Libraries and tests stay to the end: no collection of garbage goes through them again, for half a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    """One test that leaves gradients off would fail every later one of its process, far from the cause."""
    yield
    on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert on, "this test leaves gradients off"
