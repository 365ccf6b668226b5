"""prunekit: structured pruning for PyTorch that really makes models smaller."""

from prunekit.api import Report, Result, plan, prune, trace
from prunekit.apply import Undo, apply
from prunekit.checkpoint import load, save
from prunekit.compose import compose
from prunekit.coupling.groups import Frozen, Group, Member, Tap, Tie
from prunekit.coupling.structure import Structure
from prunekit.errors import PrunekitError
from prunekit.plan import Plan
from prunekit.scorers import DisturbedTaylor, Magnitude, Random, Scorer, Taylor

__version__ = "0.1.0"

__all__ = [
    "DisturbedTaylor",
    "Frozen",
    "Group",
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
    "compose",
    "load",
    "plan",
    "prune",
    "save",
    "trace",
]
