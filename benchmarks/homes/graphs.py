"""``python -m benchmarks.homes.graphs``: pruned transformers models as ONNX, run by onnxruntime at two batch sizes."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from prunekit_hf.graphs import TensorsOnly

import prunekit
from benchmarks.zoo.rows import OUTSIDE_LIST, builder, read_row
from prunekit.errors import PrunekitError
from prunekit.exports import onnx_of
from prunekit.inputs import Inputs

NAMES = (
    *("bert_masked_lm", "roberta", "distilbert", "albert", "mpnet", "layoutlm", "gpt_neo", "qwen2", "phi", "olmo2"),
    *("dinov2_registers", "vit_msn", "convnextv2", "resnet", "regnet", "poolformer", "wav2vec2", "timesformer"),
)


def main() -> int:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs/homes-onnx.json")
    rows: dict[str, Any] = {}
    for name in NAMES:
        entry = {key: value for key, value in read_row(OUTSIDE_LIST, f"hf/{name}").entry.items() if key != "only"}
        model, inputs = builder(OUTSIDE_LIST).build(entry)
        prunekit.prune(model, inputs, ratio=0.5, uniform=True)
        wrapped = TensorsOnly(model, tuple(inputs)).eval()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            try:
                found = onnx_of(wrapped, Inputs(tuple(inputs.values()), {}), Path(folder) / "model.onnx")
                batches = sorted({each.name.rsplit(" ", 1)[1] for each in found})
                largest = max(each.difference / max(each.largest, 1e-12) for each in found)
                rows[f"hf/{name}"] = {"equal": True, "batches": batches, "difference": largest}
            except PrunekitError as error:
                rows[f"hf/{name}"] = {"equal": False, "error": str(error)[:300]}
        sys.stdout.write(f"{name}: {rows[f'hf/{name}']}\n")
        out.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
