"""``python -m benchmarks.same --base COMMIT``: this tree against that commit, item by item."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.same.differences import Found, differences
from benchmarks.same.items import items
from benchmarks.zoo.rows import DEFAULT_LIST, ListError

HERE = Path(__file__).resolve().parents[2]
TOGETHER = 8  # items a process, so that imports do not take most of the time


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--base", required=True, help="the commit to compare with")
    ask.add_argument("--only", default="", help="regular expression over item names")
    ask.add_argument("--list", type=Path, default=DEFAULT_LIST, help="the zoo's list")
    asked = ask.parse_args()
    try:
        chosen = [item for item in items(asked.list) if re.search(asked.only, item["name"])]
    except ListError as error:
        print(error)
        return 2
    wrong, alike = 0, 0
    with base_tree(asked.base) as base, ThreadPoolExecutor(2) as pool:
        for start in range(0, len(chosen), TOGETHER):
            some = chosen[start : start + TOGETHER]
            before, after = pool.map(measured, (base, HERE), (some, some))
            for item in some:
                said = differences(before.get(item["name"]), after.get(item["name"]))
                wrong += bool(said)
                alike += "error" in (after.get(item["name"]) or {}) and not said
                print(f"{'differs' if said else 'equal  '}  {item['name']}  {'; '.join(said)}", flush=True)
    if alike:
        print(f"{alike} end in the same error in both trees")
    print(f"{len(chosen) - wrong} of {len(chosen)} equal")
    return int(bool(wrong))


@contextlib.contextmanager
def base_tree(commit: str) -> Iterator[Path]:
    """The files of ``commit`` in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "-C", str(HERE), "archive", commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder)


def measured(tree: Path, some: list[dict[str, Any]]) -> dict[str, Found]:
    """What a process of ``tree`` found; an item that ended the process is tried alone."""
    found = _process(tree, some)
    for item in some:
        if item["name"] not in found:
            found |= _process(tree, [item])
    return found


def _process(tree: Path, some: list[dict[str, Any]]) -> dict[str, Found]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tree), str(tree / "plugins" / "sam")))}
    worker = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    done = subprocess.run(
        worker, input=json.dumps(some), cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


if __name__ == "__main__":
    sys.exit(main())
