"""Criteria: how much every unit of a group matters. One small file each."""

from prunekit.scorers.contract import Objective, Scorer
from prunekit.scorers.disturbed_taylor import DisturbedTaylor
from prunekit.scorers.magnitude import Magnitude
from prunekit.scorers.random import Random
from prunekit.scorers.statistics import Statistics
from prunekit.scorers.taylor import Taylor

__all__ = ["DisturbedTaylor", "Magnitude", "Objective", "Random", "Scorer", "Statistics", "Taylor"]
