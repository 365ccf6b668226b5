"""What it costs to trace, couple and plan a SAM encoder, against one forward pass of it in the same process.

    python benchmarks/planning.py vit_b            # times and memory as ratios
    python benchmarks/planning.py vit_h --no-forward
    python benchmarks/planning.py vit_h --meta     # no weights at all: the peak resident set of the whole process

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


def peak_bytes() -> int:
    """Peak resident set of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def on_meta(name: str) -> dict[str, object]:
    """The encoder planned without weights, by a scorer that reads none; MB are of 2**20 bytes."""
    with torch.device("meta"):
        encoder = sam_model_registry[name]().image_encoder.eval()
    weights = sum(p.numel() * p.element_size() for p in encoder.parameters())
    start = time.process_time()
    plan = prunekit.plan(encoder, torch.empty(1, 3, 1024, 1024, device="meta"), scorer=prunekit.Random())
    return {
        "model": name,
        "weights_mb": round(weights / 2**20),
        "groups_cut": len(plan.widths),
        "cpu_seconds": round(time.process_time() - start, 2),
        "peak_rss_mb": peak_bytes() >> 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-forward", action="store_true", help="memory and planning time only")
    parser.add_argument("--meta", action="store_true", help="a model on the meta device, which can only be planned")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.meta:
        json.dump(on_meta(options.model), sys.stdout)
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
