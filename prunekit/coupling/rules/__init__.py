"""One file an operator family. Importing this package registers every rule."""

from prunekit.coupling.rules import (
    convolution,
    factories,
    indexing,
    joining,
    matmul,
    normalisation,
    opaque,
    pointwise,
    pooling,
    reduction,
    slicing,
    views,
)

__all__ = [
    "convolution",
    "factories",
    "indexing",
    "joining",
    "matmul",
    "normalisation",
    "opaque",
    "pointwise",
    "pooling",
    "reduction",
    "slicing",
    "views",
]
