"""``python -m benchmarks.gpu``: what needs a GPU, in under six minutes on one; ends well, with a message, without any.

Latency of dense against pruned models in float32 and bfloat16, eager and compiled, at batch 1 and 32, and a step of
training. Every model has its share of the time: what there is no time left for is listed as skipped, and what fails
with its error. ``--device cpu --tiny`` runs every part on small models, to try the script itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import prunekit
from benchmarks.zoo.tools import call, tensors

OUT = Path("docs/gpu.json")
LIMIT = 330.0  # seconds in all
RUNS = 20
Built = tuple[nn.Module, Callable[[int], Any]]


def encoder(size: str, image: int) -> Built:
    from segment_anything import sam_model_registry
    from segment_anything.modeling import ImageEncoderViT

    if size == "tiny":
        model = ImageEncoderViT(img_size=image, embed_dim=48, depth=2, num_heads=4)
    else:
        model = sam_model_registry[size]().image_encoder
    return model, lambda n: torch.randn(n, 3, image, image)


def vision(name: str, image: int) -> Built:
    import torchvision

    return torchvision.models.get_model(name, weights=None), lambda n: torch.randn(n, 3, image, image)


def llama(**sizes: int) -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(use_cache=False, **sizes))
    return model, lambda n: {"input_ids": torch.ones(n, 64, dtype=torch.long)}


SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
Models = dict[str, tuple[Callable[[], Built], float]]  # how a model is built, and the ratio
MODELS: Models = {
    "resnet50": (lambda: vision("resnet50", 224), 0.5),
    "vit_b_16": (lambda: vision("vit_b_16", 224), 0.5),
    "llama of SmolLM2's size": (lambda: llama(**SMOLLM2), 0.5),
    "sam vit_b p50": (lambda: encoder("vit_b", 1024), 0.5),
    "sam vit_b p77": (lambda: encoder("vit_b", 1024), 0.77),
}
SMALL: Models = {
    "resnet18": (lambda: vision("resnet18", 32), 0.5),
    "llama": (lambda: llama(**TINY), 0.5),
    "sam": (lambda: encoder("tiny", 64), 0.5),
}


def moved(x: Any, device: str, dtype: torch.dtype) -> Any:
    if isinstance(x, dict):
        return {key: moved(value, device, dtype) for key, value in x.items()}
    return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def waited(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(run: Callable[[], Any], device: str, runs: int) -> dict[str, float]:
    """Milliseconds of ``run``: median, least and most, after three calls that do not count."""
    for _ in range(3):
        run()
    found = []
    for _ in range(runs):
        start = waited(device)
        run()
        found.append(1e3 * (waited(device) - start))
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def latencies(
    model: nn.Module, inputs: Callable[[int], Any], device: str, *, runs: int, left: Callable[[], bool]
) -> dict[str, Any]:
    """Milliseconds of a forward pass by precision, way and batch."""
    found: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model.to(device, dtype).eval()
        for way in ("eager", "compiled"):
            run = torch.compile(model) if way == "compiled" else model
            for batch in (1, 32):
                name = f"{str(dtype).removeprefix('torch.')}, {way}, batch {batch}"
                if not left():
                    found[name] = "skipped: no time left"
                    continue
                x = moved(inputs(batch), device, dtype)
                try:
                    with torch.no_grad():
                        found[name] = timed(lambda run=run, x=x: call(run, x), device, runs)
                except Exception as error:  # out of memory, no compiler: said, and the next one goes on
                    found[name] = f"failed: {type(error).__name__}: {str(error)[:200]}"
    model.to(torch.float32)
    return found


def step(model: nn.Module, inputs: Callable[[int], Any], device: str, runs: int) -> dict[str, float]:
    """Milliseconds of a step of training towards zero outputs, batch 2."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    x = moved(inputs(2), device, torch.float32)

    def one() -> None:
        floats: list[Tensor] = [t.float().square().mean() for t in tensors(call(model, x)) if t.is_floating_point()]
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(floats).sum())
        optimizer.step()

    return timed(one, device, runs)


def records(device: str, models: Models, runs: int, limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was measured of each model, dense and pruned; all of it within ``limit`` seconds."""
    start = time.perf_counter()
    for number, (name, (build, ratio)) in enumerate(models.items()):
        until = start + limit * (number + 1) / len(models)
        record: dict[str, Any] = {"ratio": ratio}
        try:
            for which in ("dense", "pruned"):
                torch.manual_seed(0)
                model, inputs = build()
                model.to(device).eval()
                if which == "pruned":
                    x = moved(inputs(1), device, torch.float32)
                    took = time.perf_counter()
                    how: dict[str, Any] = {"scorer": "magnitude", "verify": "shapes"}
                    report = prunekit.prune(model, x, ratio=ratio, **how).report
                    record["prune_seconds"] = time.perf_counter() - took
                    record |= {"params": report.params, "macs": report.macs}
                half = time.perf_counter() + (until - time.perf_counter()) / (2 if which == "dense" else 1)
                record[f"{which} training step"] = step(model, inputs, device, runs)
                record[which] = latencies(
                    model, inputs, device, runs=runs, left=lambda half=half: time.perf_counter() < half
                )
        except Exception as error:  # one model that fails must not take the others' figures
            record["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
        yield name, record


def main(arguments: list[str] | None = None) -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--device", default="cuda")
    ask.add_argument("--tiny", action="store_true", help="small models: to try the script")
    ask.add_argument("--limit", type=float, default=LIMIT, help="seconds in all")
    ask.add_argument("--runs", type=int, default=RUNS)
    ask.add_argument("--out", type=Path, default=OUT)
    given = ask.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("skipped: there is no GPU here; --device cpu --tiny tries the script")
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    card = torch.cuda.get_device_name() if given.device == "cuda" else given.device
    told: dict[str, Any] = {"card": card, "torch": torch.__version__, "runs": given.runs, "models": {}}
    for name, record in records(given.device, SMALL if given.tiny else MODELS, given.runs, given.limit):
        told["models"][name] = record
        print(name, json.dumps(record), flush=True)
        given.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
