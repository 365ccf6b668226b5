"""Many subnets of one model: a front of damage over cost, and a search by a score of the user's own."""

from prunekit.exploration.fronts import Front, FrontPoint, pareto
from prunekit.exploration.searching import Found, Subnet, search

__all__ = ["Found", "Front", "FrontPoint", "Subnet", "pareto", "search"]
