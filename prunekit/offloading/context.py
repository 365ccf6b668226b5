"""``prunekit.offloaded``: prune within less memory than the model has bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from prunekit.errors import InputError, expect
from prunekit.files.byte_counts import as_bytes
from prunekit.offloading.paging import memory_held_to
from prunekit.offloading.spilling import files_in


@contextmanager
def offloaded(scratch: str | Path, memory: int | str) -> Iterator[None]:
    """Within it, what pruning makes lies in files, and weights in files do not stay in memory.

    A model whose weights are mapped from safetensors is read from there, layer by layer as it runs: transformers'
    ``from_pretrained`` in the file's own dtype gives such a one, and so does ``load_state_dict(load_file(PATH),
    assign=True)`` on a model that was built on meta. Plans, cuts and figures are those of the same calls on the same
    mapped weights without it, to the bit. The pruned model lives in ``scratch`` afterwards too: save it, or keep the
    folder's disk until it is gone.

    Args:
        scratch: a folder on a disk with room for the pruned model. It is made where it does not exist; files in it
            have no names and vanish with the tensors, however the process ends.
        memory: what the process should hold at most, in bytes or as ``"8GB"``. What is not in files counts too and
            cannot be given back: libraries, activations, gradients. Criteria that look at gradients need as much as
            there are weights; ``Magnitude``, ``Wanda``, ``Activation`` and ``Random`` do not.

    Raises:
        InputError: for a size that is none, a folder that cannot be used, or a system other than Linux 5.4 or later.
    """
    expect("scratch", scratch, "the path of a folder", fits=isinstance(scratch, (str, PathLike)) and str(scratch) != "")
    limit = as_bytes("memory", memory)
    folder = Path(scratch)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
    except OSError as error:
        raise InputError(
            f"{scratch} cannot be used: {error.strerror}", where="scratch", hint="name a folder"
        ) from error
    with memory_held_to(limit, folder), files_in(folder):
        yield
