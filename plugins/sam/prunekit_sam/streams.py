"""Tars read from beginning to end, each by one worker of one rank: training beyond the reach of random access."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from prunekit.errors import DataError, InputError
from prunekit.samples import Skipped

from .sample import MaskedImage, annotated, bare, decode_image
from .tars import IMAGES, NOTES, halves


def stream(
    tars: Sequence[str | Path],
    rank: int = 0,
    ranks: int = 1,
    *,
    masks: bool = True,
    note: Callable[[Skipped], object] | None = None,
) -> Iterator[MaskedImage]:
    """Samples of the tars that are this rank's, and this worker's where a torch DataLoader iterates.

    Every tar is read by exactly one worker of one rank, in the order given. An image and its JSON file need not be
    neighbours: what comes first waits in memory for the other. With `masks=False` JSON files are passed over.

    Args:
        tars: paths, or whatever else webdataset opens.
        rank, ranks: this process's number, and how many there are; there must be a tar for each.
        note: is told of what is left out: broken items, halves alone, tars that break off. In the worker's process.

    Raises `InputError` for a rank out of range or without webdataset, `DataError` for fewer tars than ranks.
    """
    try:
        import webdataset
    except ImportError as error:
        raise InputError("streams need webdataset", hint="pip install 'prunekit-sam[webdataset]'") from error
    if not 0 <= rank < ranks:
        raise InputError(f"no rank {rank} among {ranks}", hint="0 <= rank < ranks")
    if len(tars) < ranks:
        raise DataError(f"{len(tars)} tars for {ranks} ranks", hint="give at least one tar a rank")
    mine = [str(tar) for tar in tars][rank::ranks]
    return _read_members(webdataset, mine, masks, note or (lambda skipped: None))


def _read_members(
    webdataset: Any, tars: list[str], masks: bool, note: Callable[[Skipped], object]
) -> Iterator[MaskedImage]:
    for tar in webdataset.split_by_worker(tars):
        yield from _paired(webdataset, tar, masks, note)


def _paired(webdataset: Any, tar: str, masks: bool, note: Callable[[Skipped], object]) -> Iterator[MaskedImage]:
    """The samples of one tar, each as soon as both its halves are read."""

    def broken(error: Exception) -> bool:
        note(Skipped(tar, f"not readable as a tar to its end: {error.args[0] if error.args else error!r}"))
        return True

    waiting: dict[str, tuple[str, bytes]] = {}
    for member in _members(webdataset, tar, (*IMAGES, NOTES) if masks else IMAGES, broken):
        name, data = member["fname"], member["data"]
        stem, suffix = halves(name)
        if not masks:
            other = None
        elif stem in waiting and (halves(waiting[stem][0])[1] == NOTES) != (suffix == NOTES):
            other = waiting.pop(stem)
        else:
            waiting[stem] = (name, data)
            continue
        (image, pixels), notes = ((name, data), other) if suffix != NOTES else (other or ("", b""), (name, data))
        try:
            decoded = decode_image(pixels, f"{tar}/{PurePosixPath(image)}")
            sample = (
                annotated(PurePosixPath(stem).name, decoded, notes[1], f"{tar}/{PurePosixPath(notes[0])}")
                if notes
                else None
            )
            yield sample or bare(PurePosixPath(stem).name, decoded)
        except DataError as error:
            note(Skipped(f"{tar}/{PurePosixPath(image)}", error.what))
    for name, _ in waiting.values():
        lacks = "a JSON file without its image" if halves(name)[1] == NOTES else "an image without its JSON file"
        note(Skipped(f"{tar}/{PurePosixPath(name)}", lacks))


def _members(
    webdataset: Any, tar: str, wanted: Sequence[str], broken: Callable[[Exception], bool]
) -> Iterator[dict[str, Any]]:
    """The members with these suffixes, as `fname` and `data`."""
    readers = webdataset.tariterators
    for source in readers.url_opener([{"url": tar}], handler=broken):
        with closing(source["stream"]):  # webdataset leaves it open
            yield from readers.tar_file_expander(
                [source], handler=broken, select_files=lambda name: halves(name)[1] in wanted, eof_value=None
            )
