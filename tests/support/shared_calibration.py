"""One of two ranks that share calibration samples: prunes in several ways and writes what came of each as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import prunekit
from prunekit.errors import PrunekitError
from prunekit.registry import criterion
from support.mixtures import Mixture, Shape

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
COUNT = 8  # samples of all ranks together


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


def samples():
    """All of them; the third comes again as the seventh."""
    drawn = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(10 + n)) for n in range(COUNT)]
    drawn[6] = drawn[2]
    return drawn


def share(rank, of=2):
    part = COUNT // of
    return samples()[rank * part : (rank + 1) * part]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def tower():
    """Residual blocks over the pixels of every row."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Flatten(1, 2), *(Block() for _ in range(5)), nn.Linear(8, 3)).eval()


def mixture():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 5), Mixture(Shape(), "softmax", "all")).eval()


MEASURED = prunekit.Measured(samples=6, sets=1, rounds=0, widths=(0.5,))
# what is no sum of scores in one step: the model, and how it is pruned
WAYS = {
    "curvature": (network, {"scorer": prunekit.OBD(loss=lambda out, target: out.square().sum()), "ratio": 0.4}),
    "steps": (network, {"scorer": "wanda", "ratio": 0.4, "steps": 2}),
    "a refit": (network, {"scorer": "wanda", "ratio": 0.4, "compensate": "ridge"}),
    "a refit in order": (network, {"scorer": "wanda", "ratio": 0.4, "compensate": "ridge-in-order"}),
    "measured widths": (network, {"scorer": "wanda", "target": "macs<=60%", "allocation": MEASURED}),
    "damage": (tower, {"roles": "depth.*", "ratio": 0.3}),
    "damage of two samples": (tower, {"roles": "depth.*", "ratio": 0.3, "scorer": prunekit.Damage(samples=2)}),
    "damage again": (tower, {"roles": "depth.block", "ratio": 0.4, "scorer": prunekit.Damage(greedy=True)}),
    "influence": (tower, {"roles": "depth.block", "ratio": 0.4, "scorer": "block_influence"}),
    "measured depth": (tower, {"roles": "depth.*", "target": "params<=70%", "allocation": MEASURED}),
    "depth and widths": (tower, {"ratio": {"depth.block": 0.2, "mlp.hidden": 0.5}, "scorer": "wanda"}),
    "maps": (tower, {"roles": "depth.mlp", "ratio": 0.2, "replace": "affine"}),
    "experts": (mixture, {"roles": "experts", "ratio": 0.34, "scorer": "reap"}),
}


def pruned_by(way, data):
    """The plan, and every tensor of the model that it leaves."""
    make, asked = WAYS[way]
    model = make()
    plan = prunekit.prune(model, X, data=data, **asked).plan
    return plan.to_json(), {name: value.tolist() for name, value in model.state_dict().items()}


SCORERS = {
    "default": None,
    "wanda": "wanda",
    "saliency": "saliency",
    "activation": "activation",
    "obs": "obs",
    "six": prunekit.DisturbedTaylor(images=6),
    "two": prunekit.Wanda(images=2),  # which the first rank has both of
}


def scores_seen(model, data, scorer):
    """The plan, and the summed scores of the units of every group as the scorer gave them."""
    found = {}
    plain = criterion(scorer)

    class Listening:
        needs = getattr(type(plain), "needs", None)

        def score(self, group, statistics):
            found[group.name] = plain.score(group, statistics).tolist()
            return torch.tensor(found[group.name], dtype=torch.float64)

    plan = prunekit.plan(model, X, data=data, scorer=Listening(), ratio=0.4, align=1)
    return plan, found


def error_of(call):
    try:
        call()
    except PrunekitError as error:
        return f"{type(error).__name__}: {error.what}"
    return "none"


def same_bits(model):
    return all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), network().state_dict().values(), strict=True)
    )


def refused(rank):
    """What goes wrong on one rank alone, or on all: what each rank says of it."""
    mine, told, model = share(rank), {}, network()
    broken = [*mine[:-1], torch.full_like(X, float("nan"))] if rank else mine
    calls = {
        "unequal": {"data": prunekit.PerRank(mine[: 4 - rank])},
        "not a number": {"data": prunekit.PerRank(broken)},
        "a loss that is none": {"data": prunekit.PerRank(broken), "scorer": None},
        "an empty share": {"data": prunekit.PerRank([] if rank else mine)},
        "other options": {"data": prunekit.PerRank(mine), "ratio": 0.25 + 0.5 * rank},
        "a group that is not there": {"data": prunekit.PerRank(mine), "include": "nowhere*" if rank else "3*"},
        "a refit of unequal shares": {
            "data": prunekit.PerRank(mine[: 4 - rank]),
            "compensate": "ridge",
            "scorer": "lamp",
        },
    }
    for name, given in calls.items():
        told[name] = error_of(lambda given=given: prunekit.prune(model, X, **{"scorer": "wanda", **given}))
        told[f"{name}: as it was"] = same_bits(model)
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += rank
    told["other weights"] = error_of(lambda: prunekit.prune(model, X, data=prunekit.PerRank(mine), scorer="wanda"))
    return told


def main(folder):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    told = {}
    for name, scorer in SCORERS.items():
        plan, scores = scores_seen(network(), prunekit.PerRank(share(rank)), scorer)
        told[name] = [plan.to_json(), scores]
    model = network()
    result = prunekit.prune(model, X, data=prunekit.PerRank(share(rank)), target="macs<=50%")
    told["pruned"] = [result.plan.to_json(), result.report.macs["after"]]
    told["ways"] = {way: pruned_by(way, prunekit.PerRank(share(rank))) for way in WAYS}
    told["refused"] = refused(rank)
    if rank:  # ends without a word, as a process that is killed
        (folder / f"{rank}.json").write_text(json.dumps(told))
        os._exit(0)
    told["gone"] = error_of(lambda: prunekit.prune(network(), X, data=prunekit.PerRank(share(rank))))
    (folder / f"{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
