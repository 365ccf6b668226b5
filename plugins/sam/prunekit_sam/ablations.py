"""What SlimSAM's ablations change about its recipe: settings of its own, and the stages as they would have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prunekit.errors import RecipeError
from prunekit.options import said
from prunekit.recipes import Distil, Even, Falling, Prune, Recipe, Stage, Term, Weighting

ALPHAS: Mapping[str, Weighting] = {"constant": Even(), "linear": Falling()}


def words(text: object) -> list[str]:
    """The words between commas."""
    return [word.strip() for word in str(text).split(",") if word.strip()]


def _check_alpha(name: str, value: object) -> None:
    if wrong := [word for word in words(value) if word not in ALPHAS]:
        raise RecipeError(f"setting alpha={wrong[0]!r} is unknown", hint=f"one of {', '.join(ALPHAS)}, or several")


@dataclass(frozen=True)
class Ablations:
    """Settings of the slimsam recipes alone."""

    alpha: str = field(
        default="",
        metadata=said(
            "constant | linear, for both alignments, or one for each: constant,linear; SlimSAM, Sec. 4",
            check=_check_alpha,
        ),
    )
    without: str = field(
        default="", metadata=said("terms that the losses leave out: bottleneck, embedding, previous output")
    )
    masks: float = field(
        default=0.0,
        metadata=said(
            "weight of a further term: masks that the frozen decoder makes of the output, against the teacher's"
        ),
    )
    scratch: bool = field(default=False, metadata=said("weights are drawn anew after every cut"))


def arranged(recipe: Recipe, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """``stages`` with the settings of ``Ablations`` applied.

    Raises RecipeError for schedules that are not as many as the stages, for a term that no stage has, and for a stage
    without any term.
    """
    losses = [stage for stage in stages if isinstance(stage, Distil)]
    alphas, without = words(recipe.settings["alpha"]), words(recipe.settings["without"])
    if len(alphas) not in (0, 1, len(losses)):
        raise RecipeError(
            f"setting alpha names {len(alphas)} schedules for {len(losses)} distillation stages",
            where=recipe.name,
            hint="name one for all, or one for each",
        )
    terms = {term.name for stage in losses for term in stage.terms}
    if unknown := [name for name in without if name not in terms]:
        raise RecipeError(
            f"no loss has a term {unknown[0]!r}", where=f"{recipe.name}, setting without", hint=", ".join(sorted(terms))
        )
    weight = float(recipe.settings["masks"])
    out: list[Stage] = []
    for stage in stages:
        if isinstance(stage, Prune):
            stage = replace(stage, reinitialise=bool(recipe.settings["scratch"]))
        elif isinstance(stage, Distil):
            kept = tuple(term for term in stage.terms if term.name not in without)
            if not kept:
                raise RecipeError(f"the loss of {stage.title!r} has no term left", where=f"{recipe.name}, without")
            given = ALPHAS[alphas[losses.index(stage) % len(alphas)]] if alphas else stage.weighting
            masks = (Term("masks", read="rest", factor=weight, loss="bce"),) if weight else ()
            stage = replace(stage, terms=(*kept, *masks), weighting=given)
        out.append(stage)
    return tuple(out)
