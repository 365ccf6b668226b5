"""Output folders: what cannot be one is refused in a sentence, and what prunekit did not make it does not delete."""

import pytest

import prunekit
from prunekit.cli.app import run as command
from prunekit.errors import CheckpointError
from prunekit.files.folders import check_target
from prunekit.runs.keeping import RunFolder, discard


def test_links_to_nothing_loops_and_files_are_no_folders(tmp_path):
    loop, lost, file = tmp_path / "loop", tmp_path / "lost", tmp_path / "file"
    loop.symlink_to(loop)
    lost.symlink_to(tmp_path / "nowhere")
    file.touch()
    for folder in (loop, lost, file, file / "inside" / "deeper"):
        with pytest.raises(CheckpointError):
            check_target(folder)
    check_target(tmp_path / "new" / "deeper")


def test_only_what_a_run_kept_is_discarded(tmp_path):
    folder = tmp_path / "slim.run"
    RunFolder(folder, {}).keep({}, {})
    (folder / "teachers").mkdir()
    discard(folder)
    assert not folder.exists()
    RunFolder(folder, {}).keep({}, {})
    (folder / "mine.txt").write_text("notes")
    (folder / "teachers").mkdir()
    (folder / "teachers" / "list.txt").touch()
    discard(folder)
    assert sorted(p.name for p in folder.rglob("*")) == ["list.txt", "mine.txt", "teachers"]


def test_the_version_is_printed(capsys):
    assert command(["--version"]) == 0
    assert prunekit.__version__ in capsys.readouterr().out


def test_a_device_without_numbers_is_refused(tmp_path, capsys):
    assert command(["prune", "sam:nano", "--device", "meta", "--out", str(tmp_path / "out")]) == 2
    assert "meta" in capsys.readouterr().err
