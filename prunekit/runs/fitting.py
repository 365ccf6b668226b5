"""A recipe against one model: what asks for a role that the model lacks is left out, and said so."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from prunekit.coupling.structure import Structure
from prunekit.errors import RecipeError
from prunekit.options import Scope
from prunekit.planning.parting import scopes_of
from prunekit.recipes.stages import Distil, Prune, Stage
from prunekit.roles import DEPTH
from prunekit.selection import filter_groups
from prunekit.selection.ratio import matches

logger = logging.getLogger(__name__)

_SHOWN = 3  # frozen widths that a message lists


@dataclass(frozen=True)
class Fitted:
    """The stages of a recipe for one model: None in place of each that is left out, and a sentence for everything."""

    stages: tuple[Stage | None, ...]
    left_out: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage is not None)


def _check_depth(cuts: Sequence[Prune], *, with_widths: bool) -> None:
    """Raises RecipeError where a recipe has no stage for the blocks that are asked for, or none for the widths."""
    if any(cut.deep for cut in cuts):
        if not with_widths and not all(cut.deep for cut in cuts):
            raise RecipeError(
                "the recipe cuts widths after blocks, and blocks alone are asked for",
                where="depth.block",
                hint="say how much of the widths goes too, or prune blocks alone with oneshot or iterative",
            )
        return
    if any(cut.pools for cut in cuts):
        raise RecipeError(
            "the recipe names the roles that it cuts, and whole blocks are none of them",
            where="depth.block",
            hint="prune blocks and widths with depth-then-width, or blocks alone with oneshot or iterative",
        )
    if with_widths and any(cut.part != 1 for cut in cuts):
        raise RecipeError(
            "the recipe cuts in parts, and blocks are renumbered between them",
            where="depth.block",
            hint="prune blocks first, with depth-then-width or oneshot, and then widths of what is left",
        )


def _check_stages(cuts: Sequence[Prune], goal: Scope, structure: Structure) -> None:
    """Raises RecipeError for a stage of blocks that has none, says nothing of them, or says widths in one breath."""
    for cut in cuts:
        named = {role for pool in cut.pools for role in pool}
        if named & set(DEPTH) and not cut.deep:
            raise RecipeError(
                "a stage cuts whole blocks or widths, not both", where=cut.title, hint="name blocks in a stage before"
            )
    deep = [cut for cut in cuts if cut.deep]
    if not deep:
        return
    roles = {role for cut in deep for pool in cut.pools for role in pool}
    if not any(group.role in roles for group in structure.depth.groups):
        why = "; ".join(f"{each.name}: {each.reason}" for each in structure.depth.frozen[:_SHOWN])
        raise RecipeError(
            "the model has no block that could go" + (f" ({why})" if why else ""),
            where=deep[0].title,
            hint="a recipe of widths, such as oneshot or isomorphic",
        )
    if isinstance(goal.ratio, Mapping) and not any(matches(k, g) for k in goal.ratio for g in structure.depth.groups):
        raise RecipeError(
            "the ratio says nothing of whole blocks, and the recipe cuts some",
            where=deep[0].title,
            hint="add depth.block=SHARE, or take a recipe of widths",
        )


def fitted(stages: Sequence[Stage], optional: Collection[str], structure: Structure, goal: Scope) -> Fitted:
    """``stages`` less the roles in ``optional`` that ``structure``, or the goal's include and exclude, has no group of.

    A pool, or a term of a loss, without any role goes, and a stage without any pool or term. A distillation goes with
    the cut that it belongs to: the one before it, or the one after it where a penalty prepares that.

    Raises RecipeError where no cut is left, and where a role that is missing is not optional.
    """
    depth, widths = scopes_of(goal)
    asked = [stage for stage in stages if isinstance(stage, Prune)]
    _check_stages(asked, goal, structure)
    if depth is not None:
        _check_depth(asked, with_widths=widths is not None)
        goal = widths or replace(goal, include=None, exclude=None)
    groups = filter_groups(structure.groups, goal.include, goal.exclude, readers=structure.readers)
    roles = {str(group.role) for group in groups}
    roles |= {str(group.role) for group in structure.depth.groups}
    wanted = dict.fromkeys(role for s in stages if isinstance(s, Prune) for pool in s.pools for role in pool)
    missing = [role for role in wanted if role not in roles]
    if refused := [role for role in missing if role not in optional]:
        raise lacking(refused, structure)
    if not missing:
        return Fitted(tuple(stages))
    cuts = [_cut(stage, roles) if isinstance(stage, Prune) else stage for stage in stages]
    if not any(isinstance(stage, Prune) for stage in cuts):
        raise lacking(missing, structure)
    said = [f"{role} is left out: {_reason(role, structure)}" for role in missing]
    out: list[Stage | None] = []
    for number, stage in enumerate(cuts):
        kept = _loss(stage, cuts, stages, number, set(missing)) if isinstance(stage, Distil) else stage
        if kept is None:
            said.append(f"the stage {stages[number].title!r} is left out")
        out.append(kept)
    for sentence in said:
        logger.warning("%s", sentence)
    return Fitted(tuple(out), tuple(said))


def comparable(
    stage: Distil, structure: Structure, sizes: Mapping[str, Mapping[str, int]], *, answered: bool = False
) -> Distil:
    """``stage`` less the roles that its terms cannot compare, with a notice for each.

    Terms that read the rest of the model stay where it is ``answered``: where there is one that can be asked.

    A role cannot be compared where no module hands out its features, or where a group of it has another size than in
    the teacher; ``sizes`` are the teachers' by group name. Raises RecipeError where no term is left.
    """
    terms = []
    for term in stage.terms:
        if term.read == "rest" and not answered:
            logger.warning("%s: %s is not compared: nothing follows the part that can be asked", stage.title, term.name)
            continue
        theirs = sizes.get(term.teacher, {})
        kept = []
        for role in term.roles:
            groups = [group for group in structure.groups if group.role == role]
            if not structure.taps((role,)):
                reason = "no module hands out its features"
            elif any(theirs.get(group.name, group.size) != group.size for group in groups):
                reason = "its widths are not the teacher's"
            else:
                kept.append(role)
                continue
            logger.warning("%s: %s is not compared: %s", stage.title, role, reason)
        if kept or not term.roles:
            terms.append(replace(term, roles=tuple(kept)))
    if not terms:
        raise RecipeError("no term can be compared with its teacher", where=stage.title)
    return replace(stage, terms=tuple(terms))


def lacking(missing: Sequence[str], structure: Structure, where: str = "") -> RecipeError:
    """The error for roles that no group of the model has."""
    roles = sorted({group.role for group in structure.groups})
    frozen = _frozen_widths(structure)
    return RecipeError(
        f"the model has no group with the role {', '.join(missing)}",
        where=where,
        hint=f"its roles: {', '.join(roles) or 'none'}" + (f"; frozen: {frozen}" if frozen else ""),
    )


def _cut(stage: Prune, roles: Collection[str]) -> Prune | None:
    """``stage`` with the roles that there are; None without any."""
    if not stage.pools:
        return stage
    pools = tuple(pool for pool in (tuple(r for r in pool if r in roles) for pool in stage.pools) if pool)
    return replace(stage, pools=pools) if pools else None


def _loss(
    stage: Distil, cuts: Sequence[Stage | None], stages: Sequence[Stage], number: int, missing: set[str]
) -> Distil | None:
    """``stage`` with the terms that can be compared; None without any, or where its cut is left out."""
    at = [i for i, s in enumerate(stages) if isinstance(s, Prune) and (i > number if stage.penalty else i < number)]
    owner = (at[0] if stage.penalty else at[-1]) if at else None
    if owner is not None and cuts[owner] is None:
        return None
    terms = []
    for term in stage.terms:
        roles = tuple(role for role in term.roles if role not in missing)
        if roles or not term.roles:
            terms.append(replace(term, roles=roles))
    return replace(stage, terms=tuple(terms)) if terms else None


def _reason(role: str, structure: Structure) -> str:
    if any(group.role == role for group in structure.groups):
        return "include or exclude leave no group of it"
    frozen = _frozen_widths(structure)
    return "the model has no group of it" + (f"; frozen: {frozen}" if frozen else "")


def _frozen_widths(structure: Structure) -> str:
    shown = [f"{f.name}: {f.reason}" for f in structure.frozen[:_SHOWN]]
    return "; ".join(shown)
