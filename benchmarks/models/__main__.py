"""``python -m benchmarks.models``: prunes every model of the lists and writes docs/models.md and docs/models.json."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
from importlib import metadata
from pathlib import Path

from rich.console import Console

from benchmarks.models import page
from benchmarks.zoo.report import one_line
from benchmarks.zoo.rows import DEFAULT_LIST, OUTSIDE_LIST, Row, read_rows
from benchmarks.zoo.runner import Limits, run_rows, write_atomically

OWN_LIST = Path(__file__).with_name("zoo.json")


def main() -> int:
    given = _parser().parse_args()
    console = Console()
    lists = [path for path in (OWN_LIST, OUTSIDE_LIST, DEFAULT_LIST) if path.is_file()]
    earlier = json.loads(given.out.read_text())["rows"] if given.resume and given.out.is_file() else {}
    rows = dict(earlier)
    missing: list[str] = []
    head = {"date": datetime.date.today().isoformat(), "packages": _packages()}
    for path in lists:
        wanted = []
        for row in read_rows(path, given.only):
            if row.skipped or row.name in rows:
                continue
            if _installed(row):
                wanted.append(row)
            elif page.library_of(row.name) not in missing:
                missing.append(page.library_of(row.name))
        for row, record in run_rows(wanted, {"prunekit": Limits()}, path, given.jobs, {}):
            rows[row.name] = record["prunekit"]
            console.print(f"{row.name:44s} {one_line(record)}", soft_wrap=True, highlight=False, markup=False)
            _save(given.out, rows, head, missing)
    _save(given.out, rows, head, missing)
    console.print(page.summary(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--only", default="", help="regular expression over names such as hf/bert")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the report already has")
    parser.add_argument("--out", type=Path, default=Path("docs/models.json"), help="report; .md is written beside it")
    return parser


def _installed(row: Row) -> bool:
    package = "transformers" if "config" in row.entry else str(row.entry.get("make", "")).partition(".")[0]
    return not package or importlib.util.find_spec(package) is not None


def _packages() -> dict[str, str]:
    found = {}
    for name in page.PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _save(out: Path, rows: page.Rows, head: dict[str, object], missing: list[str]) -> None:
    told = {**head, "summary": page.summary(rows), "rows": dict(sorted(rows.items()))}
    write_atomically(out, json.dumps(told, indent=1) + "\n")
    write_atomically(out.with_suffix(".md"), page.markdown(rows, head, missing) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
