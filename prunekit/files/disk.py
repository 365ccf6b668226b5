"""What is written reaches the disk, folders change places in one step, and a disk's own faults say what to do."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from prunekit.errors import CheckpointError

# What a disk is at fault for, and not the code that writes
FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM})
# and what is no path at all, or a file where a folder should be
FAULTS |= {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def disk_faults(path: Path, lost: str) -> Iterator[None]:
    """CheckpointError where a disk refuses what the block writes to ``path``; ``lost`` says what became of it."""
    try:
        yield
    except SafetensorError as error:  # has no number: it names the system's message
        raise _disk_error(path, str(error), lost) from error
    except OSError as error:
        if error.errno not in FAULTS:
            raise
        raise _disk_error(Path(error.filename or path), error.strerror or str(error), lost) from error


def _disk_error(path: Path, reason: str, lost: str) -> CheckpointError:
    return CheckpointError(
        f"cannot write {path}: {reason}; {lost}", hint="free space there, or choose another output folder"
    )


def flushed(path: Path) -> None:
    """The content of a file, or the names in a folder, reach the disk before anything that is done next."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(PermissionError):  # some systems flush only what is open for writing
            os.fsync(handle)
    finally:
        os.close(handle)


def flushed_tree(folder: Path) -> None:
    """Every file below ``folder``, and every folder's names."""
    for above, _, files in os.walk(folder):
        for name in files:
            if not (Path(above) / name).is_symlink():
                flushed(Path(above) / name)
        flushed(Path(above))


def exchanged(one: Path, other: Path) -> None:
    """The two folders change places: in one step where the system can, which Linux does; else in three renames."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None and call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return
    aside = one.with_name(f"{one.name}.aside")
    os.replace(other, aside)
    try:
        os.replace(one, other)
    except BaseException:
        os.replace(aside, other)
        raise
    os.replace(aside, one)
