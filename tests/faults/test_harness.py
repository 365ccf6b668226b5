"""The harness of faults finds nothing in the library, and finds what is planted in it."""

from __future__ import annotations

import contextlib

import pytest

from benchmarks.faults import files, folders, kills, transactions
from benchmarks.faults.arguments import command_arguments
from benchmarks.faults.counting import Section
from prunekit.checkpoints import reading
from prunekit.errors import PrunekitError
from prunekit.surgery import cutting

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("section", "count"),
    [
        (folders.saved_folders, 40),
        (files.files, 70),
        (files.annotated_data, 150),
        (files.tables, 30),
        (kills.kills, 2),
        (command_arguments, 8),
    ],
)
def test_nothing_is_found(section, count, tmp_path):
    found = section(count, 7, tmp_path / "here")
    assert not found.failed, found.line()
    assert found.tried >= count


def test_a_skipped_checksum_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "check_damage", lambda folder: contextlib.nullcontext(lambda: None))
    assert folders.saved_folders(40, 7, tmp_path).silent


def test_half_an_apply_is_found(tmp_path, monkeypatch):
    section = Section("apply")
    monkeypatch.setattr(cutting, "take_back", lambda steps: None)
    transactions._apply(section, 20, 7, tmp_path)
    assert section.lost


def test_a_swallowed_interrupt_is_found(tmp_path, monkeypatch):
    replace = cutting._replace

    def swallowed(*given):
        with contextlib.suppress(BaseException):
            replace(*given)

    section = Section("apply")
    monkeypatch.setattr(cutting, "_replace", swallowed)
    transactions._apply(section, 20, 7, tmp_path)
    assert section.silent


def test_a_traceback_a_hang_and_silence_are_counted():
    section = Section("any")
    section.attempt(lambda: 1 / 0, "divides")
    section.attempt(lambda: [None for _ in iter(int, 1)], "never ends", seconds=1)
    section.attempt(lambda: 2, "wrong", right=lambda value: value == 3)

    def refuse():
        raise PrunekitError("no")

    section.attempt(refuse, "refused")
    assert (section.tracebacks, section.hangs, section.silent, section.refused, section.tried) == (1, 1, 1, 1, 4)
    assert "divides: ZeroDivisionError" in section.line()
