"""What several files of tests share, also where they are run by different workers."""

import json
from pathlib import Path

import pytest
from filelock import FileLock
from support.launching import launched

SUPPORT = Path(__file__).parents[1] / "support"
SCRIPTS = ("shared_calibration", "shared_search", "divided_model")


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory, worker_id):
    """The folder that each script wrote to as two ranks: launched once, by the worker that asks first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "two-ranks"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            runs = {
                name: {"script": str(SUPPORT / f"{name}.py"), "arguments": [str(folder / name)]} for name in SCRIPTS
            }
            for name in SCRIPTS:
                (folder / name).mkdir(parents=True)
            (folder / "ends.json").write_text(json.dumps(launched(2, folder, runs)))
    for name, ends in json.loads((folder / "ends.json").read_text()).items():
        assert [code for code, _, _ in ends] == [0, 0], (name, ends)
    return {name: folder / name for name in SCRIPTS}
