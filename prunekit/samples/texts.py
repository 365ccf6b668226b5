"""Text as samples: files are read, tokenised with the model's own tokenizer, and packed into windows of one length."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunekit.errors import DataError, InputError
from prunekit.samples.sequences import Lazy

Tokenizer = Callable[..., Any]  # text -> something with ``input_ids``
FIELD = "text"  # of a line of JSON, a column of a table
SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")


class Windows(Lazy[dict[str, Tensor]]):
    """Windows of a long row of token ids: each {"input_ids": (batch, window)}; what fills no batch is left out."""

    def __init__(self, ids: Tensor, window: int, batch: int) -> None:
        self.ids, self.window, self.batch = ids, window, batch

    def __len__(self) -> int:
        return int(self.ids.numel()) // (self.window * self.batch)

    def _get(self, index: int) -> dict[str, Tensor]:
        start = index * self.window * self.batch
        return {"input_ids": self.ids[start : start + self.window * self.batch].view(self.batch, self.window)}


def text(
    source: str | Path, tokenizer: Tokenizer, *, window: int = 256, batch: int = 1, vocabulary: int | None = None
) -> Windows:
    """Packed windows of a text, as calibration inputs or to measure on.

    Documents follow each other with the tokenizer's end-of-text token between them, if it has one; a window does not
    care where a document ends.

    Args:
        source: a ``.txt`` file (documents are set apart by empty lines), a ``.jsonl`` file or ``.parquet`` table with a
            field ``text``, a folder of such files, or one that ``datasets`` saved.
        tokenizer: the model's own: called with a text, it gives something with ``input_ids``.
        window: tokens a row.
        batch: rows a sample.
        vocabulary: how many ids the model knows; a larger one is refused here, and not by an index error inside it.

    Raises:
        InputError: if there is no such file, it is of another kind, the tokenizer gives no ids, an id is none of the
            model's, or the text is shorter than one sample.
        DataError: for a line or table that cannot be read; names it.
    """
    for name, value in (("window", window), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value!r}", where=name, hint="a whole number of at least 1")
    if not callable(tokenizer):
        raise InputError(
            f"{type(tokenizer).__name__} is no tokenizer", where="tokenizer", hint="pass the one the model came with"
        )
    end = getattr(tokenizer, "eos_token_id", None)
    rows = []
    for document in documents(Path(source)):
        rows.append(_ids(tokenizer, document))
        rows += [torch.tensor([end], device="cpu")] if end is not None else []
    ids = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long, device="cpu")
    if vocabulary is not None and ids.numel() and int(ids.max()) >= vocabulary:
        raise InputError(
            f"the tokenizer gives the id {int(ids.max())}, the model knows {vocabulary}",
            where="tokenizer",
            hint="pass the tokenizer that the model came with",
        )
    if ids.numel() < window * batch:
        raise InputError(
            f"the text has {ids.numel()} tokens, one sample takes {window * batch}",
            where=str(source),
            hint="pass more text, or a smaller window or batch",
        )
    return Windows(ids, window, batch)


def documents(source: Path) -> Iterator[str]:
    """The documents of a file, or of all files in a folder by name. Raises what ``text`` raises."""
    if source.is_dir():
        if (source / "dataset_info.json").is_file() or (source / "state.json").is_file():
            yield from _saved_dataset(source)
            return
        files = sorted(file for file in source.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise InputError(f"no {', '.join(SUFFIXES)} in it", where=str(source), hint="pass text")
        for file in files:
            yield from documents(file)
        return
    if not source.is_file():
        raise InputError("there is no such file", where=str(source), hint="pass a file or folder of text")
    if source.suffix not in READERS:
        raise InputError(
            f"{source.suffix or 'a file without an ending'} is no text that is read here",
            where=str(source),
            hint=f"pass {', '.join(SUFFIXES)}",
        )
    yield from READERS[source.suffix](source)


def _paragraphs(file: Path) -> Iterator[str]:
    try:
        whole = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"it is no UTF-8: {error}", where=str(file), hint="convert it to UTF-8") from error
    yield from (part for part in whole.split("\n\n") if part.strip())


def _lines(file: Path) -> Iterator[str]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield str(json.loads(line)[FIELD])
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    what = f"line {number} holds no JSON with a field {FIELD!r}: {error}"
                    raise DataError(what, where=str(file), hint='one {"text": ...} a line') from error


def _table(file: Path) -> Iterator[str]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError("pyarrow is not installed", where=str(file), hint="pip install pyarrow") from error
    try:
        column = parquet.read_table(file, columns=[FIELD]).column(FIELD)
    except Exception as error:  # pyarrow's own errors, of many kinds
        raise DataError(f"no column {FIELD!r} can be read: {error}", where=str(file), hint="check the file") from error
    yield from (str(value) for value in column.to_pylist() if value)


def _saved_dataset(folder: Path) -> Iterator[str]:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise InputError("datasets is not installed", where=str(folder), hint="pip install datasets") from error
    try:
        held = load_from_disk(str(folder))
    except Exception as error:  # its own errors and pyarrow's, of many kinds
        raise DataError(f"no data set can be read: {error}", where=str(folder), hint="save it again") from error
    held = next(iter(held.values())) if isinstance(held, dict) else held
    if FIELD not in held.column_names:
        raise DataError(f"no column {FIELD!r}", where=str(folder), hint=f"it has {', '.join(held.column_names)}")
    yield from (str(value) for value in held[FIELD] if value)


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": _paragraphs,
    ".md": _paragraphs,
    ".jsonl": _lines,
    ".parquet": _table,
}


def _ids(tokenizer: Tokenizer, document: str) -> Tensor:
    given = tokenizer(document)
    found = given.get("input_ids") if hasattr(given, "get") else getattr(given, "input_ids", None)
    if found is None:
        raise InputError("it gives no input_ids", where="tokenizer", hint="pass the tokenizer that the model came with")
    return torch.as_tensor(found, dtype=torch.long, device="cpu").flatten()
