"""prunekit: structured pruning for PyTorch that really makes models smaller."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunekit.api import Report, Result, plan, prune, trace
    from prunekit.apply import Undo, apply
    from prunekit.checkpoint import load, save
    from prunekit.comparison import Comparison, compare
    from prunekit.compose import compose
    from prunekit.coupling.groups import Frozen, Group, Member, Tap, Tie
    from prunekit.coupling.structure import Structure
    from prunekit.errors import PrunekitError
    from prunekit.plan import Plan
    from prunekit.scorers import (
        FPGM,
        LAMP,
        OBD,
        Activation,
        BatchNormScale,
        DisturbedTaylor,
        Fisher,
        GroupNorm,
        Magnitude,
        Random,
        Saliency,
        Scorer,
        Taylor,
        Wanda,
    )
    from prunekit.timing.latency import LatencyTable
else:
    from prunekit import _lazy

    # name -> module: imported when a name is first asked for, so that the command's help need not wait for torch
    _lazy.install(
        __name__,
        {
            "Report": "prunekit.api",
            "Result": "prunekit.api",
            "plan": "prunekit.api",
            "prune": "prunekit.api",
            "trace": "prunekit.api",
            "Undo": "prunekit.apply",
            "apply": "prunekit.apply",
            "load": "prunekit.checkpoint",
            "save": "prunekit.checkpoint",
            "Comparison": "prunekit.comparison",
            "compare": "prunekit.comparison",
            "compose": "prunekit.compose",
            "Frozen": "prunekit.coupling.groups",
            "Group": "prunekit.coupling.groups",
            "Member": "prunekit.coupling.groups",
            "Tap": "prunekit.coupling.groups",
            "Tie": "prunekit.coupling.groups",
            "Structure": "prunekit.coupling.structure",
            "PrunekitError": "prunekit.errors",
            "LatencyTable": "prunekit.timing.latency",
            "Plan": "prunekit.plan",
            "DisturbedTaylor": "prunekit.scorers",
            "Magnitude": "prunekit.scorers",
            "Random": "prunekit.scorers",
            "Scorer": "prunekit.scorers",
            "Taylor": "prunekit.scorers",
            "Activation": "prunekit.scorers",
            "BatchNormScale": "prunekit.scorers",
            "FPGM": "prunekit.scorers",
            "Fisher": "prunekit.scorers",
            "GroupNorm": "prunekit.scorers",
            "LAMP": "prunekit.scorers",
            "OBD": "prunekit.scorers",
            "Saliency": "prunekit.scorers",
            "Wanda": "prunekit.scorers",
        },
    )

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "BatchNormScale",
    "FPGM",
    "Fisher",
    "GroupNorm",
    "LAMP",
    "OBD",
    "Saliency",
    "Wanda",
    "Comparison",
    "DisturbedTaylor",
    "Frozen",
    "Group",
    "LatencyTable",
    "Magnitude",
    "Member",
    "Plan",
    "PrunekitError",
    "Random",
    "Report",
    "Result",
    "Scorer",
    "Structure",
    "Tap",
    "Taylor",
    "Tie",
    "Undo",
    "apply",
    "compare",
    "compose",
    "load",
    "plan",
    "prune",
    "save",
    "trace",
]
