"""Text is read, tokenised and packed into windows; what cannot be is refused in words."""

import json

import pytest
import torch

from prunekit.errors import DataError, InputError
from prunekit.samples import text


class Letters:
    """One id a letter; 0 ends a document."""

    eos_token_id = 0

    def __call__(self, document):
        return {"input_ids": [ord(letter) - 96 for letter in document if letter.isalpha()]}


def test_documents_follow_each_other_with_the_end_between_them(tmp_path):
    (tmp_path / "a.txt").write_text("abc\n\nde\n\n\n")
    windows = text(tmp_path / "a.txt", Letters(), window=3)
    assert [w["input_ids"].tolist() for w in windows] == [[[1, 2, 3]], [[0, 4, 5]]]
    assert [w["input_ids"].tolist() for w in text(tmp_path / "a.txt", Letters(), window=3, batch=2)] == [
        [[1, 2, 3], [0, 4, 5]]
    ]


def test_lines_of_json_tables_and_folders(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "ab"}\n\n{"text": "c", "label": 1}\n')
    assert text(tmp_path / "b.jsonl", Letters(), window=5).ids.tolist() == [1, 2, 0, 3, 0]
    (tmp_path / "a.txt").write_text("d")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")
    assert text(tmp_path, Letters(), window=2).ids.tolist() == [4, 0, 1, 2, 0, 3, 0]
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["ab", None, "c"]}), tmp_path / "c.parquet")
    assert text(tmp_path / "c.parquet", Letters(), window=2).ids.tolist() == [1, 2, 0, 3, 0]


def test_windows_are_as_long_as_asked_and_the_rest_is_left_out(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefg" * 10)
    windows = text(tmp_path / "a.txt", Letters(), window=16)
    assert len(windows) == 4
    assert all(w["input_ids"].shape == (1, 16) for w in windows)
    assert torch.equal(windows[-1]["input_ids"], windows[3]["input_ids"])


@pytest.mark.parametrize(
    ("name", "content", "options", "error", "words"),
    [
        ("a.txt", "abc", {"window": 64}, InputError, "4 tokens, one sample takes 64"),
        ("a.txt", "abc", {"window": 0}, InputError, "window"),
        ("a.txt", "abc", {"window": True}, InputError, "window"),
        ("a.txt", "abc", {"batch": 1.5}, InputError, "batch"),
        ("a.txt", "xyz", {"window": 2, "vocabulary": 20}, InputError, "the model knows 20"),
        ("a.txt", b"\xff\xfe\x00", {"window": 2}, DataError, "UTF-8"),
        ("a.pdf", "abc", {"window": 2}, InputError, r"\.jsonl"),
        ("a.jsonl", "abc", {"window": 2}, DataError, "line 1"),
        ("a.jsonl", json.dumps({"body": "abc"}), {"window": 2}, DataError, "'text'"),
        ("a.jsonl", "[1]", {"window": 2}, DataError, "line 1"),
        ("", "", {"window": 2}, InputError, "in it"),
        ("nothing.txt", None, {"window": 2}, InputError, "no such file"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, content, options, error, words):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None and name:
        file.write_text(content)
    with pytest.raises(error, match=words):
        text(file, Letters(), **options)


@pytest.mark.parametrize("tokenizer", [None, "bert", lambda document: {"ids": [1]}])
def test_what_is_no_tokenizer(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("abc")
    with pytest.raises(InputError, match="tokenizer"):
        text(tmp_path / "a.txt", tokenizer, window=1)
