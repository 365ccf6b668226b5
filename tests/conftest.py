"""What several files of tests share, also where they are run by different workers."""

import json
from pathlib import Path

import pytest
from filelock import FileLock
from support.launching import launched
from support.runs_of_ranks import small_runs_in

SUPPORT = Path(__file__).parent / "support"
SCRIPTS = ("shared_calibration", "shared_search", "divided_model")


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory, worker_id):
    """What two ranks did, launched once, by the worker that asks first: each of them imports torch for seconds.

    The folder that each script wrote to by its name, that of all ``runs``, and how each run ended: ``ends``.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "two-ranks"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            for name in ("runs", *SCRIPTS):
                (folder / name).mkdir(parents=True)
            scripts = {
                name: {"script": str(SUPPORT / f"{name}.py"), "arguments": [str(folder / name)]} for name in SCRIPTS
            }
            runs = scripts | small_runs_in(folder / "runs")
            (folder / "ends.json").write_text(json.dumps(launched(2, folder, runs)))
    ends = json.loads((folder / "ends.json").read_text())
    for name in SCRIPTS:
        assert [code for code, _, _ in ends[name]] == [0, 0], (name, ends[name])
    return {name: folder / name for name in ("runs", *SCRIPTS)} | {"ends": ends}
