"""Modules that go, and the lists that have a value an entry: by exchange of references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from prunekit.coupling.groups import Absence
from prunekit.errors import PlanError
from prunekit.inputs import Inputs
from prunekit.modules.absent import Absent
from prunekit.modules.containers import names_left
from prunekit.plans.contents import Plan, Removal, Shortening
from prunekit.plans.renaming import Renaming
from prunekit.surgery.way_back import putter

_AGAIN = "plan again for this model"


def holder(module: nn.Module, attribute: str) -> tuple[Any, str]:
    """The object that holds the last part of a dotted attribute, and that part. Raises AttributeError."""
    held: Any = module
    *way, last = attribute.split(".")
    for name in way:
        held = getattr(held, name)
    return held, last


def check_removals(model: nn.Module, plan: Plan) -> None:
    """Raises PlanError where a container has other entries, or a list another length, than the plan says."""
    for removal in plan.removals:
        try:
            container = model.get_submodule(removal.container)
        except AttributeError as error:
            raise PlanError(f"the model has no {removal.container}", hint=_AGAIN) from error
        if tuple(container._modules) != removal.names:
            raise PlanError(
                f"{removal.container or 'the model'} has {len(container._modules)} entries, "
                f"the plan expects {len(removal.names)} of other names",
                hint=_AGAIN,
            )
    for absence in plan.absences:
        _stand_in(model, absence)
    for short in plan.shortenings:
        found = _list_at(model, short)
        if not isinstance(found, (list, tuple)) or len(found) != short.size:
            raise PlanError(f"{short.module}.{short.attribute} is no list of {short.size}", hint=_AGAIN)


def _stand_in(model: nn.Module, absence: Absence) -> tuple[nn.Module, str, Absent]:
    """The module around the one that goes, its name there, and what stands there then. Raises PlanError."""
    parent, _, name = absence.module.rpartition(".")
    try:
        held = model.get_submodule(parent)
        return held, name, Absent(absence.form, absence.leaves, held.get_submodule(name), absence.typed)
    except AttributeError as error:
        raise PlanError(f"the model has no {absence.module}", hint=_AGAIN) from error
    except ValueError as error:
        raise PlanError(f"{absence.module} cannot go: {error}", hint=_AGAIN) from error


def _list_at(model: nn.Module, short: Shortening) -> Any:
    try:
        held, name = holder(model.get_submodule(short.module), short.attribute)
        return getattr(held, name)
    except AttributeError:
        return None


def removed_parameters(model: nn.Module, plan: Plan) -> list[nn.Parameter]:
    """Parameters that only modules hold which go."""
    paths = [*(path for removal in plan.removals for path in removal.gone), *(each.module for each in plan.absences)]
    gone = {id(p): p for path in paths for p in _parameters_at(model, path)}
    if not gone:
        return []
    out = {id(model.get_submodule(path)) for path in paths}
    stay = set(_parameters_beside(model, out))
    return [parameter for number, parameter in gone.items() if number not in stay]


def _parameters_at(model: nn.Module, path: str) -> Iterable[nn.Parameter]:
    return model.get_submodule(path).parameters()


def _parameters_beside(model: nn.Module, out: set[int]) -> Iterable[int]:
    """Parameters, by id, of what is reached without going through the modules ``out``."""
    seen: set[int] = set()
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) in seen or id(module) in out:
            continue
        seen.add(id(module))
        yield from (id(p) for p in module._parameters.values() if p is not None)
        waiting += [child for child in module._modules.values() if child is not None]


Map = tuple[Tensor, Tensor]


def maps_of_uncut(
    model: nn.Module, plan: Plan, samples: Sequence[Inputs] | None, cut: Callable[[], Callable[[], None]]
) -> dict[str, Map]:
    """By module the affine map of every absence whose stream, or what else it reads, ``plan`` cuts, fitted while
    ``model`` is whole. ``cut`` carries the plan out with maps at zero and returns the way back."""
    runs = [run for run in _in_runs(plan.absences) if run[-1].has_map]
    if not runs or not samples:
        return {}
    from prunekit.surgery.mapping import fitted_uncut, given_otherwise  # loading a pruned model fits nothing

    names = Renaming(plan.removals)
    others = [each.module for run in runs if not run[-1].kept for each in run] if plan.cuts else []
    stay = {path: now for path in others if (now := names.now(path)) is not None}
    astray = given_otherwise(model, stay, samples[0], cut) if stay else set()
    uncut = [run for run in runs if run[-1].kept or any(each.module in astray for each in run)]
    return {run[-1].module: fitted_uncut(model, run, samples) for run in uncut}


def leave_out(
    model: nn.Module,
    plan: Plan,
    steps: list[Callable[[], None]],
    samples: Sequence[Inputs] | None,
    known: Mapping[str, Map],
) -> None:
    """Carries out the absences of ``plan``, after its removals; ``steps`` gets what puts everything back.

    Affine maps that are not ``known`` are fitted on ``samples``, one after another; without any they stay at zero.
    Raises PlanError.
    """
    names = Renaming(plan.removals)
    left = [replace(each, module=now) for each in plan.absences if (now := names.now(each.module)) is not None]
    given = {now: found for module, found in known.items() if (now := names.now(module)) is not None}
    to_fit = []
    for together in _in_runs(left):
        last = together[-1]
        if samples is not None and last.has_map and last.module not in given:
            to_fit.append((together, samples))
            continue
        # what the cuts around it have passed by cannot run: it goes before anything is fitted
        _put_in(model, together, steps)
        if last.module in given:
            _write_into_absent(model, last.module, given[last.module])
    for together, met in to_fit:
        from prunekit.surgery.mapping import fitted_map  # loading a pruned model fits nothing

        made = fitted_map(model, together[-1], met, partial(_put_in, model, together, steps))
        _write_into_absent(model, together[-1].module, made)


def _write_into_absent(model: nn.Module, path: str, made: Map) -> None:
    from prunekit.surgery.mapping import write_map

    found = model.get_submodule(path)
    assert isinstance(found, Absent)
    write_map(found, *made)


def _in_runs(absences: Sequence[Absence]) -> Iterator[list[Absence]]:
    """Modules that go together: those that hand on what they are given, and the one that follows."""
    waiting: list[Absence] = []
    for absence in absences:
        waiting.append(absence)
        if not absence.hands_on:
            yield waiting
            waiting = []
    yield from ([absence] for absence in waiting)


def _put_in(model: nn.Module, absences: Sequence[Absence], steps: list[Callable[[], None]]) -> None:
    for absence in absences:
        parent, name, absent = _stand_in(model, absence)
        steps.append(putter(parent.__dict__["_modules"], name, parent._modules[name]))
        parent._modules[name] = absent


def remove(model: nn.Module, plan: Plan, steps: list[Callable[[], None]]) -> None:
    """Carries out the removals and shortenings of ``plan``; ``steps`` gets what puts everything back."""
    for short in plan.shortenings:
        held, name = holder(model.get_submodule(short.module), short.attribute)
        store = held.__dict__
        before = store[name]
        steps.append(putter(store, name, before))
        store[name] = type(before)([before[place] for place in short.kept])
    found = [(model.get_submodule(removal.container), removal) for removal in plan.removals]
    for container, removal in found:
        before = container._modules
        steps.append(putter(container.__dict__, "_modules", before))
        container.__dict__["_modules"] = _left(before, removal)


def _left(before: dict[str, Any], removal: Removal) -> dict[str, Any]:
    new = names_left(removal.names, removal.kept)
    pairs = {name: before[removal.names[place]] for name, place in zip(new, removal.kept, strict=True)}
    return type(before)(pairs)
