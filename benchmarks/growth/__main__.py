"""``python -m benchmarks.growth``: docs/scale.json and the tables of docs/scale.md.

Every point is a process of its own, so that its peak resident set is its own; models have no weights, and units are
scored at random, so that what is measured is tracing, selecting, solving and rehearsing.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.growth.models import SERIES
from benchmarks.notes import note_on

OUT = Path("docs/scale.json")
PAGE = Path("docs/scale.md")
HEAD = """# Scale

How seconds and memory of a plan grow with the model. Models are on the meta device, so a 70B one needs no weights;
units are scored at random, so that what is timed is tracing, selecting within the target, solving and rehearsing. CPU
seconds of one thread, peak resident set of the whole process; every point is a process of its own and has one run.
Exponents are fitted by least squares in logarithms over all points of a series; what a call costs whatever the size,
such as imports at first use, lies in them and makes short series look flatter than they are.

    python -m benchmarks.growth

"""
FOOT = """
What keeps it linear: axes that shrink alike are one row (`coupling/axis_rows.py`); a change of some groups touches
their rows (`coupling/lengths.py`), the cost terms that read these (`quantities/counted_cost.py`) and the systems of
equations that do (`planning/arithmetic.py`), and nothing else of the model. `tests/unit/test_growth.py` holds the
number of such touches.
"""
Point = dict[str, Any]


def measured(series: str, size: int) -> Point:
    """One point, in this process."""
    import torch

    import prunekit

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    _, builders, target = SERIES[series]
    with torch.device("meta"):
        model, inputs = builders[size]()
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    structure = prunekit.trace(model, inputs)
    traced = time.process_time()
    plan = prunekit.plan(model, inputs, structure=structure, scorer=prunekit.Random(), target=target)
    end = time.process_time()
    return {
        "series": series,
        "size": size,
        "parameters": structure.cost().params,
        "operators": len(structure.trace.ops),
        "groups": len(structure.groups),
        "cut": len(plan.widths),
        "trace_seconds": round(traced - start, 2),
        "plan_seconds": round(end - traced, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "before_mb": built >> 10,
    }


def slope(points: list[Point]) -> float | None:
    """The exponent of the seconds in the size, by least squares in logarithms; None for fewer than three points."""
    if len(points) < 3:
        return None
    sizes = [math.log(p["size"]) for p in points]
    seconds = [math.log(p["trace_seconds"] + p["plan_seconds"]) for p in points]
    return statistics.linear_regression(sizes, seconds).slope


def table(points: list[Point]) -> str:
    """The tables of the page."""
    lines = ["| series | grows in | size | parameters | operators | trace s | plan s | peak MB |", "|" + "---|" * 8]
    slopes = ["| series | seconds grow as | MB a step of one |", "|---|---|---|"]
    for name, (what, _, target) in SERIES.items():
        here = [p for p in points if p["series"] == name]
        lines += [
            f"| {name} | {what} | {p['size']} | {p['parameters'] / 1e9:.2f}G | {p['operators']} "
            f"| {p['trace_seconds']:.1f} | {p['plan_seconds']:.1f} | {p['peak_mb']} |"
            for p in here
        ]
        found = slope(here)
        if found is not None:
            each = (here[-1]["peak_mb"] - here[0]["peak_mb"]) / (here[-1]["size"] - here[0]["size"])
            slopes.append(f"| {name} (`{target}`) | {what}^{found:.2f} | {each:.3g} |")
    return "\n".join([*slopes, "", *lines])


def page(points: list[Point]) -> str:
    """docs/scale.md."""
    return f"{HEAD}{table(points)}\n{note_on(PAGE)}{FOOT}"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--only", default="", help="part of a series' name")
    ask.add_argument("--most", type=int, default=10**9, help="no larger sizes")
    ask.add_argument("--point", nargs=2, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.point:
        print(json.dumps(measured(asked.point[0], int(asked.point[1]))))
        return
    known = json.loads(OUT.read_text())["points"] if OUT.exists() else []
    for name, (_, builders, _) in SERIES.items():
        for size in [size for size in builders if asked.only in name and size <= asked.most]:
            command = [sys.executable, "-m", "benchmarks.growth", "--point", name, str(size)]
            alone = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=alone)
            point = json.loads(done.stdout.splitlines()[-1])
            known = [p for p in known if (p["series"], p["size"]) != (name, size)] + [point]
            print(json.dumps(point), flush=True)
            order = {name: number for number, name in enumerate(SERIES)}
            known.sort(key=lambda p: (order[p["series"]], p["size"]))
            OUT.write_text(json.dumps({"points": known}, indent=1) + "\n")
    PAGE.write_text(page(known))


if __name__ == "__main__":
    main()
