"""Runs of several ranks that one launch of torchrun makes one after the other."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = str(Path(__file__).parent / "ranked_runs.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def launched(count, folder, runs):
    """[(exit code, stdout, stderr) of every rank] of each run by its name; see ranked_runs.py for what a run says."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in runs]
    for place, run in zip(free, runs.values(), strict=True):
        run["port"] = place.getsockname()[1]
        place.close()
    (folder / "runs.json").write_text(json.dumps([*runs.values()]))
    command = [*LAUNCH, str(count), SCRIPT, str(folder / "runs.json")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=580)
    assert not done.returncode, done.stderr
    return {
        name: [json.loads((folder / f"{number}-{rank}.json").read_text()) for rank in range(count)]
        for number, name in enumerate(runs)
    }
