"""One of two ranks that search together: what was found, how many subnets this one scored, and what went wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

import prunekit
from prunekit.errors import PrunekitError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
TRIALS = 9  # one is left over
SAMPLERS = ("random", "nsga2")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)).eval()


def searched(sampler, *, store=None, listen=None, fails=False, trials=TRIALS, over_ranks=True):
    """(what came of it, how many subnets were scored here)."""
    model, scored = network(), []
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def score(slim):
        scored.append(1)
        if fails and len(scored) == 2:
            raise RuntimeError("no light")
        return slim[2].out_features - slim[0].out_features / 7

    try:
        found = prunekit.search(
            model, score, "params<=60%", X, trials=trials, sampler=sampler, store=store, listen=listen,
            over_ranks=over_ranks,
        )  # fmt: skip
        told = {
            "scores": found.scores,
            "best": [dict(found.best.widths), found.best.score],
            "uniform": found.uniform.score,
            "plan": found.best.plan.to_json(),
        }
    except (PrunekitError, RuntimeError) as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    now = model.state_dict()
    told["untouched"] = all(torch.equal(value, now[name]) for name, value in before.items())
    return told, len(scored)


def main(folder):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    found = {sampler: searched(sampler) for sampler in SAMPLERS}
    heard = []
    searched("nsga2", store=folder / "search.log", listen=lambda *told: heard.append(told[:2]), trials=4)
    found["resumed"] = searched("nsga2", store=folder / "search.log", listen=lambda *told: heard.append(told[:2]))
    found["fails"] = searched("random", fails=rank == 1)
    found["differs"] = searched("random", trials=TRIALS + rank)
    found["heard"] = heard
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
