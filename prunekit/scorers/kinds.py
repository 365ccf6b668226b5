"""What kind of parameter a criterion reads: a unit owns rows of matrices, and single numbers of norms and biases.

A mean over a unit's elements in each parameter counts one number of a norm as much as a whole row of a matrix, and
there are many norms: in an image encoder most of an embedding channel's score then comes from vectors.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from torch import nn

from prunekit.coupling.groups import Group
from prunekit.errors import RegistryError
from prunekit.scorers.statistics import Statistics

KINDS = ("matrix", "table", "norm", "bias")
Reads = str | Collection[str]


def kinds_named(reads: Reads) -> frozenset[str]:
    """The kinds that ``reads`` names: ``all``, words between commas, or several words.

    Raises RegistryError for another word, and for none.
    """
    words = [w.strip() for w in reads.split(",") if w.strip()] if isinstance(reads, str) else list(reads)
    if words == ["all"]:
        return frozenset(KINDS)
    unknown = [word for word in words if word not in KINDS]
    if unknown or not words:
        raise RegistryError.unknown("kind of parameter", unknown[0] if unknown else "", ("all", *KINDS))
    return frozenset(words)


def parameter_kind(owner: nn.Module, own: str) -> str:
    """The kind of the parameter ``own`` of the module ``owner``.

    ``matrix``: the weight of a linear layer or convolution; ``table``: what else has two axes or more, such as
    positions and embeddings; ``bias``: a vector beside a matrix; ``norm``: a vector in a module without one.
    """
    wide = [key for key, p in owner.named_parameters(recurse=False) if p.ndim > 1]
    if own not in wide:
        return "bias" if wide else "norm"
    is_leaf = next(owner.children(), None) is None
    is_table = isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) or not (is_leaf or "weight" in own)
    return "table" if is_table else "matrix"


def of_kinds(group: Group, statistics: Statistics, reads: Reads) -> Group:
    """``group`` with the parameters of these kinds alone; as it is where they do not reach all of its units."""
    wanted = kinds_named(reads)
    if wanted == frozenset(KINDS):
        return group

    def kind(name: str) -> str:
        path, _, own = name.rpartition(".")
        return parameter_kind(statistics.module(path), own)

    kept = [m for m in group.parameters if kind(m.tensor) in wanted]
    reached = {unit for m in kept for unit in set(m.unit_of.tolist())} - {-1}
    return replace(group, members=tuple(kept)) if len(reached) == group.size else group
