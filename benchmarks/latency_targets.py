"""Latency targets on this machine: what was wanted, what the table of operators predicts, what the clock says.

    python -m benchmarks.latency_targets
    python -m benchmarks.latency_targets --runner onnx --only resnet18

Each model is pruned to 60 or 50 % of its latency with nothing else configured, on one thread. Afterwards the original
and the pruned model run in turn, and every run of the pruned one is divided by the mean of the two runs of the original
around it: what the rest of the machine does meets both. The figure is the median of those ratios, with its quartiles.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import prunekit
from benchmarks.notes import note_on
from benchmarks.zoo.runner import write_atomically
from prunekit.quantities.runners import RUNNERS

REMAINS = (60, 50)
TOLERANCE = 0.05
COMMAND = "python -m benchmarks.latency_targets"
Record = dict[str, Any]


def resnet18() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18()


def vit_tiny() -> nn.Module:
    import timm

    return timm.create_model("vit_tiny_patch16_224")


def convnext_atto() -> nn.Module:
    import timm

    return timm.create_model("convnext_atto")


def mobilenet_v2() -> nn.Module:
    import torchvision

    return torchvision.models.mobilenet_v2()


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536))


MODELS: dict[str, Callable[[], nn.Module]] = {
    made.__name__: made for made in (resnet18, vit_tiny, bert, mobilenet_v2, convnext_atto)
}


def example(name: str) -> Tensor:
    """An image, or 128 tokens."""
    return torch.randint(1000, (1, 128)) if name == "bert" else torch.randn(1, 3, 224, 224)


def seconds(model: Callable[[Tensor], object], image: Tensor) -> float:
    """Processor time of one forward pass on one thread: other programs do not add to it."""
    start = time.thread_time()
    model(image)
    return time.thread_time() - start


def ready(model: nn.Module, image: Tensor, runner: str) -> Callable[[Tensor], object]:
    """What runs ``model`` in the benchmark, made here and not by prunekit."""
    if runner == "eager":
        return model
    if runner == "compiled":
        compiled: Callable[[Tensor], object] = torch.compile(copy.deepcopy(model), dynamic=False)
        return compiled
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(copy.deepcopy(model), (image,), file, dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda given: session.run(None, {name: given.numpy()})


def in_turn(
    original: Callable[[Tensor], object], small: Callable[[Tensor], object], image: Tensor, pairs: int
) -> list[float]:
    """The pruned model's time as a part of the original's, once a pair of runs."""
    found = []
    with torch.no_grad():
        for _ in range(3):
            original(image), small(image)
        before = seconds(original, image)
        for _ in range(pairs):
            here, after = seconds(small, image), seconds(original, image)
            found.append(2 * here / (before + after))
            before = after
    return found


def measure(name: str, remains: int, table: prunekit.LatencyTable, pairs: int, runner: str) -> Record:
    """One row: a model pruned to ``remains`` percent of its latency, as ``runner`` runs it."""
    torch.manual_seed(0)
    model, image = MODELS[name]().eval(), example(name)
    original = copy.deepcopy(model)
    known, start = len(table.seconds), time.perf_counter()
    asked: dict[str, Any] = {"target": f"latency[{runner}]<={remains}%", "verify": "shapes", "latency": table}
    report = prunekit.prune(model, image, scorer=prunekit.Magnitude(), **asked).report
    took = time.perf_counter() - start
    assert report.latency is not None
    with torch.no_grad():
        both = [ready(each, image, runner) for each in (original, model)]
    ratios = in_turn(*both, image, pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    wanted = remains / 100
    return {
        "model": name,
        "runner": runner,
        "wanted": wanted,
        "predicted": round(report.latency["predicted"] / report.latency["before"], 4),
        "measured": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        "off": round(middle / wanted - 1, 4),
        "within": abs(middle / wanted - 1) <= TOLERANCE,
        "reported": round(report.latency["after"] / report.latency["before"], 4),
        "noise": round(report.latency["noise"], 4),
        "note": next(note for note in report.notes if note.startswith("latency")),
        "macs": round(report.macs["after"] / report.macs["before"], 4),
        "entries_measured": len(table.seconds) - known,
        "seconds": round(took, 1),
    }


ABOUT = """# Latency targets

`target="latency<=60%"` or `"latency<=15ms"`: latency on the example inputs, on the device that the model is on.

`latency` is that of the model as Python calls it. What a model is run by in earnest is named in brackets:
`latency[compiled]<=70%` is timed as `torch.compile(model)` runs it, by the default backend and at the shapes of the
inputs, `latency[onnx]<=70%` as a session of onnxruntime on the CPU runs the exported model, with as many threads as
torch has (`pip install 'prunekit[onnx]'`). The table of operators is the same for all three and proposes widths; the
clock of the runner that was named decides. `report.runner`, the note and `prunekit prune --target
'latency[compiled]<=70%'` say which. One target limits one of them. Every plan that is tried is compiled or exported,
up to five beside the original: seconds to minutes each. Where there is no C++ compiler, no onnxruntime, or the model
cannot be compiled or exported, that is said before anything is cut; should a candidate fail, the model is as it was.
Another runner is an entry of `RUNNERS` in `prunekit/quantities/runners.py` and an object with one method.

Every operator is timed once a shape and kept in a `prunekit.LatencyTable`, so a search rebuilds nothing. The model is
timed once a call, three times before its operators and three times after; one factor brings the sum of the operators
to it, and every prediction, relative limit and later step refers to that one measurement.

The table alone is off by some percent, so the plan is held against the clock: it is carried out, the pruned model is
timed between two timings of the original, 7 to 25 times until the error of the median is below 1%; the limit that the
plan is made for is corrected
by what was found, five plans at most. It ends where the measured latency is between 3% below and 1% above the limit, or
where no wider plan is to be had; of all plans the nearest is taken, those within the limit before those above.
`report.latency` has `before`, `predicted` by the table, `after` as measured in turn, and `noise`, the error of that
median; `report.notes` says how far from the limit that is. Where depth goes, or where a measured allocation spends the
target, the whole choice is made again, three times at most, with damages recalled: of two widths that damage alike a
search takes the one that the table believes to be quicker, so it needs the clock more than a ranking does. Several
steps and `uniform=True` are not corrected: their `after` is measured once, and there is no `noise`.

```python
table = prunekit.LatencyTable.load("here.json")  # or prunekit.LatencyTable(): empty
result = prunekit.prune(model, target="latency<=60%", latency=table)
table.save("here.json")  # operators that recur are not timed again
```

A file is refused where device, torch version or number of threads are others. On a CPU a time is the median of ratios
to a small product that is timed right before and after each run, in seconds of that product at its fastest: on a
shared machine the pace itself drifts, and neither minima nor medians of one call agree with those of the next. With
one thread the time of that thread is read. Caches are swept before each run, as a model would. Attention is timed as
the one operator that it runs as. The time in which Python calls modules is taken to stay when widths shrink.
"""


def markdown(records: Sequence[Record], command: str) -> str:
    """docs/latency_targets.md."""
    eager, others = ([r for r in records if (r["runner"] == "eager") == is_eager] for is_eager in (True, False))
    met = sum(r["within"] for r in eager)
    lines = [
        ABOUT,
        f"    {command}",
        "",
        f"{met} of {len(eager)} rows within {TOLERANCE:.0%} of the latency that was asked for. {platform.machine()}, "
        f"torch {torch.__version__}, one thread. Latencies are parts of the "
        "original's; reported is what prunekit says itself; measured is the benchmark's own: the median over pairs of "
        "runs in turn afterwards, processor time, off is measured / wanted - 1. Scored by magnitude.",
        "",
        "| model | wanted | predicted | reported ± noise | measured (quartiles) | off | MACs left | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(r, r["model"]) for r in eager]
    if others:
        named = " and ".join(sorted({f"`--runner {r['runner']} --only {r['model']}`" for r in others}))
        lines += [
            "",
            f"The same with {named},",
            "`--pairs 20`, beside several other jobs; what runs them is the benchmark's:",
            "",
            *lines[-len(eager) - 2 : -len(eager)],
            *(_row(r, f"{r['model']}, {r['runner']}") for r in others),
        ]
    return "\n".join([*lines, note_on(Path("docs/latency_targets.md"))])


def _row(r: Record, name: str) -> str:
    low, high = (f"{quartile:.3f}" for quartile in r["quartiles"])
    return (
        f"| {name} | {r['wanted']:.2f} | {r['predicted']:.3f} | {r['reported']:.3f} ± {r['noise']:.1%} "
        f"| {r['measured']:.3f} ({low} to {high}) | {r['off']:+.1%} | {r['macs']:.3f} | {r['seconds']} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--runner", default="eager", choices=RUNNERS, help="what runs the models")
    parser.add_argument("--pairs", type=int, default=40, help="runs of each model, in turn")
    parser.add_argument("--out", type=Path, default=Path("docs/latency_targets.json"), help=".md is written beside it")
    parser.add_argument("--render", action="store_true", help="write the .md again from the .json")
    given = parser.parse_args()
    if given.render:
        write_atomically(given.out.with_suffix(".md"), markdown(json.loads(given.out.read_text()), COMMAND))
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    held = json.loads(given.out.read_text()) if given.runner != "eager" and given.out.exists() else []
    names = [n for n in MODELS if given.only in n]
    records = [r for r in held if r["runner"] != given.runner or r["model"] not in names]
    table = prunekit.LatencyTable()
    for name in names:
        for remains in REMAINS:
            records.append(measure(name, remains, table, given.pairs, given.runner))
            sys.stdout.write(json.dumps(records[-1]) + "\n")
            sys.stdout.flush()
    write_atomically(given.out, json.dumps(records, indent=1) + "\n")
    write_atomically(given.out.with_suffix(".md"), markdown(records, COMMAND))


if __name__ == "__main__":
    main()
