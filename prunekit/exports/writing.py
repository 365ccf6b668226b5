"""From a folder that prunekit wrote to a folder in another format: read, write, compare; whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from prunekit.checkpoints.description import describe
from prunekit.checkpoints.reading import read
from prunekit.errors import ExportError, InputError, RegistryError
from prunekit.exports.table import formats_for, known_formats
from prunekit.files.folders import check_target, new_folder
from prunekit.plugins.contract import Plugin
from prunekit.plugins.formats import Compared

RECORD = "export.json"  # by which a folder is known as an export, which a later one may replace
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Exported:
    """What was written: the format, the files by name, and how far every output is off."""

    to: str
    spec: str
    part: str
    files: tuple[str, ...]
    compared: tuple[Compared, ...]


def export(
    folder: str | Path,
    to: str,
    out: str | Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    model: nn.Module | None = None,
    plugins: Iterable[Plugin] | None = None,
) -> Exported:
    """Write the pruned model of ``folder`` to ``out`` in the format ``to``, read it back and compare its outputs.

    Args:
        folder: what ``prunekit.save`` or ``prunekit prune`` wrote.
        to: a name of ``formats_for(spec)``.
        out: a new or empty folder, or one with an earlier export, which is then replaced.
        precisions: of ``PRECISIONS``; fp32 is always written, the others beside it.
        model: a fresh instance of the original class, as for ``prunekit.load``, where the folder names none.
        plugins: the plug-ins to look in; by default every installed one.

    Raises RegistryError for an unknown format, InputError for an unknown precision, ExportError for what the format
    cannot hold and where the outputs are off, and what ``prunekit.load`` raises. Nothing is left at ``out`` then.
    """
    folder, out = Path(folder), Path(out)
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise InputError(f"unknown precision {unknown[0]!r}", hint=f"one of {', '.join(PRECISIONS)}")
    known = None if plugins is None else tuple(plugins)
    spec = describe(folder)["spec"]
    formats = formats_for(spec, known)
    if to not in formats:
        if to not in known_formats(known):
            raise RegistryError.unknown("format", to, formats)
        raise RegistryError(f"format {to} is not for {spec}", hint=f"for this model: {', '.join(formats)}")
    check_target(out, RECORD)
    bundle = read(folder, model)
    with new_folder(out, RECORD) as draft:
        compared = tuple(formats[to](bundle, draft, tuple(dict.fromkeys(("fp32", *precisions)))))
        if not compared:
            raise ExportError("nothing was compared: the model gives no tensors", where=to)
        files = tuple(sorted(str(file.relative_to(draft)) for file in draft.rglob("*") if file.is_file()))
        done = Exported(to, spec, bundle.part, files, compared)
        (draft / RECORD).write_text(json.dumps({"format": "prunekit.export/1", **asdict(done)}, indent=1) + "\n")
    return done
