"""``python -m benchmarks.speed``: seconds of a call against Torch-Pruning's, row by row, in one run.

All tools prune every width by half by the magnitude of weights. A row is a process of its own in which the calls take
turns: Torch-Pruning, prunekit without and with the check of symmetry, as often as asked. What is told is CPU seconds of
one thread, and how many times as long Torch-Pruning takes: median, least and most over the turns. A tool that is not
ours and takes longer than 20 s is ended and has no turns; torch-kirigami, where it is installed, has one call in a
process of its own. The peak resident set is of a process in which one tool alone ran once. Rows are written as they
come; ``--resume`` goes on with what is missing.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import logging
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.notes import note_on

OUT = Path("docs/speed.json")
HEAD = """# Speed of a call

CPU seconds of one thread for a whole call that halves every width by magnitude: Torch-Pruning {version} (build the
graph, prune), torch-kirigami {kirigami} (one call, by group norms and its greedy strategy, ended after {patience} s),
prunekit without a check (`verify="shapes"`) and with the check of symmetry (`verify="full"`); the others check nothing.
Every row is a process in which Torch-Pruning and prunekit take turns; *times* is how many times as long
Torch-Pruning takes, the median over {turns} turns with the least and the most: above 1 prunekit is faster.
*Limit* is how many times as long as no call can be without a check: one forward pass on the meta device and
one copy of the weights that are kept. Peak resident set of a process in which one tool ran once. Images of 128 x 128 or
64 x 64, 16 tokens, random weights. Imports, and in transformers what is learnt of a class at its first model, lie in
no median: the first turn of a row has the latter.

    make bench-speed

"""
RATIO = 0.5
Built = tuple[nn.Module, Any]


def vision(name: str) -> Callable[[], Built]:
    def build() -> Built:
        import torchvision

        return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 128, 128)

    return build


class Unet(nn.Module):
    """Two steps down, two up, with what lies on one level joined."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def twice(before: int, after: int) -> nn.Sequential:
            layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            return nn.Sequential(*layers, nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())

        self.first, self.second = twice(3, width), twice(width, 2 * width)
        self.third = twice(2 * width, 4 * width)
        self.up2, self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.fourth, self.fifth = twice(4 * width, 2 * width), twice(2 * width, width)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(width, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        b = self.second(self.pool(a))
        c = self.fourth(torch.cat([b, self.up2(self.third(self.pool(b)))], 1))
        return self.head(self.fifth(torch.cat([a, self.up1(c)], 1)))


def language(kind: str, **sizes: int) -> Callable[[], Built]:
    def build() -> Built:
        import transformers

        config = getattr(transformers, f"{kind}Config")(**sizes)
        config.use_cache = False
        return getattr(transformers, f"{kind}Model")(config).eval(), torch.ones(1, 16, dtype=torch.long)

    return build


def images(kind: str, **sizes: Any) -> Callable[[], Built]:
    def build() -> Built:
        import transformers

        config = getattr(transformers, f"{kind}Config")(**sizes)
        return getattr(transformers, f"{kind}Model")(config).eval(), torch.randn(1, 3, 64, 64)

    return build


ENCODER = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
DECODER = {**ENCODER, "num_key_value_heads": 2, "vocab_size": 2000}
ROWS: dict[str, Callable[[], Built]] = {
    **{
        name: vision(name)
        for name in (
            *("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121", "vgg16", "convnext_tiny"),
            *("regnet_x_400mf", "resnext50_32x4d", "squeezenet1_1", "mnasnet0_5", "wide_resnet50_2", "alexnet"),
        )
    },
    "unet": lambda: (Unet().eval(), torch.randn(1, 3, 64, 64)),
    "vit_b_16": lambda: (_vit(), torch.randn(1, 3, 64, 64)),
    "bert": language("Bert", **ENCODER),
    "roberta": language("Roberta", **ENCODER),
    "electra": language("Electra", **ENCODER),
    "gpt2": language("GPT2", n_embd=256, n_layer=4, n_head=4),
    "opt": language("OPT", hidden_size=256, num_hidden_layers=4, num_attention_heads=4, ffn_dim=1024),
    "llama": language("Llama", **DECODER),
    "qwen2": language("Qwen2", **DECODER),
    "hf vit": images("ViT", **ENCODER, image_size=64),
    "hf deit": images("DeiT", **ENCODER, image_size=64),
    "hf dinov2": images("Dinov2", hidden_size=256, num_hidden_layers=4, num_attention_heads=4, image_size=64),
}


def _vit() -> nn.Module:
    import torchvision

    return torchvision.models.VisionTransformer(64, 16, 4, 4, 256, 1024).eval()


def theirs(model: nn.Module, x: Any) -> None:
    """Torch-Pruning with its documented defaults; the layers that give the output are protected."""
    import torch_pruning

    last = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)

    def summed(out: Any) -> Any:
        found = out if isinstance(out, torch.Tensor) else next(iter(out.values()))
        return found.float().sum()

    torch_pruning.pruner.BasePruner(
        model, x, importance=importance, pruning_ratio=RATIO, ignored_layers=[last], output_transform=summed
    ).step()


def ours(verify: str) -> Callable[[nn.Module, Any], None]:
    def call(model: nn.Module, x: Any) -> None:
        import prunekit

        prunekit.prune(model, x, ratio=RATIO, scorer=prunekit.Magnitude(), verify=verify)

    return call


def kirigami(model: nn.Module, x: Any) -> None:
    """torch-kirigami: every width down to half by the greatest group norms."""
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    pruner = Pruner(model, graph=DependencyGraph.build(model, args=(x,)))
    pruner.prune(pruner.discover_candidates(), budget=ChannelRatio(RATIO), strategy=Greedy(GroupMagnitude(p=2)))


KIRIGAMI = "torch-kirigami"
IN_TURN = ("torch-pruning", "without", "with")
TOOLS = {"torch-pruning": theirs, KIRIGAMI: kirigami, "without": ours("shapes"), "with": ours("full")}
PATIENCE = 20  # CPU seconds of a call after which a tool has no more turns, and torch-kirigami is ended


def limit(pruned: nn.Module, x: Any) -> float | None:
    """CPU seconds that no call can do without: a forward on the meta device, and a copy of what is kept.

    None for a model that does not run without values.
    """
    kept = [tensor.detach() for tensor in (*pruned.parameters(), *pruned.buffers())]
    start = time.process_time()
    for tensor in kept:
        tensor.clone()
    copied = time.process_time() - start
    try:
        stand_in, given = pruned.to("meta"), x.to("meta")
        with torch.no_grad(), torch.device("meta"):
            stand_in(given)
            start = time.process_time()
            stand_in(given)
    except (RuntimeError, NotImplementedError):
        return None
    return copied + time.process_time() - start


def seconds(row: str, tools: Sequence[str], turns: int) -> dict[str, Any]:
    """CPU seconds of every turn by tool, in this process, and its peak resident set."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    small = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    found: dict[str, Any] = {}
    for tool in tools:
        TOOLS[tool](copy.deepcopy(small), torch.randn(2, 4))  # imports; no clock runs
    for _ in range(turns):
        for tool in tools:
            if max(found.get(tool, (0.0,))) > PATIENCE or f"{tool} fails" in found:
                continue
            torch.manual_seed(0)
            model, x = ROWS[row]()
            start = time.process_time()
            if tools in ([KIRIGAMI], ["torch-pruning"]):
                end = int(start) + PATIENCE
                resource.setrlimit(resource.RLIMIT_CPU, (end, end + 1))
            try:
                TOOLS[tool](model, x)
            except Exception as error:  # what a tool cannot prune is said, not hidden
                found[f"{tool} fails"] = f"{type(error).__name__}: {error}"[:200]
                continue
            found.setdefault(tool, []).append(round(time.process_time() - start, 4))
            least = limit(model, x) if tool == "without" else None
            if least is not None:
                found.setdefault("limit", []).append(round(least, 5))
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}


def asked_apart(row: str, tools: Sequence[str], turns: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed", "--row", row, "--tools", *tools, "--turns", str(turns)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode == -signal.SIGXCPU:
        return {f"{tools[0]} ended": PATIENCE}
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def of_kirigami(row: str) -> dict[str, Any]:
    """One call of torch-kirigami: its CPU seconds, why it failed, or that it was ended."""
    return {name: value for name, value in asked_apart(row, [KIRIGAMI], 1).items() if name.startswith(KIRIGAMI)}


def paired(found: dict[str, Any], tool: str) -> dict[str, float] | None:
    """How many times as long Torch-Pruning takes as ``tool``, turn by turn."""
    both = [b / a for a, b in zip(found.get(tool, ()), found.get("torch-pruning", ()), strict=False)]
    if not both:
        return None
    return {"median": statistics.median(both), "min": min(both), "max": max(both)}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--row", help="one row, in this process")
    ask.add_argument("--tools", nargs="+", default=list(IN_TURN))
    ask.add_argument("--turns", type=int, default=5)
    ask.add_argument("--only", default="", help="part of a row's name")
    ask.add_argument("--resume", action="store_true", help="leave rows that are in the record as they are")
    given = ask.parse_args()
    if given.row:
        print(json.dumps(seconds(given.row, given.tools, given.turns)))
        return
    known: dict[str, Any] = json.loads(OUT.read_text())["rows"] if OUT.exists() else {}
    installed = importlib.util.find_spec("torch_kirigami") is not None
    for row in [row for row in ROWS if given.only in row]:
        found = known.get(row, {}) if given.resume else {}
        fresh = not found
        if fresh:
            theirs_alone = asked_apart(row, ["torch-pruning"], 1)  # of Llamas it never comes to an end
            ended = {name: value for name, value in theirs_alone.items() if name.endswith(" ended")}
            found = ended | asked_apart(row, [tool for tool in IN_TURN if f"{tool} ended" not in ended], given.turns)
            found["faster"] = {tool: paired(found, tool) for tool in ("without", "with")}
            ours_alone = asked_apart(row, ["with"], 1)
            found["peak_mb"] = {"torch-pruning": theirs_alone.get("peak_mb", ""), "with": ours_alone["peak_mb"]}
        if installed and not any(name.startswith(KIRIGAMI) for name in found):
            found |= of_kirigami(row)
        elif not fresh:
            continue
        known[row] = found
        print(row, json.dumps(found["faster"]), _took(found, KIRIGAMI), flush=True)
        kept = {row: known[row] for row in ROWS if row in known}  # written after each row: a run may be cut short
        OUT.write_text(json.dumps({"summary": summarised(kept), "rows": kept}, indent=1) + "\n")
        OUT.with_suffix(".md").write_text(page(kept))
    print(json.dumps(summarised(known)))


def summarised(rows: dict[str, Any]) -> dict[str, Any]:
    """The median and the least of the rows' medians, over rows that both tools complete."""
    summary = {}
    for tool in ("without", "with"):
        medians = [row["faster"][tool]["median"] for row in rows.values() if row["faster"][tool]]
        if medians:
            summary[tool] = {"median": statistics.median(medians), "least": min(medians), "rows": len(medians)}
    return summary


def page(rows: dict[str, Any]) -> str:
    """docs/speed.md."""
    from importlib.metadata import version

    turns = max((len(row.get("with", ())) for row in rows.values()), default=0)
    other = version(KIRIGAMI) if importlib.util.find_spec("torch_kirigami") else "(not installed here)"
    lines = [HEAD.format(version=version("torch-pruning"), kirigami=other, patience=PATIENCE, turns=turns)]
    for tool, found in summarised(rows).items():
        middle, least = f"{found['median']:.2f}", f"{found['least']:.2f}"
        lines.append(f"- {tool} verification: {middle} times in the median of {found['rows']} rows, {least} at least")
    lines += [f"- {len(rows)} of {len(ROWS)} rows are in this record.", ""]
    names = "| row | Torch-Pruning s | torch-kirigami s | without s | with s | times without | times with"
    lines += [f"{names} | limit | peak MB theirs / with |", "|" + "---|" * 9]
    for name, row in rows.items():
        took = [_took(row, tool) for tool in ("torch-pruning", "torch-kirigami", "without", "with")]
        times = [_times(row["faster"][tool]) for tool in ("without", "with")]
        peaks = " / ".join(str(row["peak_mb"][tool]) for tool in ("torch-pruning", "with"))
        far = f"{statistics.median(row['without']) / statistics.median(row['limit']):.1f}" if row.get("limit") else ""
        lines.append(f"| {name} | {' | '.join(took)} | {' | '.join(times)} | {far} | {peaks} |")
    return "\n".join([*lines, note_on(OUT.with_suffix(".md"))])


def _took(row: dict[str, Any], tool: str) -> str:
    if row.get(tool):
        return f"{statistics.median(row[tool]):.3f}"
    if f"{tool} ended" in row:
        return f"over {row[f'{tool} ended']}"
    return "fails" if f"{tool} fails" in row else ""


def _times(found: dict[str, float] | None) -> str:
    return "" if found is None else f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f})"


if __name__ == "__main__":
    main()
