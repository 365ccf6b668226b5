"""How long ``import prunekit`` and ``prunekit --help`` take, as a ratio to another commit in alternating runs.

python -m benchmarks.imports --base 06fa1a4
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.same.__main__ import HERE, base_tree

WHAT = {
    "import prunekit": ["-c", "import prunekit"],
    "import prunekit; prunekit.prune": ["-c", "import prunekit; prunekit.prune"],
    "prunekit --help": ["-m", "prunekit", "--help"],
    "prunekit prune --help": ["-m", "prunekit", "prune", "--help"],
}


def seconds(tree: Path, arguments: list[str]) -> float:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tree), str(tree / "plugins" / "sam")))}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--base", required=True)
    ask.add_argument("--runs", type=int, default=15)
    asked = ask.parse_args()
    with base_tree(asked.base) as base:
        for name, arguments in WHAT.items():
            for tree in (base, HERE):
                seconds(tree, arguments)  # bytecode is written
            pairs = [(seconds(base, arguments), seconds(HERE, arguments)) for _ in range(asked.runs)]
            ratios = [after / before for before, after in pairs]
            middle = statistics.median(ratios)
            print(f"{name:35} {middle:.2f} of the base  ({min(ratios):.2f} to {max(ratios):.2f}, {asked.runs} pairs)")


if __name__ == "__main__":
    main()
