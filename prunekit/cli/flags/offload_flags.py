"""``--offload``: a run within less memory than its model has bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from prunekit.errors import InputError

if TYPE_CHECKING:
    from prunekit.runfiles import RunFile

MEMORY = "8GB"  # where only the folder is said


@contextmanager
def held_in_files(asked: RunFile) -> Iterator[None]:
    """``prunekit.offloaded`` as a run asks for it; nothing where it does not.

    Raises InputError for a memory without a folder, a device that has a memory of its own, and what ``offloaded`` does.
    """
    with ExitStack() as stack:
        with asked.spots.about("offload", "offload_memory"):
            stack.enter_context(_offloaded(asked))
        yield


def _offloaded(asked: RunFile) -> AbstractContextManager[None]:
    if asked.offload is None:
        if asked.offload_memory is not None:
            raise InputError(
                f"--offload-memory {asked.offload_memory} says how much stays in memory, nothing where the rest lies",
                where="--offload-memory",
                hint="add --offload FOLDER, on a disk with room for the model twice",
            )
        return nullcontext()
    if asked.device.partition(":")[0] != "cpu":
        raise InputError(
            f"--offload keeps weights in files of the CPU, and --device {asked.device} has a memory of its own",
            where="--offload",
            hint="leave out one of them",
        )
    from prunekit.offloading import offloaded

    return offloaded(asked.offload, MEMORY if asked.offload_memory is None else asked.offload_memory)
