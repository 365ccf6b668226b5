"""A mode that sees operators, of which several threads may each have their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from torch.utils import _python_dispatch as theirs
from torch.utils._python_dispatch import TorchDispatchMode

from prunekit.modules.process_wide import ProcessWide

_NOTES = (
    "_is_in_torch_dispatch_mode",
    "_is_in_non_infra_torch_dispatch_mode",
    "_is_in_any_mode_without_ignore_compile_internals",
)
_TOLD = "set_is_in_mode_without_ignore_compile_internals"  # of what the last of them says


@ProcessWide
@contextmanager
def _notes_as_found() -> Iterator[None]:
    found = {name: getattr(theirs, name) for name in _NOTES if hasattr(theirs, name)}
    yield
    for name, value in found.items():
        setattr(theirs, name, value)
    if _NOTES[-1] in found and hasattr(theirs, _TOLD):
        getattr(theirs, _TOLD)(found[_NOTES[-1]])


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """torch's mode, which notes for all threads that one is on and puts back what it found.

    Where those of two threads overlap, the one that is left last found the other's note, and with that left behind
    torch.compile compiles nothing any more and does not say so.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: for what ``eager`` sees to already, torch would import its compiler, seconds in a first call."""
        return False

    def __enter__(self) -> Self:
        _notes_as_found.enter(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _notes_as_found.leave(self)
