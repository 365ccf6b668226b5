"""One of the ranks that torchrun starts makes run after run, each in a child of its own: libraries are imported once.

As a command of torchrun: ``ranked_runs.py RUNS``, a file of JSON with a list of {"port", "killed", "arguments" of
small_runs.py, or of the "script" that is run instead}. Writes exit code, stdout and stderr of each beside RUNS.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from pathlib import Path

import accelerate  # noqa: F401  what a run imports where it needs it, every child has from here
import torch
import torch.distributed.fsdp

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import small_runs


def main(file) -> None:
    small_runs.network()  # so are the libraries of models
    gc.freeze()  # and no collection of a child goes through them
    for number, asked in enumerate(json.loads(file.read_text())):
        told = file.parent / f"{number}-{os.environ['RANK']}"
        child = os.fork()
        if not child:
            return end_as(asked, told)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told.with_suffix(".json").write_text(
            json.dumps([code, *(told.with_suffix(end).read_text() for end in (".out", ".err"))])
        )
    return None


def end_as(asked, told) -> None:
    """The run, to whose end this process comes: it has a process group of its own and writes to files."""
    for stream, end in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(told.with_suffix(end), os.O_WRONLY | os.O_CREAT), stream)
    torch.set_num_threads(1)
    os.environ |= {"MASTER_PORT": str(asked["port"]), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    if "killed" in asked:
        os.environ["KILLED"] = str(asked["killed"])
    sys.argv[1:] = asked["arguments"]
    if "script" in asked:
        runpy.run_path(asked["script"], run_name="__main__")
    else:
        small_runs.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
