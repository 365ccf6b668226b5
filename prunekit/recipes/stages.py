"""What a recipe is made of: frozen stages over roles, and settings. No model is named and nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prunekit.schedule import portions

Setting = str | int | float | bool


@dataclass(frozen=True)
class Prune:
    """Score the model as it stands and cut the units that ``pools`` reach.

    Attributes:
        title: a few words for people.
        pools: each a tuple of roles whose groups are ranked together; the pools share one scoring and one cut. Empty
            means one pool of every role.
        align: role -> the counts are rounded down to a multiple of this; ``"heads"`` is the model's head count.
        part: of all that goes, what is gone after this stage, in (0, 1]; ``Repeat`` sets it.
    """

    title: str
    pools: tuple[tuple[str, ...], ...] = ()
    align: Mapping[str, int | Literal["heads"]] = field(default_factory=dict)
    part: float = 1.0


@dataclass(frozen=True)
class Term:
    """One mean squared error of a distillation loss: between a teacher's features and the student's.

    Attributes:
        roles: features that carry these roles, read by hooks; empty is the output of the part itself.
        teacher: ``original`` before any cut, or ``previous``: as it stood before the last cut.
        weight: ``a`` or ``1-a`` of the stage's schedule.
        name: a word for logs.
    """

    name: str
    weight: Literal["a", "1-a"]
    roles: tuple[str, ...] = ()
    teacher: Literal["original", "previous"] = "original"


@dataclass(frozen=True)
class Distil:
    """Train the pruned part towards frozen teachers with the sum of ``terms``.

    Attributes:
        title: a few words for people.
        terms: the loss.
        schedule: the weight a over epochs n = 0, 1, ... of which the first N (setting ``align_epochs``) align:
            ``constant`` is 0.5, then 0; ``linear`` is (N - n - 1) / N, then 0.
        penalty: what draws units to zero meanwhile, times the setting ``penalty``; see ``recipes/penalties.py``.
    """

    title: str
    terms: tuple[Term, ...]
    schedule: Literal["constant", "linear"] = "constant"
    penalty: Literal["", "group_lasso", "batch_norm_scale", "growing"] = ""

    def alpha(self, epoch: int, aligned: int) -> float:
        """The weight a in ``epoch`` (from 0), when the first ``aligned`` epochs align."""
        if epoch >= aligned:
            return 0.0
        return 0.5 if self.schedule == "constant" else (aligned - epoch - 1) / aligned


@dataclass(frozen=True)
class Evaluate:
    """Measure the whole model on the validation samples and keep the figures under ``key``."""

    title: str
    key: str


@dataclass(frozen=True)
class Repeat:
    """``stages`` over and over, as often as the setting ``prune_steps`` says.

    What goes is spread over the prune stages by the setting ``schedule``: cubic or linear, see ``prunekit.schedule``.
    """

    stages: tuple[Prune | Distil, ...]


Stage = Prune | Distil | Evaluate


@dataclass(frozen=True)
class Recipe:
    """An ordered list of stages and the settings that they share.

    ``model`` is the MODEL that the command line takes when none is given; "" asks for one. A setting's type is the type
    of its default.
    """

    name: str
    description: str
    stages: tuple[Stage | Repeat, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    model: str = ""


COMMON: Mapping[str, Any] = {
    "ranking": "local",  # local | global | role | isomorphic
    "normaliser": "gaussian",  # of the scores, under global ranking
    "accumulation": "abs",  # of w*g over images: abs | squared | signed
    "align": 0,  # widths are multiples of this; 0 is 8 from 64 units on
    "compensate": "",  # ridge: refit what reads removed units after every cut
    "verify": "auto",  # symmetry before every cut: auto | full | shapes
    "images": 64,  # that scores are taken from
    "val_images": 32,  # that metrics and the learning rate are taken from
    "train_images": 0,  # that distillation sees; 0 is all
    "distill": True,
    "penalty": 1e-4,  # strength of a stage's penalty
    "epochs": 20,  # per distillation stage
    "align_epochs": 10,  # of these, with a > 0
    "steps": 0,  # batches per distillation stage at most; 0 is all epochs
    "batch": 1,
    "accumulate": 4,  # batches per optimiser step
    "lr": 1e-4,
    "lr_schedule": "plateau",  # plateau | cosine | constant
    "clip": 1.0,  # gradient norm at most; 0 is no limit
    "precision": "fp32",  # of products while distilling: fp32 | bf16 | fp16; weights stay float32
    "checkpointing": False,  # run blocks again in the backward pass instead of keeping what they computed
    "teacher_cache": "memory",  # what frozen teachers give, once a sample: memory | disk (half precision) | off
    "cache_gb": 2.0,  # of it at most, per teacher
    "save_minutes": 10.0,  # between two states that a killed run can go on from
    "seed": 0,
    "latency": True,  # measure it
}


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of ``recipe``, the repeated ones written out. Raises InputError for fewer than one step."""
    found: list[Stage] = []
    for stage in recipe.stages:
        if not isinstance(stage, Repeat):
            found.append(stage)
            continue
        parts = portions(int(recipe.settings["prune_steps"]), str(recipe.settings["schedule"]))
        for number, part in enumerate(parts, 1):
            for each in stage.stages:
                titled = replace(each, title=f"{each.title}, {number} of {len(parts)}")
                found.append(replace(titled, part=part) if isinstance(titled, Prune) else titled)
    return tuple(found)
