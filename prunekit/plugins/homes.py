"""What a plug-in may bring about libraries that a pruned model goes back to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from prunekit.inputs import Inputs


@dataclass(frozen=True)
class Settlement:
    """Whether a pruned model says its own widths, so that its library builds it again.

    Attributes:
        edits: what was written into the model's configuration: entry, number before, number after.
        wrong: names of tensors that no configuration gives back.
        trouble: why not, for people; "" where it does.
        undo: takes the edits back.
    """

    edits: tuple[tuple[str, float, float], ...]
    wrong: tuple[str, ...]
    trouble: str
    undo: Callable[[], None]


Place = tuple[str, int]  # a parameter or buffer and one of its axes


@dataclass(frozen=True)
class Spoken:
    """What a class builds from the configuration that comes nearest to wanted sizes.

    Attributes:
        numbers: int and float attributes by module and name.
        wrong: places whose sizes it builds otherwise; none where the configuration says them.
    """

    numbers: Mapping[tuple[str, str], float]
    wrong: frozenset[Place]


@dataclass(frozen=True)
class Words:
    """What the configuration of one model can say, found by building its class from changed configurations.

    Attributes:
        followers: for each of its numbers the places whose sizes follow it.
        say: the answer to sizes of all parameters and buffers, by place.
    """

    followers: Callable[[], tuple[frozenset[Place], ...]]
    say: Callable[[Mapping[Place, int]], Spoken]


@dataclass(frozen=True)
class Recorded:
    """What a folder keeps of a model, so that its library builds it again without weights.

    Attributes:
        values: JSON values for ``Home.rebuild``.
        says_widths: whether they give the model as it is, pruned; else as it was before some cut.
        sizes: of all parameters and buffers that they give, by place.
        spec: the name of the original, as far as the model knows where it came from: what ``registry.build`` takes.
    """

    values: Mapping[str, Any]
    says_widths: bool
    sizes: Mapping[Place, int]
    spec: str


@dataclass(frozen=True)
class Home:
    """A library whose models hold a configuration that they are built from.

    Attributes:
        recognises: whether a model is one of its own.
        study: what the configuration of a model can say.
        inner: globs over places of outputs that are the library's own business, such as a cache that it reads again;
            their widths are free.
        settle: makes the configuration of a pruned model true where the class can say its widths; else leaves it alone.
        keep: what builds a model again; None where this one cannot be. ``rebuild``: the way back, in evaluation mode or
            not, on the CPU. Raises CheckpointError.
    """

    recognises: Callable[[nn.Module], bool]
    study: Callable[[nn.Module], Words]
    settle: Callable[[nn.Module, Inputs], Settlement]
    keep: Callable[[nn.Module], Recorded | None]
    rebuild: Callable[[Mapping[str, Any]], nn.Module]
    inner: tuple[str, ...] = ()


def home_lines(settlement: Settlement | None) -> list[str]:
    """What was said to the library, for people."""
    if settlement is None or not (settlement.edits or settlement.trouble):
        return []
    said = ", ".join(f"{entry} {before} -> {after}" for entry, before, after in settlement.edits)
    return [f"config  {settlement.trouble or said}"]
