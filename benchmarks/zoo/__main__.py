"""``python -m benchmarks.zoo``: prunes every row of the list and writes the report."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shlex
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.zoo import report
from benchmarks.zoo.rows import DEFAULT_LIST, ListError, builder, read_rows
from benchmarks.zoo.runner import Limits, run_rows, write_atomically

HANG = 90  # CPU seconds: Torch-Pruning does not come back from several rows


def main(arguments: list[str] | None = None) -> int:
    given_arguments = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(given_arguments)
    console = Console()
    if given.against and importlib.util.find_spec("torch_pruning") is None:
        console.print("Torch-Pruning is not installed; next: pip install torch-pruning==1.6.1", style="red")
        return 2
    try:
        listed = read_rows(given.list, given.only, given.heavy)
        builder(given.list)
    except ListError as error:
        console.print(str(error), style="red")
        return 2
    earlier = json.loads(given.out.read_text()) if given.resume and given.out.is_file() else {}
    rows = earlier.get("rows", {})
    skipped = earlier.get("skipped", {}) | {row.name: row.skipped for row in listed if row.skipped}
    limits = Limits(given.cpu, given.wall, given.memory)
    tools = {"prunekit": limits}
    if given.against:
        tools[given.against] = dataclasses.replace(limits, cpu=min(HANG, given.cpu))
    command = shlex.join(["python", "-m", "benchmarks.zoo", *(_portable(a) for a in given_arguments)])
    head = report.header(command)

    def save() -> None:
        told = head | {"summary": report.summary(rows), "skipped": skipped, "rows": dict(sorted(rows.items()))}
        write_atomically(given.out, json.dumps(told, indent=1) + "\n")
        write_atomically(given.out.with_suffix(".md"), report.markdown(rows, skipped, head))

    for row, record in run_rows([r for r in listed if not r.skipped], tools, given.list, given.jobs, rows):
        rows[row.name] = record
        console.print(f"{row.name:36s} {report.one_line(record)}", soft_wrap=True, highlight=False, markup=False)
        save()
    save()
    console.print(report.table(rows))
    console.print(report.summary(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--list", type=Path, default=DEFAULT_LIST, help="list of rows, with zoo.py beside it")
    parser.add_argument("--only", default="", help="regular expression over row names")
    parser.add_argument("--jobs", type=int, default=1, help="rows at once")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the report already has")
    parser.add_argument("--against", choices=[report.OTHER], help="run this tool on the same rows")
    parser.add_argument("--heavy", action="store_true", help="the full-size rows instead of the others")
    parser.add_argument("--out", type=Path, default=Path("docs/zoo.json"), help="report; .md is written beside it")
    parser.add_argument("--cpu", type=int, default=Limits.cpu, help="CPU seconds a row and tool")
    parser.add_argument("--wall", type=int, default=Limits.wall, help="seconds on the clock a row and tool")
    parser.add_argument("--memory", type=int, default=Limits.memory, help="MB a row and tool")
    return parser


def _portable(argument: str) -> str:
    """The argument without a path of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


if __name__ == "__main__":
    raise SystemExit(main())
