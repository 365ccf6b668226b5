"""What a recipe is made of: frozen stages over roles, and settings. No model is named and nothing runs here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from prunekit.errors import RecipeError
from prunekit.options.schedules import portions

Setting = str | int | float | bool


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
    """

    title: str
    pools: tuple[tuple[str, ...], ...] = ()
    align: Mapping[str, int | Literal["heads"]] = field(default_factory=dict)
    bound: tuple[str, ...] = ()
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
        penalty: what draws units to zero meanwhile, times the setting ``penalty``; see ``runs/penalties.py``.
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

    What goes is spread over the prune stages by the setting ``schedule``: cubic or linear, ``planning.schedule``.
    """

    stages: tuple[Prune | Distil, ...]


Stage = Prune | Distil | Evaluate


@dataclass(frozen=True)
class Recipe:
    """An ordered list of stages and the settings that they share.

    ``model`` is the MODEL that the command line takes when none is given; "" asks for one. A setting's type is the type
    of its default. ``optional``: roles that a model may lack; what asks for them is left out, see ``runs/fitting.py``.
    """

    name: str
    description: str
    stages: tuple[Stage | Repeat, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    model: str = ""
    optional: tuple[str, ...] = ()


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
    "split": False,  # train and validate on parts of one folder of data, by file name; its test part is never read
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
    "sharded": False,  # divide weights, gradients and moments among the ranks while training (FSDP)
    "teacher_cache": "memory",  # what frozen teachers give, once a sample: memory | disk (half precision) | off
    "cache_gb": 2.0,  # of it at most, per teacher
    "save_minutes": 10.0,  # between two states that a killed run can go on from
    "seed": 0,
    "latency": True,  # measure it
}


ALPHAS = ("constant", "linear")


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages of ``recipe``, the repeated ones written out, the settings ``alpha`` and ``without`` applied.

    ``alpha``: schedules of the distillation stages in turn, or one for all; ``without``: terms that their losses leave
    out; both separated by commas. Raises InputError for fewer than one step, RecipeError for schedules that are not as
    many as the stages, for a term that no stage has, and for a stage without any term.
    """
    stages = _written_out(recipe)
    losses = [stage for stage in stages if isinstance(stage, Distil)]
    alphas = named(recipe.settings.get("alpha", ""))
    if len(alphas) not in (0, 1, len(losses)):
        raise RecipeError(
            f"setting alpha names {len(alphas)} schedules for {len(losses)} distillation stages",
            where=recipe.name,
            hint="name one for all, or one for each",
        )
    without, terms = named(recipe.settings.get("without", "")), {t.name for stage in losses for t in stage.terms}
    if unknown := [name for name in without if name not in terms]:
        raise RecipeError(
            f"no loss has a term {unknown[0]!r}", where=f"{recipe.name}, setting without", hint=", ".join(sorted(terms))
        )
    out: list[Stage] = []
    for stage in stages:
        if isinstance(stage, Distil):
            kept = tuple(term for term in stage.terms if term.name not in without)
            if not kept:
                raise RecipeError(f"the loss of {stage.title!r} has no term left", where=f"{recipe.name}, without")
            given = alphas[losses.index(stage) % len(alphas)] if alphas else stage.schedule
            stage = replace(stage, terms=kept, schedule=cast(Any, given))
        out.append(stage)
    return tuple(out)


def named(text: object) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in str(text).split(",") if word.strip()]


def _written_out(recipe: Recipe) -> tuple[Stage, ...]:
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
