"""``python -m benchmarks.language MODEL``: the table of docs/language.md, resumable, a row a process."""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.language import page, texts
from benchmarks.language.measure import as_record, bigram
from benchmarks.zoo.report import versions
from benchmarks.zoo.runner import write_atomically

LEVELS = (0.1, 0.2, 0.3)
SCORERS = ("random", "magnitude", "fpgm", "wanda", "activation", "disturbed_taylor")
BY_CHANCE = ("random",)
WINDOW, CALIBRATION, JUDGED = 256, 32, 16


def main() -> int:
    given = _parser().parse_args()
    if given.row:
        sys.stdout.write(f"\n{json.dumps(_row(given))}\n")
        return 0
    console = Console()
    earlier = json.loads(given.out.read_text()) if given.resume and given.out.is_file() else {}
    rows: dict[str, Any] = dict(earlier.get("rows", {}))
    for name in ["dense", *_names(given)]:
        if name in rows:
            continue
        rows[name] = _in_a_process(name)
        console.print(f"{name:40s} {rows[name]}", highlight=False, soft_wrap=True)
        _save(given.out, rows)
    _save(given.out, rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=__doc__)
    parser.add_argument("model", help="a folder of transformers, or a GGUF file")
    parser.add_argument("--text", type=Path, help="text to calibrate and measure on; Debian's handbook by default")
    parser.add_argument("--other", type=Path, help="text of another kind; psalms by default")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="shares of all parameters to remove")
    parser.add_argument("--scorers", nargs="+", default=SCORERS, help="criteria")
    parser.add_argument("--seeds", type=int, default=3, help="of random")
    parser.add_argument("--refit", choices=["none", "ridge", "both"], default="both", help="compensation after the cut")
    parser.add_argument("--resume", action="store_true", help="keep the rows that the report already has")
    parser.add_argument("--out", type=Path, default=Path("docs/language.json"), help="report; .md is written beside it")
    parser.add_argument("--row", default="", help=argparse.SUPPRESS)
    return parser


def _names(given: argparse.Namespace) -> list[str]:
    refits = ["none", "ridge"] if given.refit == "both" else [given.refit]
    return [
        f"{level:g} {scorer} {refit} {seed}"
        for level in given.levels
        for refit in refits
        for scorer in given.scorers
        for seed in range(given.seeds if scorer in BY_CHANCE else 1)
    ]


def _in_a_process(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.language", *sys.argv[1:], "--row", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    return dict(json.loads(told[-1])) if told else {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}


def _row(given: argparse.Namespace) -> dict[str, Any]:
    from prunekit_hf.text_data import tokenizer_of

    import prunekit
    from prunekit.registry import build
    from prunekit.registry.criteria import scorer as criterion
    from prunekit.samples import text

    torch.manual_seed(0)
    model = build(f"hf:{given.model}?dtype=float32").model
    handbook, other = _texts(given, tokenizer_of(model), text)
    calibration, judged = handbook[:CALIBRATION], {"handbook": handbook[-JUDGED:], "other": other[:JUDGED]}
    if given.row == "dense":
        return {**as_record(model, judged), "bigram": round(bigram(handbook[:-JUDGED], judged["handbook"]), 4)}
    level, name, refit, seed = given.row.split()
    before = sum(p.numel() for p in model.parameters())
    start, clock = time.process_time(), time.perf_counter()
    scorer = criterion(name, seed=int(seed))
    prunekit.prune(
        model,
        {"input_ids": calibration[0]["input_ids"], "use_cache": False},
        data=[{**window, "use_cache": False} for window in calibration],
        target=f"params<={100 - 100 * float(level):g}%",
        roles=["mlp.hidden"],
        scorer=scorer,
        compensate=None if refit == "none" else refit,
        verify="shapes",
    )
    seconds = time.process_time() - start
    return {
        **as_record(model, judged),
        "gone": round(1 - sum(p.numel() for p in model.parameters()) / before, 4),
        "cpu_seconds": round(seconds, 1),
        "seconds": round(time.perf_counter() - clock, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _texts(given: argparse.Namespace, tokenizer: Any, text: Any) -> tuple[Any, Any]:
    import tempfile

    found = []
    with tempfile.TemporaryDirectory() as name:
        for path, made in ((given.text, texts.handbook), (given.other, texts.psalms)):
            file = path
            if file is None:
                file = Path(name) / f"{made.__name__}.txt"
                file.write_text(made())
            found.append(text(file, tokenizer, window=WINDOW))
    return found[0], found[1]


def _save(out: Path, rows: Mapping[str, Any]) -> None:
    head = {"date": datetime.date.today().isoformat(), "versions": versions(), "threads": torch.get_num_threads()}
    told = {**head, "rows": dict(rows)}
    write_atomically(out, json.dumps(told, indent=1) + "\n")
    write_atomically(out.with_suffix(".md"), page.markdown(told))


if __name__ == "__main__":
    raise SystemExit(main())
