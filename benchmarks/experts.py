"""Experts taken out of a tiny mixture that is trained here, on this repository's text: which criterion loses least.

    python -m benchmarks.experts --out docs/experts.json     # .md is written beside it; ten minutes on two idle cores

A byte-level language model of transformers' Mixtral class, 2 layers of 16 experts of which 2 are chosen, is trained for
each seed; a quarter and a half of the experts go by REAP, routed frequency, magnitude and chance, and nothing is
trained after it.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import MixtralConfig, MixtralForCausalLM

import prunekit
from benchmarks.reductions import table
from benchmarks.zoo.report import versions
from benchmarks.zoo.runner import write_atomically
from prunekit.scorers import Scorer

SEEDS = (0, 1, 2)
SHARES = (0.25, 0.5)
LENGTH, BATCH, HELD_OUT, CALIBRATION = 128, 16, 64, 8
RUNS = 20
CHANCE = 3  # random cuts of each model
SIZES = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_local_experts": 16,
    "num_experts_per_tok": 2,
    "max_position_embeddings": LENGTH,
    "router_aux_loss_coef": 0.01,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
WAYS = ("reap", "routed_frequency", "magnitude", "random")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experts", description=__doc__)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--out", type=Path, default=Path("docs/experts.json"))
    given = parser.parse_args()
    text, other = texts(Path("docs"))
    rows = []
    for seed in SEEDS:
        model, took = trained(text, given.steps, seed)
        rows.append({"seed": seed, "way": "whole", "share": 0.0, **judged(model, other), "seconds": took})
        Console().print(rows[-1])
        rows += cuts(model, text, other, seed)
    told = {"versions": versions(), "steps": given.steps, "bytes": len(text), "sizes": SIZES, "rows": rows}
    told["rates"] = rates(other)
    write_atomically(given.out, json.dumps(told, indent=1) + "\n")
    write_atomically(given.out.with_suffix(".md"), page(told))
    Console().print(page(told), markup=False, highlight=False, soft_wrap=True)


def texts(folder: Path) -> tuple[Tensor, Tensor]:
    """Bytes of every page but each eighth, and of those: (n,) int64."""
    pages = [p for p in sorted(folder.rglob("*.md")) if p.name != "experts.md"]
    parts = [[p.read_bytes() for k, p in enumerate(pages) if (k % 8 == 7) is held] for held in (False, True)]
    first, second = (torch.frombuffer(bytearray(b"\n".join(part)), dtype=torch.uint8).long() for part in parts)
    return first, second


def drawn(text: Tensor, count: int, seed: int) -> Tensor:
    """(count, LENGTH): pieces of a text at random places."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - LENGTH, (count,), generator=generator)
    return torch.stack([text[start : start + LENGTH] for start in starts.tolist()])


def trained(text: Tensor, steps: int, seed: int) -> tuple[MixtralForCausalLM, float]:
    """The mixture after so many steps of AdamW with a balancing loss, and how long that took."""
    torch.manual_seed(seed)
    model = MixtralForCausalLM(MixtralConfig(**SIZES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
    start = time.perf_counter()
    for step in range(steps):
        ids = drawn(text, BATCH, 10_000 * (seed + 1) + step)
        loss = model(input_ids=ids, labels=ids, use_cache=False, output_router_logits=True).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), round(time.perf_counter() - start, 1)


def cuts(model: MixtralForCausalLM, text: Tensor, other: Tensor, seed: int) -> Iterator[dict[str, Any]]:
    """Every way at every share, each on a copy."""
    data = [{"input_ids": ids.unsqueeze(0), "use_cache": False} for ids in drawn(text, CALIBRATION, 77 + seed)]
    for share in SHARES:
        for way in WAYS:
            for draw in range(CHANCE if way == "random" else 1):
                cut = copy.deepcopy(model)
                scorer: Scorer | str = prunekit.Random(seed=100 * seed + draw) if way == "random" else way
                start = time.perf_counter()
                prunekit.prune(cut, data[0], roles=["experts"], ratio=share, scorer=scorer, data=data)
                took = round(time.perf_counter() - start, 2)
                row = {"seed": seed, "way": way, "share": share, "draw": draw, **judged(cut, other), "seconds": took}
                Console().print(row)
                yield row


@torch.no_grad()
def judged(model: MixtralForCausalLM, text: Tensor) -> dict[str, float]:
    """Loss in nats a byte on held-out text, and parameters."""
    ids = drawn(text, HELD_OUT, 5)
    losses = [float(model(input_ids=part, labels=part, use_cache=False).loss) for part in ids.split(BATCH)]
    return {"loss": statistics.fmean(losses), "params": sum(p.numel() for p in model.parameters())}


@torch.no_grad()
def rates(text: Tensor) -> dict[str, float]:
    """Bytes a second of one core (its own time, the best of many runs), whole and at each share: weights as drawn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ids, found = drawn(text, BATCH, 6), {}
    data = {"input_ids": ids[:1], "use_cache": False}
    try:
        for share in (0.0, *SHARES):
            torch.manual_seed(0)
            model = MixtralForCausalLM(MixtralConfig(**SIZES)).eval()
            if share:
                prunekit.prune(model, data, roles=["experts"], ratio=share, scorer=prunekit.Random(seed=0))
            times = []
            for _ in range(RUNS):
                start = time.process_time()
                model(input_ids=ids, use_cache=False)
                times.append(time.process_time() - start)
            found[str(share)] = round(BATCH * LENGTH / min(times))
    finally:
        torch.set_num_threads(threads)
    return found


def page(told: Any) -> str:
    """The page: what was trained, what the cuts lose, what does not hold."""
    whole = [row for row in told["rows"] if row["way"] == "whole"]
    body = [["whole", "", *cells(whole, whole), f"{told['rates']['0.0']}"]]
    body += [
        [
            way,
            f"{share:.0%}",
            *cells([r for r in told["rows"] if (r["way"], r["share"]) == (way, share)], whole),
            f"{told['rates'][str(share)]}",
        ]
        for share in SHARES
        for way in WAYS
    ]
    head = ["criterion", "experts gone", "held-out loss, nats a byte", "more than whole", "parameters", "bytes/s"]
    return "\n".join([GUIDE, *about(told), "", *table(head, body), "", *remarks(told["rows"])])


def about(told: Any) -> list[str]:
    """What was trained and how it was judged."""
    sizes = told["sizes"]
    built = ", ".join(f"{k} {v}" for k, v in told["versions"].items() if k in ("torch", "transformers", "prunekit"))
    return [
        "## What a cut costs",
        "",
        f"{built}; `python -m benchmarks.experts`: a byte-level Mixtral of {sizes['num_hidden_layers']} layers with",
        f"{sizes['num_local_experts']} experts, {sizes['num_experts_per_tok']} of them chosen, trained here for"
        f" {told['steps']} steps on {told['bytes'] / 1000:.0f} kB of this",
        f"documentation and judged on pages that it did not see. Mean over {len(SEEDS)} trained models ± half the range"
        f" (chance: {CHANCE} draws",
        f"of each); scored on {CALIBRATION} pieces of {LENGTH} bytes; nothing is trained after the cut. Bytes/s: of one"
        " core's own time,",
        "weights as drawn. A token still runs as many experts as before, so speed is not what goes down; memory is.",
    ]


def cells(rows: list[dict[str, Any]], whole: list[dict[str, Any]]) -> list[str]:
    base = {row["seed"]: row["loss"] for row in whole}
    losses = [row["loss"] for row in rows]
    more = [row["loss"] - base[row["seed"]] for row in rows]
    half = [(max(values) - min(values)) / 2 for values in (losses, more)]
    return [
        f"{statistics.fmean(losses):.3f} ± {half[0]:.3f}",
        f"{statistics.fmean(more):+.3f} ± {half[1]:.3f}",
        f"{rows[0]['params'] / whole[0]['params']:.0%}",
    ]


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """Where REAP beats the others on every trained model, and where it does not."""
    found = []
    for share in SHARES:
        for way in WAYS[1:]:
            wins = 0
            for seed in SEEDS:
                mine = next(r["loss"] for r in rows if (r["way"], r["share"], r["seed"]) == ("reap", share, seed))
                theirs = [r["loss"] for r in rows if (r["way"], r["share"], r["seed"]) == (way, share, seed)]
                wins += mine < statistics.fmean(theirs)
            found.append(
                f"- {share:.0%}: REAP is better than {way.replace('_', ' ')} on {wins} of {len(SEEDS)} models."
            )
    return [*found, ""]


GUIDE = """\
# Experts of a mixture

```python
result = prunekit.prune(model, inputs, roles=["experts"], ratio=0.25, scorer="reap", data=data)
```

or `prunekit prune hf:FOLDER --roles experts --ratio 0.25 --scorer reap --data FILE` takes a quarter of the experts
out of every layer that routes, with their rows of the router and their correction biases. Which axes are experts is
read off the trace: top-k gives positions along an axis, and whatever is read at these positions keeps step with it. No
class is known. Stacks of weights that are picked, batched, looped over or multiplied in runs, sigmoid routers with a
correction bias, routing that is limited to groups, and shared experts (which stay) are all found so. `prunekit trace`
shows the groups.

- What is left is exactly the whole model whose router never chooses what went, and permuting experts with their router
  rows changes nothing: tested on ten classes of transformers and on mixtures of random shapes.
- `top_k` stays. A ratio that names experts and leaves fewer than are chosen is refused, and says the largest ratio;
  reached with all other roles, as many stay as are chosen; a target that cannot be met otherwise says what it reaches.
- Where routing is limited to groups, every group loses as many: one unit is the same position in each of them.
- The count is repaired in attributes that forward reads and, with `prunekit-hf`, in the config, so that
  `save_pretrained` and `from_pretrained` give the pruned model back. Layers share one number there: the default
  ranking, `local`, takes as many from each.
- `reap` scores an expert by the mean over its tokens of gate x norm of its output
  ([Lasby et al. 2025](https://arxiv.org/abs/2510.13999)), `routed_frequency` by the share of tokens that it is sent.
  Both measure what an expert adds by running its layer without the others, so they fit any way of routing; that costs
  one run of the layer an expert and sample. `REAP(elsewhere=prunekit.Wanda())` scores the other roles of one call.
- An expert whose number means more (compared with one that is written down, looked up in a table, computed with,
  returned by the model) stays; `prunekit explain` says where. So do experts in a list of modules, one after the other:
  entries of a list are not taken out yet, while the widths inside them shrink as before.
- Kernels that multiply in runs want widths of whole 16 bytes: inside experts keep widths at multiples of 8, as is done
  by default from 64 units on.

"""

if __name__ == "__main__":
    main()
