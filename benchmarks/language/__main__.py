"""``python -m benchmarks.language MODEL``: the table of docs/language.md, resumable, a criterion a process."""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.language import deep, page, texts
from benchmarks.language.distilled import distilled
from benchmarks.language.measure import as_record, bigram
from benchmarks.language.others import PREFIX, cut_by_torch_pruning
from benchmarks.zoo.report import versions
from benchmarks.zoo.runner import write_atomically

LEVELS = (0.1, 0.2, 0.3)
SCORERS = ("disturbed_taylor", "wanda", "obs", "activation", "magnitude", "random", "disturbed_taylor:global")
THEIRS = ("torch-pruning/magnitude", "torch-pruning/taylor", "torch-pruning/random")
WITH_THE_REFIT = ("obs",)  # criteria that see the windows that the refit sees
BY_CHANCE = ("random", "torch-pruning/random", "depth-random")
DISTILLED, RATE = ("wanda", "random"), 1e-4
WINDOW, CALIBRATION, REFITTED, JUDGED = 256, 32, 128, 16


def main() -> int:
    given = _parser().parse_args()
    if given.rows:
        for row in _rows(given):
            sys.stdout.write(f"\n{json.dumps(row)}\n")
            sys.stdout.flush()
        return 0
    console = Console()
    earlier = json.loads(given.out.read_text()) if given.resume and given.out.is_file() else {}
    rows: dict[str, Any] = dict(earlier.get("rows", {}))
    for task in ["dense", *_tasks(given)]:
        _in_a_process(given, task, rows, console)
    _save(given.out, rows)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=__doc__)
    parser.add_argument("model", help="a folder of transformers, or a GGUF file")
    parser.add_argument("--text", type=Path, help="text to calibrate and measure on; Debian's handbook by default")
    parser.add_argument("--other", type=Path, help="text of another kind; psalms by default")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="shares of all parameters to remove")
    parser.add_argument(
        "--scorers", nargs="*", default=(*SCORERS, *THEIRS, *deep.ROWS), help="criteria, or criterion:ranking"
    )
    parser.add_argument("--distilled", nargs="*", default=DISTILLED, help="criteria to distil after")
    parser.add_argument("--lr", type=float, default=RATE, help="of distillation")
    parser.add_argument("--seeds", type=int, default=3, help="of random")
    parser.add_argument(
        "--refit",
        choices=["none", "ridge", "ridge-in-order", "both"],
        default="both",
        help="compensation after the cut",
    )
    parser.add_argument("--resume", action="store_true", help="keep the rows that the report already has")
    parser.add_argument(
        "--damages", type=Path, default=Path("out/language-damages.json"), help="what measured rows keep for each other"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/language.json"), help="report; .md is written beside it")
    parser.add_argument("--rows", nargs="+", default=[], help=argparse.SUPPRESS)
    return parser


def _tasks(given: argparse.Namespace) -> list[str]:
    """A process each: a criterion, with its ranking where it is not the usual one, and a seed."""

    def seeded(scorers: Sequence[str], more: str) -> list[str]:
        return [f"{name} {seed}{more}" for name in scorers for seed in range(given.seeds if name in BY_CHANCE else 1)]

    return [*seeded(given.scorers, ""), *seeded(given.distilled, " distil")]


def _rows_of(given: argparse.Namespace, task: str) -> list[str]:
    scorer, seed, *distilled = task.split()
    refits = ["none", "ridge"] if given.refit == "both" else [given.refit]
    refits = ["none"] if scorer.startswith((PREFIX, "depth")) else refits
    return [f"{level:g} {scorer} {refit} {seed}" for level in given.levels for refit in distilled or refits]


def _in_a_process(given: argparse.Namespace, task: str, rows: dict[str, Any], console: Console) -> None:
    """Runs what of ``task`` is not there yet; every row is kept as it comes."""
    wanted = [name for name in ([task] if task == "dense" else _rows_of(given, task)) if name not in rows]
    if not wanted:
        return
    command = [sys.executable, "-m", "benchmarks.language", *sys.argv[1:], "--rows", *wanted]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        for line in running.stdout:
            if line.startswith('{"row"'):
                found = json.loads(line)
                name = found.pop("row")
                rows[name] = found
                console.print(f"{name:40s} {found}", highlight=False, soft_wrap=True)
                _save(given.out, rows)
        why = (running.stderr.read().strip().splitlines() or ["?"])[-1][:300]
    rows.update({name: {"error": why} for name in wanted if name not in rows})


def _rows(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One after the other: the model is scored once, and every row cuts a copy of it."""
    from prunekit_hf.text_data import tokenizer_of

    import prunekit
    from prunekit.inputs import as_samples
    from prunekit.registry import build
    from prunekit.registry.criteria import scorer as criterion
    from prunekit.samples import text
    from prunekit.scorers import Scored, Statistics

    torch.manual_seed(0)
    built = build(f"hf:{given.model}?dtype=float32")
    model = built.model
    parameters = sum(p.numel() for p in model.parameters())
    handbook, other = _texts(given, tokenizer_of(model), text)
    data = [{**window, "use_cache": False} for window in handbook[:REFITTED]]
    judged = {"handbook": handbook[-JUDGED:], "other": other[:JUDGED]}
    scores: dict[str, Any] = {}
    for row in given.rows:
        if row == "dense":
            told = as_record(model, judged)
            yield {"row": row, **told, "bigram": round(bigram(handbook[:-JUDGED], judged["handbook"]), 4)}
            continue
        level, name, refit, seed = row.split()
        named, _, ranking = name.partition(":")
        start, clock = time.process_time(), time.perf_counter()
        if not scores and not named.startswith(PREFIX) and named not in deep.ROWS:
            structure = prunekit.trace(model, data[0])
            seen = data if named in WITH_THE_REFIT else data[:CALIBRATION]
            samples = list(as_samples(seen, structure.inputs))
            groups = [group for group in structure.groups if group.role == "mlp.hidden"]
            statistics = Statistics(model, samples, groups=groups)
            scores["all"] = Scored.of(criterion(named, seed=int(seed)), groups, statistics)
            scores["seconds"] = time.process_time() - start
            start = time.process_time()
        made, notes = copy.deepcopy(model), []
        if named.startswith(PREFIX):
            cut_by_torch_pruning(made, named.removeprefix(PREFIX), float(level), data[:CALIBRATION], int(seed))
        elif named in deep.ROWS:
            windows, kept = data if refit != "none" else data[:CALIBRATION], given.damages
            notes = deep.cut_deep(made, named, float(level), windows, refit=refit, seed=int(seed), store=kept)
        elif refit == "distil":
            seen = tokenizer_of(model).batch_decode([window["input_ids"][0] for window in handbook[:-JUDGED]])
            whole = replace(built, model=made)
            distilled(whole, "".join(seen), float(level), scores["all"], windows=REFITTED, lr=given.lr)
        else:
            prunekit.prune(
                made,
                data[0],
                data=data,
                target=f"params<={100 - 100 * float(level):g}%",
                roles=["mlp.hidden"],
                scorer=scores["all"],
                ranking=ranking or "local",
                compensate=None if refit == "none" else refit,
                verify="shapes",
            )
        seconds = time.process_time() - start
        yield {
            "row": row,
            **as_record(made, judged),
            "gone": round(1 - sum(p.numel() for p in made.parameters()) / parameters, 4),
            "scoring_cpu_seconds": round(scores.get("seconds", 0.0), 1),
            "cpu_seconds": round(seconds, 1),
            "seconds": round(time.perf_counter() - clock, 1),
            **({"notes": notes} if notes else {}),
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
