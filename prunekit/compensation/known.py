"""The names of compensations; the command's help shows them and must not wait for torch."""

from typing import Literal

Compensations = Literal["ridge", "ridge-in-order"]
