"""Whether a folder's files are those that were written, so that a damaged one is never handed out as a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from torch import nn

from prunekit.checkpoints.description import MODEL, PLAN, REPORT, WEIGHTS, json_in
from prunekit.errors import CheckpointError
from prunekit.files.folders import CHECKSUMS, digest
from prunekit.files.weights import files_of, shard_index
from prunekit.modules.soundness import unsound

# pictures and exports beside them are listed too, but nothing here reads them
READ = (PLAN, MODEL, REPORT, shard_index(Path(WEIGHTS)).name)
SHOWN_TENSORS = 5
logger = logging.getLogger(__name__)


def check_damage(folder: Path) -> AbstractContextManager[Callable[[], None]]:
    """Raises CheckpointError where a file is not the one that was written. Folders of 0.1.0 have no checksums.

    The weights, by far the largest file, are read for it in another thread while the block runs. What is called there
    waits for the answer and raises as well; so does the end of the block, and damage is told before what it led to.
    """
    if not (folder / CHECKSUMS).is_file():
        logger.warning("%s has no checksums, as folders of prunekit 0.1.0: damage cannot be told", folder)
        return nullcontext(lambda: None)
    told = json_in(folder / CHECKSUMS)
    damaged = CheckpointError(f"{folder / CHECKSUMS} is damaged", hint="copy or save the folder again")
    if not isinstance(told, dict) or PLAN not in told:
        raise damaged
    for name in READ:
        if name in told:
            _compare(folder / name, told[name])
    weights = files_of(folder / WEIGHTS)
    if not {file.name for file in weights} <= told.keys():
        raise damaged
    return _weights_compared([(file, told[file.name]) for file in weights])


@contextmanager
def _weights_compared(files: Sequence[tuple[Path, object]]) -> Iterator[Callable[[], None]]:
    def compare() -> None:
        for path, told in files:
            _compare(path, told)

    with ThreadPoolExecutor(1) as beside:
        compared = beside.submit(compare)
        try:
            yield compared.result
        except Exception:  # not an interrupt, which must not become anything else
            compared.result()
            raise
        compared.result()


def _compare(path: Path, told: object) -> None:
    if path.is_file() and digest(path) != told:
        raise CheckpointError(
            f"{path} is damaged: its bytes are not those that were written", hint="copy or save the folder again"
        )


def name_not_finite(model: nn.Module, source: Path) -> None:
    """A notice with the names of weights that are not finite. The file is as it was written: what wrote it had them."""
    found = unsound(model)
    if found:
        more = f" and {len(found) - SHOWN_TENSORS} more" if len(found) > SHOWN_TENSORS else ""
        logger.warning("%s holds weights that are not finite: %s%s", source, ", ".join(found[:SHOWN_TENSORS]), more)
