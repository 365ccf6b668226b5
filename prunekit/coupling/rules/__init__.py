"""One file an operator family. Importing this package registers every rule."""

from prunekit.coupling.rules import (
    complex_numbers,
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
    spectral,
    views,
    writing,
)

__all__ = [
    "complex_numbers",
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
    "spectral",
    "views",
    "writing",
]
