"""What is known of operators: one file a family, and one table of them all."""

from prunekit.graph.nodes import Op, Ref, packet
from prunekit.labels.labelling import Labelling
from prunekit.operators.operator import Operator, Positions, ProductCost, Rule, Scales
from prunekit.operators.pointwise import couple_pointwise
from prunekit.operators.product_costs import matrices
from prunekit.operators.table import TABLE, Table

__all__ = [
    "TABLE",
    "Labelling",
    "Op",
    "Operator",
    "Positions",
    "ProductCost",
    "Ref",
    "Rule",
    "Scales",
    "Table",
    "couple_pointwise",
    "matrices",
    "packet",
]
