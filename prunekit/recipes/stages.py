"""What a recipe is made of: frozen stages over roles, and settings. No model is named and nothing runs here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from prunekit.errors import RecipeError
from prunekit.options.fields import Setting
from prunekit.options.schedules import portions
from prunekit.recipes.records import Repeating
from prunekit.roles import DEPTH

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prune:
    """Score the model as it stands and cut the units that ``pools`` reach.

    Attributes:
        title: a few words for people.
        pools: each a tuple of roles whose groups are ranked together; the pools share one scoring and one cut. Empty
            means one pool of every role.
        align: role -> the counts are rounded down to a multiple of this; ``"heads"`` is the head count of the
            attention nearby, see ``runs/prune_stage.py``.
        bound: roles that are cut along where the model's own code allows the widths of ``pools`` no other way, such as
            heads that share out the embedding among them.
        part: of all that goes, what is gone after this stage, in (0, 1]; ``Repeat`` sets it.
        share: of a ratio that names no role, and of a target, what is gone after this stage, in (0, 1]: how much of it
            blocks take where widths follow.
        reinitialise: whether weights are drawn anew after the cut: a control that trains from nothing.
    """

    title: str
    pools: tuple[tuple[str, ...], ...] = ()
    align: Mapping[str, int | Literal["heads"]] = field(default_factory=dict)
    bound: tuple[str, ...] = ()
    part: float = 1.0
    reinitialise: bool = False
    share: float = 1.0

    @property
    def deep(self) -> bool:
        """Whether whole blocks are what it cuts."""
        return bool(self.pools) and all(role in DEPTH for pool in self.pools for role in pool)


class Weighting(Protocol):
    """How much the aligning terms of a loss count, over the epochs of a stage."""

    def weight(self, epoch: int, aligned: int) -> float:
        """In ``epoch`` (from 0), when the first ``aligned`` epochs align; the other terms count one minus that."""
        ...


@dataclass(frozen=True)
class Even:
    """A half while the first epochs align, nothing after."""

    def weight(self, epoch: int, aligned: int) -> float:
        return 0.5 if epoch < aligned else 0.0


@dataclass(frozen=True)
class Falling:
    """(N - n - 1) / N in epoch n of the N that align, nothing after."""

    def weight(self, epoch: int, aligned: int) -> float:
        return (aligned - epoch - 1) / aligned if epoch < aligned else 0.0


class Loss(Protocol):
    """A loss of one's own between a feature or output of the student and the teacher's."""

    def __call__(self, student: Tensor, teacher: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Term:
    """One part of a distillation loss: between a teacher's features and the student's.

    Attributes:
        name: a word for logs.
        roles: features that carry these roles, read by hooks; empty is the output of the part itself.
        teacher: ``original`` before any cut, or ``previous``: as it stood before the last cut.
        aligning: whether it counts as the stage's weighting says, while the first epochs align; the other terms count
            one minus that.
        where: hidden features are compared as they are ``written``, the output of the layer that makes them, or as they
            are ``read``, the input of the layer where they end, after the activation.
        pooled: a loss of several features is the mean over all ``places``, or over those of one shape, and these means
            are added up: ``shapes``, as where features are joined to one tensor before they are compared.
        read: outputs are compared as the ``part`` gives them, or once the ``rest`` of the model, frozen, has answered
            to them (``ModelEntry.answers``): a second target, for models whose plug-in says how to ask.
        factor: times which the term counts.
        loss: ``mse``, the mean squared error; ``cosine``, one minus the cosine over the last axis, per place; or
            ``kl``: the Kullback-Leibler divergence of the student's first output, read as logits over its last axis,
            from the teacher's, per place (Muralidharan et al. 2024, 2407.14679); or ``bce``: that of yes-or-no
            probabilities, number by number, both read as logits, as of masks. Or one's own: a function of what the
            student gives and what the teacher gave, two tensors of one shape, to a number.
    """

    name: str
    roles: tuple[str, ...] = ()
    teacher: Literal["original", "previous"] = "original"
    aligning: bool = False
    loss: Literal["mse", "cosine", "kl", "bce"] | Loss = "mse"
    where: Literal["written", "read"] = "written"
    pooled: Literal["places", "shapes"] = "places"
    read: Literal["part", "rest"] = "part"
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.roles and self.read == "rest":
            raise RecipeError(
                f"the rest of a model reads outputs, not features of {', '.join(self.roles)}",
                where=f"term {self.name}",
                hint="leave out the roles, or read: rest",
            )


@dataclass(frozen=True)
class Distil:
    """Train the pruned part towards frozen teachers with the sum of ``terms``.

    Attributes:
        title: a few words for people.
        terms: the loss.
        weighting: how much the aligning terms count, epoch by epoch; the first N (setting ``align_epochs``) align.
        penalty: what draws units to zero meanwhile, times the setting ``penalty``; see ``runs/penalties.py``.
    """

    title: str
    terms: tuple[Term, ...]
    weighting: Weighting = Even()
    penalty: Literal["", "group_lasso", "batch_norm_scale", "growing"] = ""


@dataclass(frozen=True)
class Evaluate:
    """Measure the whole model on the validation samples and keep the figures under ``key``."""

    title: str
    key: str


@dataclass(frozen=True)
class Repeat:
    """``stages`` over and over, as often as the setting ``prune_steps`` says.

    What goes is spread over the prune stages by the setting ``schedule``: cubic or linear, ``options/schedules.py``.
    """

    stages: tuple[Prune | Distil, ...]


Stage = Prune | Distil | Evaluate


@dataclass(frozen=True)
class Recipe:
    """An ordered list of stages and the settings that they share.

    ``model`` is the MODEL that the command line takes when none is given; "" asks for one. A setting's type is the type
    of its default. ``optional``: roles that a model may lack; what asks for them is left out, see ``runs/fitting.py``.
    ``own``: a record of settings that this recipe alone has (``recipes/records.py`` has the others'); ``arrange``: the
    stages as these settings would have them. It raises RecipeError.
    """

    name: str
    description: str
    stages: tuple[Stage | Repeat, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    model: str = ""
    optional: tuple[str, ...] = ()
    own: type | None = None
    arrange: Callable[[Recipe, tuple[Stage, ...]], tuple[Stage, ...]] | None = None


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of ``recipe``, the repeated ones written out, as the recipe arranges them for its settings.

    Raises InputError for fewer than one step, and what ``Recipe.arrange`` raises.
    """
    stages = _written_out(recipe)
    return stages if recipe.arrange is None else recipe.arrange(recipe, stages)


def _written_out(recipe: Recipe) -> tuple[Stage, ...]:
    found: list[Stage] = []
    for stage in recipe.stages:
        if not isinstance(stage, Repeat):
            found.append(stage)
            continue
        repeating = Repeating.of(recipe.settings)
        parts = portions(repeating.prune_steps, repeating.schedule)
        for number, part in enumerate(parts, 1):
            for each in stage.stages:
                titled = replace(each, title=f"{each.title}, {number} of {len(parts)}")
                found.append(replace(titled, part=part) if isinstance(titled, Prune) else titled)
    return tuple(found)
