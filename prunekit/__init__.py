"""prunekit: structured pruning for PyTorch that really makes models smaller."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunekit.api import Report, Result, plan, prune, trace
    from prunekit.checkpoints.reading import load
    from prunekit.checkpoints.saving import save
    from prunekit.comparison import Comparison, compare
    from prunekit.coupling.groups import Frozen, Group, Member, Tap, Tie
    from prunekit.coupling.structure import Structure
    from prunekit.errors import PrunekitError
    from prunekit.exploration import pareto, search
    from prunekit.inputs.per_rank import PerRank
    from prunekit.modules.fetching import fetched
    from prunekit.offloading import offloaded
    from prunekit.options.measured import Measured
    from prunekit.plans.composition import compose
    from prunekit.plans.contents import Plan
    from prunekit.quantities.latency_table import LatencyTable
    from prunekit.runs.penalties import sparsity_penalty
    from prunekit.scorers import (
        FPGM,
        LAMP,
        OBD,
        OBS,
        Activation,
        BatchNormScale,
        BlockInfluence,
        Damage,
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
    from prunekit.surgery.cutting import Undo, applied, apply
    from prunekit.surgery.optimizers import migrate_optimizer
else:
    from prunekit.deferred import deferred_names

    # name -> module: imported when a name is first asked for, so that the command's help need not wait for torch
    __getattr__, __dir__ = deferred_names(
        __name__,
        {
            **dict.fromkeys(("Report", "Result", "plan", "prune", "trace"), "prunekit.api"),
            **dict.fromkeys(("Undo", "applied", "apply"), "prunekit.surgery.cutting"),
            "sparsity_penalty": "prunekit.runs.penalties",
            **dict.fromkeys(("load",), "prunekit.checkpoints.reading"),
            **dict.fromkeys(("save",), "prunekit.checkpoints.saving"),
            **dict.fromkeys(("Comparison", "compare"), "prunekit.comparison"),
            "compose": "prunekit.plans.composition",
            **dict.fromkeys(("pareto", "search"), "prunekit.exploration"),
            "Measured": "prunekit.options.measured",
            "PerRank": "prunekit.inputs.per_rank",
            "fetched": "prunekit.modules.fetching",
            "offloaded": "prunekit.offloading",
            "Plan": "prunekit.plans.contents",
            **dict.fromkeys(("Frozen", "Group", "Member", "Tap", "Tie"), "prunekit.coupling.groups"),
            "Structure": "prunekit.coupling.structure",
            "PrunekitError": "prunekit.errors",
            "migrate_optimizer": "prunekit.surgery.optimizers",
            "LatencyTable": "prunekit.quantities.latency_table",
            **dict.fromkeys(
                (
                    "FPGM",
                    "LAMP",
                    "OBD",
                    "OBS",
                    "Activation",
                    "BatchNormScale",
                    "BlockInfluence",
                    "Damage",
                    "DisturbedTaylor",
                    "Fisher",
                    "GroupNorm",
                    "Magnitude",
                    "REAP",
                    "Random",
                    "RoutedFrequency",
                    "Saliency",
                    "Scorer",
                    "Taylor",
                    "Wanda",
                ),
                "prunekit.scorers",
            ),
        },
    )

__version__ = "0.1.0"

__all__ = [
    "PerRank",
    "Activation",
    "BatchNormScale",
    "BlockInfluence",
    "Damage",
    "FPGM",
    "Fisher",
    "GroupNorm",
    "LAMP",
    "OBD",
    "OBS",
    "REAP",
    "RoutedFrequency",
    "Saliency",
    "Wanda",
    "Comparison",
    "DisturbedTaylor",
    "Frozen",
    "Group",
    "LatencyTable",
    "Magnitude",
    "Measured",
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
    "applied",
    "apply",
    "compare",
    "compose",
    "fetched",
    "load",
    "migrate_optimizer",
    "offloaded",
    "pareto",
    "plan",
    "prune",
    "save",
    "search",
    "sparsity_penalty",
    "trace",
]
