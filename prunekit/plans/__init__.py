"""Plans: what pruning will change, composed and kept."""

from prunekit.coupling.groups import Absence
from prunekit.plans.bundle import Bundle
from prunekit.plans.composition import compose
from prunekit.plans.contents import Cut, Edit, Fold, Plan, Removal, Shortening, Width

__all__ = ["Absence", "Bundle", "Cut", "Edit", "Fold", "Plan", "Removal", "Shortening", "Width", "compose"]
