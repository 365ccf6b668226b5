"""A random SAM at full size, slimmed to uniform widths, in other libraries: how far are the outputs off?

    python -m benchmarks.exports --ratios 0.5 0.77 --out runs/exports

Every weight of the image encoder that starts at zero is drawn, and attention made as uneven as a trained
one's, so that a wrong scale or a lost position table shows. Each export is read back by its own library and compared
with the slimmed model on one image and two prompts; the figures are the greatest absolute differences.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from prunekit import save
from prunekit.exports import export
from prunekit.recipes import override
from prunekit.registry import build, known_recipes, scorer
from prunekit.runs import run

SETTINGS = {"ranking": "local", "distill": False, "latency": False, "images": 1, "train_images": 1, "val_images": 1}


def slimmed(spec: str, ratio: float, folder: Path) -> Path:
    """A folder of ``spec``, random, slimmed by ``ratio`` with one width for all blocks and without training."""
    if (folder / "plan.json").is_file():
        return folder
    torch.manual_seed(0)
    built = build(spec)
    encoder = built.model.get_submodule(built.part)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "pos" in name:
                nn.init.normal_(parameter, std=0.1)
            elif name.endswith("qkv.weight"):
                nn.init.normal_(parameter, std=1.4 / parameter.shape[1] ** 0.5)  # logits of a standard deviation of 2
            elif name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
    recipe = override(known_recipes()["slimsam"], SETTINGS)
    return save(run(built, recipe, scorer("magnitude"), ratio=ratio), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sam:vit_b")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.77])
    parser.add_argument("--formats", nargs="+", default=["sam", "hf", "onnx"])
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--out", type=Path, default=Path("runs/exports"))
    options = parser.parse_args()
    rows = []
    for ratio in options.ratios:
        name = f"{options.model.replace(':', '-')}-{ratio}"
        folder = slimmed(options.model, ratio, options.out / name)
        for to in options.formats:
            started = time.perf_counter()
            done = export(
                folder, to, options.out / f"{name}-{to}", precisions=options.precisions if to == "onnx" else ()
            )
            seconds = time.perf_counter() - started
            worst = max(
                found.difference for found in done.compared if not ("_fp16" in found.name or "_q" in found.name)
            )
            rows.append({"ratio": ratio, **asdict(done), "greatest": worst, "seconds": seconds})
            print(
                f"{options.model} less {ratio:.0%}, {to}: greatest difference {worst:.2g}, {seconds:.0f} s", flush=True
            )
            for found in done.compared:
                print(f"    {found.name}: {found.difference:.2g} of {found.largest:.3g}", flush=True)
    versions = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    (options.out / "exports.json").write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
