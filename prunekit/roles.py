"""Every role that a width can have: its name, what it means, how it is told, and where it stands in each order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self


class Role(str):
    """What a group of units is for. It is its name: it compares, sorts, prints and is kept as that text.

    Attributes:
        meaning: a sentence for people.
        use: the flag on its labels by which operator rules tell it (``Labelling.flag``); "" where none is needed.
        settled: place in the order in which groups are tried against the model's own code. What reaches farthest comes
            first, and what does not fit it is refused, not the other way round.
        preferred: place in the order in which one is taken of several groups that share coordinates.
        default_step: whether its widths are kept at multiples of 8 where nothing else is asked for.
        counted: whether it counts blocks, which one ``align`` for all groups does not speak of.
        stream: whether it runs through the whole model, so that hooks read it where a module reads the sum, and a
            width that others must divide gives way last.
    """

    meaning: str
    use: str
    settled: int
    preferred: int
    default_step: bool
    counted: bool
    stream: bool

    def __new__(
        cls,
        name: str,
        meaning: str = "",
        *,
        use: str = "",
        settled: int = 3,
        preferred: int = 3,
        default_step: bool = True,
        counted: bool = False,
        stream: bool = False,
    ) -> Self:
        self = super().__new__(cls, name)
        values = {"meaning": meaning, "use": use, "settled": settled, "preferred": preferred}
        self.__dict__.update(values, default_step=default_step, counted=counted, stream=stream)
        return self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the role {self!s} is a value and cannot change")


HEADS = Role(
    "attention.heads",
    "the heads of an attention, whole",
    use="heads",
    settled=5,
    preferred=4,
    default_step=False,
    counted=True,
)
HEAD_DIM = Role(
    "attention.head_dim",
    "positions within the heads of an attention, the same in each",
    use="head_dim",
    settled=4,
    preferred=0,
    default_step=False,
)
EMBEDDING = Role(
    "embedding",
    "the residual stream: what additions around whole blocks carry on",
    use="residual",
    settled=0,
    preferred=1,
    stream=True,
)
EXPERTS = Role(
    "experts",
    "the experts of a mixture, whole, with what routes to them",
    use="experts",
    settled=6,
    preferred=5,
    default_step=False,
    counted=True,
)
BLOCK = Role("depth.block", "whole residual blocks of a container", default_step=False, counted=True)

ATTENTION_BRANCH = Role("depth.attention", "residual branches that attend", default_step=False, counted=True)
MLP_BRANCH = Role(
    "depth.mlp", "residual branches of linear layers that do not attend", default_step=False, counted=True
)
OTHER_BRANCH = Role("depth.branch", "residual branches of any other kind", default_step=False, counted=True)

EXPERT_IN_LIST = Role(
    "depth.expert", "experts of a mixture that are entries of a list of modules", default_step=False, counted=True
)

# No operator's use tells them: they are found among the modules and sums of a trace
BRANCHES: tuple[Role, ...] = (ATTENTION_BRANCH, MLP_BRANCH, OTHER_BRANCH)
DEPTH: tuple[Role, ...] = (BLOCK, *BRANCHES, EXPERT_IN_LIST)

CHANNELS = Role("channels", "channels between convolutions", use="conv", settled=2, preferred=3)
HIDDEN = Role("mlp.hidden", "hidden features between linear layers", settled=1, preferred=2)

# In the order in which they are told: the first whose use is found on a unit's labels. The last needs none.
ROLES: tuple[Role, ...] = (EXPERTS, HEADS, HEAD_DIM, EMBEDDING, CHANNELS, HIDDEN)


def told_by(uses: Collection[str], roles: Sequence[Role] = ROLES) -> Role:
    """The role of units whose labels were used so."""
    return next(role for role in roles if not role.use or role.use in uses)


def named(name: str, roles: Sequence[Role] = ROLES) -> Role:
    """The role of that name; one that is not known takes the middle of every order."""
    if isinstance(name, Role):
        return name
    return next((role for role in (*roles, *DEPTH) if role == name), None) or Role(name)
