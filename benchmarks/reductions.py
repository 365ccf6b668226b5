"""What a unit's score is made of: which kinds of parameters it comes from, and how the ways to reduce them rank units.

    python -m benchmarks.reductions --out docs/reductions.json     # .md is written beside it; a minute on one core

On the bundled ``sam:nano`` and generated scenes, by disturbed Taylor; with ``--cuts`` also what a cut by each way
leaves of the masks, in another 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy.stats import spearmanr

import prunekit
from benchmarks.zoo.report import versions
from benchmarks.zoo.runner import write_atomically
from prunekit.inputs import as_samples
from prunekit.registry import build
from prunekit.scorers import Statistics
from prunekit.scorers.kinds import KINDS, parameter_kind
from prunekit.scorers.reducers import rows

WAYS = {
    "mean, all (the default)": {},
    "sum, all": {"within": "sum"},
    "mean, matrix": {"reads": "matrix"},
    "sum, matrix (SlimSAM's)": {"within": "sum", "reads": "matrix"},
}
SEEDS = (0, 1, 2)
RATIOS = (0.75, 0.9)
ABOUT = """\
Criteria of products of weights and gradients take `within` (how a unit's elements of one parameter join: `mean` or
`sum`) and `reads` (which kinds of parameters count: `matrix`, `table` such as positions, `norm`, `bias`, or `all`);
recipes have settings of these names. With a mean, one number of a norm or bias counts as much as a row of a matrix."""
CUT = "prune sam:nano --recipe slimsam --set latency=false --set distill=false"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reductions", description=__doc__)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--out", type=Path, default=Path("docs/reductions.json"))
    parser.add_argument("--cuts", action="store_true", help="cut by each way and judge the masks")
    given = parser.parse_args()
    told = {"versions": versions(), "images": given.images, "roles": measured(given.images)}
    told["cuts"] = cuts() if given.cuts else []
    write_atomically(given.out, json.dumps(told, indent=1) + "\n")
    write_atomically(given.out.with_suffix(".md"), page(told))
    Console().print(page(told), markup=False, highlight=False, soft_wrap=True)


def measured(images: int) -> dict[str, Any]:
    """By role: the share of the score that each kind gives under each way, and Spearman with SlimSAM's way."""
    from prunekit_sam.plugin import sa1b

    built = build("sam:nano")
    part: Any = built.model.get_submodule(built.part)
    data = sa1b(built.model, None, "train", images, 0)
    batches = [data.batch([k]) for k in range(images)]
    structure = prunekit.trace(part, batches[0])
    found: dict[str, Any] = {}
    for seed in SEEDS:
        statistics = Statistics(part, list(as_samples(batches, structure.inputs)))
        for role in dict.fromkeys(group.role for group in structure.groups):
            groups = [group for group in structure.groups if group.role == role]
            entry = found.setdefault(str(role), {"shares": {}, "spearman": {}})
            theirs = scores(groups, statistics, seed, WAYS["sum, matrix (SlimSAM's)"])
            for way, asked in WAYS.items():
                ours = scores(groups, statistics, seed, asked)
                each = [float(spearmanr(a, b).statistic) for a, b in zip(ours, theirs, strict=True)]
                entry["spearman"].setdefault(way, []).extend(each)
            for within in ("mean", "sum"):
                entry["shares"][within] = shares(part, groups, statistics, seed, within)
    return found


def cuts() -> list[dict[str, Any]]:
    """Mean IoU, with one point and one box, of held-out scenes after both cuts and nothing trained."""
    found = []
    controls = {"random": ["--scorer", "random"], "magnitude": ["--scorer", "magnitude"]}
    ways = {way: [f"--set={key}={value}" for key, value in asked.items()] for way, asked in WAYS.items()}
    for ratio, (way, flags), seed in product(RATIOS, (ways | controls).items(), SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            words = [*CUT.split(), "--ratio", str(ratio), "--seed", str(seed), *flags, "--out", f"{folder}/slim"]
            command = [sys.executable, "-m", "prunekit", *words, "--json"]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            answer = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        metrics = json.loads(answer.stdout)["metrics"]
        after = {name: metrics[name]["after"] for name in ("point_miou", "box_miou")}
        found.append({"ratio": ratio, "way": way, "seed": seed, **after})
    return found


def scores(groups: Any, statistics: Statistics, seed: int, asked: Any) -> list[Any]:
    scorer = prunekit.DisturbedTaylor(seed=seed, **asked)
    return [scorer.score(group, statistics).numpy() for group in groups]


def shares(part: Any, groups: Any, statistics: Statistics, seed: int, within: Any) -> dict[str, float]:
    """By kind: its part of all units' scores."""
    from prunekit.scorers.disturbed_taylor import Disturbance

    products = statistics.products(Disturbance(0.01, seed), "abs")
    sums = dict.fromkeys(KINDS, 0.0)
    for group in groups:
        for member, row in zip(group.parameters, rows(group, products.__getitem__, within), strict=True):
            path, _, own = member.tensor.rpartition(".")
            sums[parameter_kind(part.get_submodule(path), own)] += float(row.nansum())
    total = sum(sums.values())
    return {kind: value / total for kind, value in sums.items()}


def page(told: Any) -> str:
    built = ", ".join(f"{k} {v}" for k, v in told["versions"].items())
    lines = ["# What a score is made of", "", f"{built}.", "", "    python -m benchmarks.reductions", ""]
    lines += [
        f"Disturbed Taylor on `sam:nano`, {told['images']} generated scenes, seeds 0 to {len(SEEDS) - 1} of the noise.",
        *ABOUT.splitlines(),
        "",
        "Where the scores of all units come from:",
        "",
        *table(
            ["role", "within", *KINDS],
            [
                [role, within, *(f"{found[kind]:.1%}" for kind in KINDS)]
                for role, entry in told["roles"].items()
                for within, found in entry["shares"].items()
            ],
        ),
        "",
        "Spearman with SlimSAM's way (sums within the weights of linear layers and convolutions), lowest to highest",
        "over groups and seeds:",
        "",
        *table(
            ["role", *WAYS],
            [
                [role, *(f"{min(found):.2f} to {max(found):.2f}" for found in entry["spearman"].values())]
                for role, entry in told["roles"].items()
            ],
        ),
    ]
    return "\n".join([*lines, *(cut_lines(told["cuts"]) if told["cuts"] else ())]) + "\n"


def cut_lines(cuts: list[dict[str, Any]]) -> list[str]:
    def cell(way: str, ratio: float) -> str:
        found = [row for row in cuts if row["way"] == way and row["ratio"] == ratio]
        return " / ".join(spread([row[name] for row in found]) for name in ("point_miou", "box_miou"))

    ways = dict.fromkeys(row["way"] for row in cuts)
    return [
        "",
        f"Masks after both cuts, nothing trained (`prunekit {CUT} --ratio R`), one point / one box,",
        f"mean of {len(SEEDS)} seeds and half the range between them:",
        "",
        *table(
            ["way", *(f"{ratio:g} gone" for ratio in RATIOS)], [[way, *(cell(way, r) for r in RATIOS)] for way in ways]
        ),
    ]


def table(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]]


def spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f} ± {(max(values) - min(values)) / 2:.3f}"


if __name__ == "__main__":
    main()
