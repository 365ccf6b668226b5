"""The two tools at equal multiply-adds: a model cut by prunekit, and one by Torch-Pruning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import prunekit
from prunekit.scorers import Scorer

SAMPLES = 64  # of the calibration photos, for every criterion that reads data, of both tools
TOLERANCE = 0.005  # by which Torch-Pruning may miss the target upwards, as a share of the whole model


def loss(output: Tensor, target: Tensor) -> Tensor:
    return cross_entropy(output, target)


OURS: Mapping[str, Callable[[int], Scorer]] = {
    "random": lambda seed: prunekit.Random(seed=seed),
    "magnitude": lambda seed: prunekit.Magnitude(),
    "magnitude_l1": lambda seed: prunekit.Magnitude(p=1),
    "group_norm": lambda seed: prunekit.GroupNorm(),
    "batch_norm_scale": lambda seed: prunekit.BatchNormScale(),
    "lamp": lambda seed: prunekit.LAMP(),
    "fpgm": lambda seed: prunekit.FPGM(),
    "activation": lambda seed: prunekit.Activation(),
    "apoz": lambda seed: prunekit.Activation("apoz"),
    "wanda": lambda seed: prunekit.Wanda(),
    "saliency": lambda seed: prunekit.Saliency(),
    "taylor": lambda seed: prunekit.Taylor(loss),
    "fisher": lambda seed: prunekit.Fisher(loss),
    "obd": lambda seed: prunekit.OBD(loss),
    "obs": lambda seed: prunekit.OBS(),
    "disturbed_taylor": lambda seed: prunekit.DisturbedTaylor(),
}


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds as torch itself counts them, for either tool."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    return int(counter.get_total_flops()) // 2


def theirs(name: str, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Any:
    """Torch-Pruning's importance of that name; gradients that it reads are left in ``model``."""
    import torch_pruning as tp

    torch.manual_seed(seed)
    simple = {
        "random": tp.importance.RandomImportance,
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "magnitude_l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "batch_norm_scale": tp.importance.BNScaleImportance,
        "lamp": tp.importance.LAMPImportance,
        "fpgm": tp.importance.FPGMImportance,
    }
    if name in simple:
        return simple[name]()
    if name == "taylor":
        for x, y in zip(images[:SAMPLES].split(8), labels[:SAMPLES].split(8), strict=True):
            loss(model(x), y).backward()
        return tp.importance.GroupTaylorImportance()
    assert name == "hessian", name
    importance = tp.importance.GroupHessianImportance()
    importance.zero_grad()
    for x, y in zip(images[:SAMPLES].split(1), labels[:SAMPLES].split(1), strict=True):
        model.zero_grad()
        loss(model(x), y).backward()
        importance.accumulate_grad(model)
    return importance


THEIRS = ("random", "magnitude", "magnitude_l1", "batch_norm_scale", "lamp", "fpgm", "taylor", "hessian")


def cut_by_theirs(
    model: nn.Module, importance: Any, example: Tensor, ranking: str, shares: tuple[float, ...], head: str
) -> Iterator[tuple[float, nn.Module]]:
    """Copies of ``model`` cut by Torch-Pruning: its ratio is sought until the multiply-adds are those wanted."""
    import torch_pruning as tp

    whole = macs(model, example)

    def at(ratio: float) -> nn.Module:
        made, how = copy.deepcopy((model, importance))
        for mine, theirs in zip(made.parameters(), model.parameters(), strict=True):
            mine.grad = None if theirs.grad is None else theirs.grad.clone()  # a copied parameter has none
        pruner = tp.pruner.BasePruner(
            made,
            example,
            importance=how,
            pruning_ratio=ratio,
            max_pruning_ratio=0.9,
            global_pruning=ranking != "local",
            isomorphic=ranking == "isomorphic",
            ignored_layers=[made.get_submodule(head)],
        )
        pruner.step()
        return made

    for share in shares:
        low, high, best = 0.0, 0.9, None
        for _ in range(8):
            middle = (low + high) / 2
            made = at(middle)
            if macs(made, example) <= (share + TOLERANCE) * whole:
                high, best = middle, made
            else:
                low = middle
        if best is not None:
            yield share, best
