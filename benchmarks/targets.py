"""Targets on twelve architectures: what was wanted, predicted, and measured on the pruned model; what would still fit.

    python -m benchmarks.targets
    python -m benchmarks.targets --only 'resnet|shufflenet|^hf/t5' --out out/targets.json    # any rows of the list

Every row prunes one model to 75, 50 or 25 % of its parameters, multiply-adds or bytes, with nothing else configured.
Parameters and bytes are counted on the pruned model; multiply-adds come from a new trace of the pruned model and,
independently, from torch.utils.flop_counter on a run of it. ``free / step`` is what the limit leaves free, as a part of
the cheapest next width that any group could take: below 1 means that no further step fits.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import prunekit
from benchmarks.zoo.rows import DEFAULT_LIST, builder, read_row, read_rows
from benchmarks.zoo.runner import write_atomically
from benchmarks.zoo.tools import call
from prunekit.errors import NothingToPruneError, SelectionError
from prunekit.modules.walk import state_tensors
from prunekit.planning.arithmetic import Arithmetic
from prunekit.planning.candidates import choose
from prunekit.quantities.gauge import Allowance, Gauge, fields_of
from prunekit.scorers import Statistics
from prunekit.selection import Conditions
from prunekit.selection.choosing import prepared
from prunekit.selection.ranking import Allocation, best, counts_of

MODELS = (
    "tv/resnet18",
    "tv/mobilenet_v2",
    "tv/densenet121",
    "timm/convnext",
    "timm/regnet",
    "timm/deit",
    "timm/levit",
    "timm/swin_transformer",
    "hf/bert",
    "hf/gpt2",
    "hf/dinov2",
    "sam/image_encoder_small",
)
QUANTITIES = ("params", "macs", "memory")
REMOVED = (25, 50, 75)
_AHEAD = 12  # widths beyond the next that are looked at where the model's own arithmetic refuses one

COMMAND = "python -m benchmarks.targets"
Record = dict[str, Any]


def flops_macs(model: nn.Module, inputs: Any) -> int:
    """Multiply-adds of one run, as torch's own counter counts them, products inside attention included."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that the counter does not know
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            call(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def counted(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Each quantity of a model as it stands, from its tensors, a new trace, and torch's counter."""
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "memory": sum(t.numel() * t.element_size() for t in state_tensors(model).values()),
        "macs": prunekit.trace(model, inputs).cost().macs,
        "flop_counter": flops_macs(model, inputs),
    }


class Steps:
    """The next widths that groups could take from where they are."""

    def __init__(self, model: nn.Module, structure: prunekit.Structure) -> None:
        groups = choose(structure)
        statistics = Statistics(model)
        self.structure = structure
        self.scores = {group.name: prunekit.Magnitude().score(group, statistics) for group in groups}
        removed: dict[str, Fraction | None] = {group.name: Fraction(1, 2) for group in groups}
        self.allocations: Sequence[Allocation] = prepared(
            groups, structure.ties, self.scores, removed, Conditions(kinds=structure.kinds)
        )[2]

    def costs(self, kept: Mapping[str, Tensor], gauge: Gauge) -> Iterator[float]:
        """How much more the limited quantity is with each next width that the model's own arithmetic accepts."""
        (quantity,) = gauge.limits
        counts = {name: len(units) for name, units in kept.items()}
        now = gauge.exactly(kept)[quantity]
        allowance, arithmetic = Allowance(gauge), Arithmetic(self.structure, kept)
        allowance.usage(counts)
        for a in self.allocations:
            if any(name not in counts for name in a.groups):
                continue
            here = counts[a.groups[0]] // a.multiples[0]
            for width in [w for w in a.allowed if w > here][:_AHEAD]:
                tried = counts_of([a], [width])
                units = {n: best(self.scores[n].double(), c) for n, c in tried.items()}
                arithmetic.keep(units)
                follows = not arithmetic.violated()
                arithmetic.keep({name: kept[name] for name in units})
                if follows:
                    yield allowance.usage(tried)[quantity] - now
                    allowance.usage({name: counts[name] for name in tried})
                    break


def pruned(model: nn.Module, inputs: Any, structure: prunekit.Structure, steps: Steps, target: str) -> Record:
    """The record of one target; the model is given back as it was."""
    gauge = Gauge.of(model, structure, target)
    ((quantity, limit),) = gauge.limits.items()
    record: Record = {"quantity": quantity, "original": fields_of(structure.cost())[quantity], "wanted": int(limit)}
    start = time.perf_counter()
    try:
        result = prunekit.prune(model, inputs, target=target, structure=structure, verify="shapes")
    except (SelectionError, NothingToPruneError) as error:
        seconds = round(time.perf_counter() - start, 2)
        return record | {"status": "refused", "reason": f"{error.what} [{error.where}]", "seconds": seconds}
    record["seconds"] = round(time.perf_counter() - start, 2)
    found = counted(model, inputs)
    record["predicted"] = getattr(result.report, quantity)["after"]
    record["measured"] = found[quantity]
    record["flop_counter"] = found["flop_counter"] if quantity == "macs" else None
    result.undo()
    kept = {w.group: torch.tensor(w.kept) for w in result.plan.widths}
    whole = {g.name: torch.arange(g.size) for g in structure.groups if g.name not in kept}
    left_alone = {f.name for f in result.plan.frozen}  # what the model's own code does not follow has no next step
    following = [cost for cost in steps.costs({**kept, **without(whole, left_alone)}, gauge) if cost > 0]
    free = limit - record["measured"]
    record["free_per_step"] = round(free / min(following), 3) if following else 0.0
    record["left_alone"] = sorted(left_alone & {g.name for g in structure.groups})
    exact = record["predicted"] == record["measured"]
    within = free >= 0 and (not following or free < min(following))
    record["status"] = "reached" if exact and within else "missed"
    return record


def without(kept: Mapping[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    return {name: units for name, units in kept.items() if name not in names}


def measure(name: str, list_file: Path) -> Iterator[Record]:
    """Every record of one model."""
    entry = read_row(list_file, name).entry
    model, inputs = builder(list_file).build(entry)
    structure = prunekit.trace(model, inputs)
    steps = Steps(model, structure)
    whole = counted(model, inputs)
    for quantity in QUANTITIES:
        for removed in REMOVED:
            record = pruned(model, inputs, structure, steps, f"{quantity}<={100 - removed}%")
            yield {"model": name, "removed": removed, "flop_counter_original": whole["flop_counter"]} | record


ABOUT = """# Targets

`target="macs<=2.3G, params<=50%"` instead of a ratio: the widest model within all limits, on parameters,
multiply-adds (all, or those of convolution and linear layers), bytes of parameters and buffers, of activations or of a
cache, or latency. Counts follow from the one trace; nothing is rebuilt during the search. The limit is met so that no
single further alignment step fits, or refused with what the narrowest widths leave and what stands in the way.

Two quantities are memory that a run needs beside the weights, in bytes on the example inputs, and follow from the
trace too. `activations<=50%` is the fullest moment of a forward pass: at each operator all that was made by then and
is still read or returned; inputs are not counted, and attention that a device runs as one call keeps nothing inside.
Python may hold tensors longer and allocators round up; in a target with blocks or branches it is refused.
`kv_cache<=60%` is what the model returns under the name of an argument of its own that is optional, as
`past_key_values`, to be given back at the next call: pass example inputs with which it returns one
(`use_cache=True`). A model that returns none is refused, and so is one whose returned widths are bound to stay:
`free_outputs=True` frees them where no plug-in knows that the library reads them again. `report.activations` and
`report.kv_cache` have what was limited, before and after.

What is measured here is the pruned model: parameters and bytes are counted on it, multiply-adds come from a new trace
of it and, independently, from torch.utils.flop_counter on a run of it. `free / step` is what the limit leaves free,
as a part of the cheapest next width that any group could take: below 1, no further step fits. Seconds are those of
the whole call of `prunekit.prune` after tracing, on a shared machine. Targets on latency are in
[latency_targets.md](latency_targets.md).
"""


def markdown(records: Sequence[Record], command: str) -> str:
    """docs/targets.md."""
    status = [r["status"] for r in records]
    macs = [r for r in records if r.get("flop_counter") is not None]
    differ = [r for r in macs if r["flop_counter"] != r["measured"]]
    lines = [
        ABOUT,
        f"    {command}",
        "",
        f"{len(records)} rows on {len({r['model'] for r in records})} models: {status.count('reached')} reached, "
        f"{status.count('refused')} refused, {status.count('missed')} missed. Prediction and measurement "
        f"differ in {sum(r['predicted'] != r['measured'] for r in records if 'predicted' in r)} rows; torch's counter "
        f"and the new trace in {len(differ)} of {len(macs)}.",
        "",
        "| model | quantity | removed | wanted <= | predicted | measured | flop counter | free / step | seconds | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        head = f"| {r['model']} | {r['quantity']} | {r['removed']} % | {r['wanted']:,} "
        if r["status"] == "refused":
            lines.append(f"{head}| | | | | {r['seconds']} | refused |")
            continue
        flops = "" if r["flop_counter"] is None else f"{r['flop_counter']:,}"
        lines.append(
            f"{head}| {r['predicted']:,} | {r['measured']:,} | {flops} | {r['free_per_step']} | {r['seconds']} "
            f"| {r['status']} |"
        )
    refused = [f"- {r['model']}, {r['quantity']}, {r['removed']} %: {r['reason']}" for r in records if "reason" in r]
    return "\n".join([*lines, "", *(["Refused:", "", *refused, ""] if refused else [])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", type=Path, default=DEFAULT_LIST, help="list of rows, with zoo.py beside it")
    parser.add_argument("--only", default="", help="regular expression over the list instead of the twelve")
    parser.add_argument("--out", type=Path, default=Path("docs/targets.json"), help=".md is written beside it")
    parser.add_argument("--render", action="store_true", help="write the .md again from the .json")
    given = parser.parse_args()
    records: list[Record] = []
    if given.render:
        records = json.loads(given.out.read_text())
        write_atomically(given.out.with_suffix(".md"), markdown(records, COMMAND))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    chosen = [row.name for row in read_rows(given.list, given.only) if not row.skipped] if given.only else MODELS
    for name in chosen:
        for record in measure(name, given.list):
            records.append(record)
            sys.stdout.write(json.dumps(record) + "\n")
            sys.stdout.flush()
    write_atomically(given.out, json.dumps(records, indent=1) + "\n")
    write_atomically(given.out.with_suffix(".md"), markdown(records, COMMAND))


if __name__ == "__main__":
    main()
