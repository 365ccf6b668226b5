"""A folder that is written is as readable as any file made here: what the umask grants, whichever library wrote it."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from prunekit.files.folders import new_folder


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_every_file_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "out") as draft:
            (draft / "in").mkdir()
            save_file({"weight": torch.zeros(1)}, draft / "in" / "a.safetensors")
            (draft / "private.txt").write_text("a library made it private")
            (draft / "private.txt").chmod(0o600)
            (draft / "run.sh").write_text("#!/bin/sh")
            (draft / "run.sh").chmod(0o700)
        assert os.umask(mask) == mask  # it is as it was
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    files = 0o666 & ~mask
    assert modes.pop("in") == 0o777 & ~mask
    assert modes.pop("run.sh") == 0o700 | files
    assert set(modes.values()) == {files}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask
