"""What it costs to trace, couple and plan a SAM encoder, against one forward pass of it in the same process.

    python benchmarks/planning.py vit_b            # times and memory as ratios
    python benchmarks/planning.py vit_h --no-forward
    python benchmarks/planning.py vit_h --meta     # no weights at all: the peak resident set of the whole process
    python benchmarks/planning.py vit_h --meta --target 'macs<=50%'    # tracing, selecting and the rest, apart
    python benchmarks/planning.py vit_h --select   # selecting for multiply-adds, after tracing and scoring

The ratio of times is (trace + couple + score + solve + rehearse) / one forward pass, on the same threads. The ratio of
memory is (weights + growth of the peak resident set while planning) / weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import sys
import time

import torch
from segment_anything import sam_model_registry

import prunekit
from prunekit.options import Options
from prunekit.planning.candidates import choose
from prunekit.planning.targeted import select_for_target
from prunekit.quantities.gauge import Gauge
from prunekit.scorers import Statistics
from prunekit.selection import Conditions


def peak_bytes() -> int:
    """Peak resident set of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def on_meta(name: str, target: str | None) -> dict[str, object]:
    """The encoder planned without weights, by a scorer that reads none; MB are of 2**20 bytes.

    With a target, seconds are told apart: tracing, then scoring and selecting, then the whole plan on the same trace.
    """
    with torch.device("meta"):
        encoder = sam_model_registry[name]().image_encoder.eval()
    weights = sum(p.numel() * p.element_size() for p in encoder.parameters())
    image, scorer, apart = torch.empty(1, 3, 1024, 1024, device="meta"), prunekit.Random(), {}
    structure, start = None, time.process_time()
    if target is not None:
        structure = prunekit.trace(encoder, image)
        traced = time.process_time()
        chosen, statistics = choose(structure), Statistics(encoder)
        scores = {group.name: scorer.score(group, statistics) for group in chosen}
        gauge = Gauge.of(encoder, structure, target)
        kept = select_for_target(structure, chosen, scores, gauge, Conditions(kinds=structure.kinds))
        apart = {
            "target": target,
            "left": gauge.exactly(kept),
            "limit": dict(gauge.limits),
            "trace_seconds": round(traced - start, 2),
            "select_seconds": round(time.process_time() - traced, 2),
        }
        start = time.process_time()
    plan = prunekit.plan(encoder, image, scorer=scorer, target=target, structure=structure)
    return apart | {
        "model": name,
        "weights_mb": round(weights / 2**20),
        "groups_cut": len(plan.widths),
        "cpu_seconds": round(time.process_time() - start, 2),
        "peak_rss_mb": peak_bytes() >> 20,
    }


def selecting(name: str, runs: int) -> dict[str, object]:
    """CPU seconds from scores to the units that stay, for targets in multiply-adds; nothing is rebuilt."""
    encoder = sam_model_registry[name]().image_encoder.eval()
    structure = prunekit.trace(encoder, torch.empty(1, 3, 1024, 1024))
    chosen = choose(structure)
    statistics = Statistics(encoder)
    scores = {group.name: prunekit.Magnitude().score(group, statistics) for group in chosen}
    seconds: dict[str, list[float]] = {}
    reached: dict[str, float] = {}
    whole = structure.cost().macs
    for ranking in ("local", "global"):
        for percent in (75, 50, 25):
            for _ in range(runs):
                start = time.process_time()
                gauge = Gauge.of(encoder, structure, f"macs<={percent}%")
                kept = select_for_target(structure, chosen, scores, gauge, Conditions(Options.of(ranking=ranking)))
                seconds.setdefault(f"{ranking} {percent} %", []).append(round(time.process_time() - start, 3))
            reached[f"{ranking} {percent} %"] = round(structure.cost(kept).macs / whole, 5)
    return {"model": name, "groups": len(chosen), "cpu_seconds": seconds, "macs_left": reached}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-forward", action="store_true", help="memory and planning time only")
    parser.add_argument("--meta", action="store_true", help="a model on the meta device, which can only be planned")
    parser.add_argument("--target", help="with --meta: a limit such as macs<=50%%")
    parser.add_argument("--select", action="store_true", help="selection for a target alone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.select:
        json.dump(selecting(options.model, options.runs), sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    if options.meta:
        json.dump(on_meta(options.model, options.target), sys.stdout)
        sys.stdout.write("\n")
        return
    encoder = sam_model_registry[options.model]().image_encoder.eval()
    weights = sum(p.numel() * p.element_size() for p in encoder.parameters())
    image = torch.randn(1, 3, 1024, 1024)
    resident = peak_bytes()
    planning = []
    for run in range(options.runs):
        start = time.perf_counter()
        prunekit.plan(encoder, image, verify="shapes")
        planning.append(time.perf_counter() - start)
        if run == 0:
            growth = peak_bytes() - resident
    result = {
        "model": options.model,
        "threads": torch.get_num_threads(),
        "weights_mb": round(weights / 2**20),
        "memory_ratio": round((weights + growth) / weights, 3),
        "planning_s": [round(t, 2) for t in planning],
    }
    if not options.no_forward:
        forward = []
        with torch.no_grad():
            for _ in range(options.runs):
                start = time.perf_counter()
                encoder(image)
                forward.append(time.perf_counter() - start)
        result["forward_s"] = [round(t, 2) for t in forward]
        result["time_ratio"] = round(statistics.median(planning) / statistics.median(forward), 3)
    json.dump(result, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
